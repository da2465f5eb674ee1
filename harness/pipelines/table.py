"""The pipelines by name: all in which one differs from another."""

from harness.pipelines import fast, thesis
from harness.pipelines.memory import kept_memory
from harness.pipelines.parts import Pipeline
from models.patch_loss import patch_inpainting_loss
from models.transformer import gather_at_once

PIPELINES: dict[str, Pipeline] = {
    "thesis": Pipeline(
        images=thesis.ReloadedImages,
        cut=thesis.cut_one_by_one,
        gather=thesis.gather_one_by_one,
        attention="fast-transformers",
        loss=thesis.loss_with_map,
        optimizer=thesis.adam_one_by_one,
        paint=thesis.paint_one_by_one,
        reloads_every_window=True,
    ),
    "fast": Pipeline(
        images=fast.ResidentImages,
        cut=fast.cut_at_once,
        gather=gather_at_once,
        attention="native",
        loss=patch_inpainting_loss,
        optimizer=fast.adam,
        paint=fast.paint_in_batches,
        memory=kept_memory,
    ),
}
