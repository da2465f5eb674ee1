"""How large everything is that the benchmark of pipelines measures, and how long it may take: the thesis's sizes."""

from pathlib import Path
from typing import Any, NamedTuple

from models.transformer import ModelConfig, Precision

MODELS = ("msa", "mlsa")
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
WINDOWS_PER_IMAGE = 600

Table = dict[str, Any]

NO_IMAGES: Table = {"left_out": "BENCH_TEST_DATA names no folder that holds real images"}


class Extent(NamedTuple):
    """All sizes. Limits are of one comparison's rounds, which are as many as the time allows, up to the precision.

    A *turn* of both pipelines is so many steps of so many windows, loading included. Steps of *agreement* are of
    *agreeing* windows. Growth is measured on a model of fewer blocks, which is linear in them.
    """

    model: ModelConfig = ModelConfig()
    side: int = 256
    batch: int = 64
    step_rounds: int = 12
    step_limit_s: float = 75.0
    image_limit_s: float = 90.0
    turn_steps: int = 2
    turn_batch: int = 16
    turn_limit_s: float = 50.0
    epoch_steps: int = 2
    agreement_steps: int = 50
    agreeing: int = 2
    agreement_side: int = 128
    grown: ModelConfig = ModelConfig(depth=2)
    grown_rounds: int = 2
    grown_batches: tuple[int, ...] = (8, 16, 32, 64)
    grown_sides: tuple[int, ...] = (128, 192, 256)
    grown_counts: tuple[int, ...] = (1, 2, 4)
    loaded_counts: tuple[int, ...] = (8, 16, 32)
    scored_counts: tuple[int, ...] = (16, 32, 64)
    scored_sides: tuple[int, ...] = (128, 256, 512)
    growth_limit_s: float = 15.0
    scored_images: int = 64
    scores_limit_s: float = 60.0
    categories: dict[str, list[Path]] = {}  # noqa: RUF012 - never changed
    """Real image files by category; absent: none, and what needs them is left out."""

    @property
    def first_images(self) -> tuple[Path, ...]:
        """Return those of the first category."""
        return tuple(next(iter(self.categories.values()), ()))


def real_images(folder: str | None) -> dict[str, list[Path]]:
    """Return the training images under *folder*, which holds `mvtec`, by category."""
    if not folder:
        return {}
    categories = sorted(path for path in Path(folder, "mvtec").iterdir() if path.is_dir())
    return {path.name: sorted((path / "train" / "good").glob("*.png")) for path in categories}
