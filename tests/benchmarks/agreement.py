"""Whether both pipelines compute the same at full size: losses step by step, then an image painted, and its map."""

import torch
from torch import Tensor

from harness.pipelines.parts import Loaded, as_floats, joined
from models.anomaly_map import difference
from models.windows import to_images
from tests.benchmarks.apart import Job
from tests.benchmarks.extent import MODELS, Extent, Table
from tests.benchmarks.work import PATCH_SIDE, Work, covered_image, training_windows

PIPELINES_COMPARED = ("thesis", "fast")


def agreement(extent: Extent) -> Table:
    """Train the same weights on the same windows by both pipelines, in float32, and compare."""
    found: Table = {"steps": extent.agreement_steps, "batch": extent.agreeing, "side": extent.agreement_side}
    loaded = training_windows(extent.agreement_steps * extent.agreeing, extent.agreement_side)
    covered = covered_image(extent.agreement_side)
    for name in MODELS:
        works = [
            Job(pipeline, name, extent.model, extent.agreement_side, extent.agreeing).model()
            for pipeline in PIPELINES_COMPARED
        ]
        losses = torch.tensor(
            [
                [trained.step(loaded._replace(windows=windows)) for trained in works]
                for windows in loaded.windows.split(extent.agreeing)
            ]
        )
        apart = _compared(works, covered, extent.agreeing)
        works[0].model.load_state_dict(works[1].model.state_dict())
        found[name] = {
            "losses_differ_by_at_most": _largest(losses[:, 0] / losses[:, 1] - 1),
            "first_loss": losses[0, 1].item(),
            "last_loss": losses[-1, 1].item(),
            "trained_apart_differ_by_at_most": apart["reconstructions_differ_by_at_most"],
            **_compared(works, covered, extent.agreeing),
        }
    return found


def _painted(trained: Work, covered: Loaded, batch: int) -> tuple[Tensor, Tensor]:
    """Return an image's reconstruction and its difference, of which an anomaly map is made."""
    patches_np = trained.paint(covered, batch)
    reconstruction = to_images(patches_np[None], PATCH_SIDE, covered.images_irqcss.shape[1])
    return reconstruction, difference(as_floats(joined(covered.images_irqcss)), reconstruction)


def _compared(works: list[Work], covered: Loaded, batch: int) -> Table:
    """Return the largest deviation of reconstructions, whose values are around [0, 1], and of differences."""
    (slow, slow_difference), (quick, quick_difference) = [_painted(trained, covered, batch) for trained in works]
    return {
        "reconstructions_differ_by_at_most": _largest(slow - quick),
        "differences_differ_by_at_most": _largest(slow_difference - quick_difference),
        "largest_difference": _largest(quick_difference),
    }


def _largest(x: Tensor) -> float:
    return x.abs().max().item()
