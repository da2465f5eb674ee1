"""The pipelines by name: all in which one differs from another."""

from harness.pipelines import fast
from harness.pipelines.memory import kept_memory
from harness.pipelines.parts import Pipeline
from models.patch_loss import patch_inpainting_loss
from models.transformer import gather_at_once

PIPELINES: dict[str, Pipeline] = {
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
