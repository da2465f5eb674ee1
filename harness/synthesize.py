"""Generated data in the layout of MVTec AD, for machines and tests that have no data set.

An image depends on (seed, category, folder, number) alone, so that asking for more images changes none of the
others, and the same seed gives the same bytes.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple
from zlib import crc32

import numpy as np
from numpy.random import Generator
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from harness.painting import SUBJECTS, picture
from profiles.errors import DataError

LARGEST_SIDE = 4096
MOST_IMAGES = 100_000


class SyntheticConfig(BaseModel):
    """How much to generate of a category."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    side: int = Field(ge=64, le=LARGEST_SIDE, description="side of the stored images, pixels")
    train: int = Field(ge=2, le=MOST_IMAGES, description="good images to train on, at least one of which validates")
    test_good: int = Field(gt=0, le=MOST_IMAGES, description="good images to test on")
    test_per_defect: int = Field(gt=0, le=MOST_IMAGES, description="images to test on, of each kind of defect")

    def test_images(self, category: str) -> int:
        """Return how many images to test on a category has."""
        return self.test_good + len(SUBJECTS[category].defects) * self.test_per_defect


GENERATED: dict[str, Literal["texture", "object"]] = {name: subject.kind for name, subject in SUBJECTS.items()}
"""What can be generated: name of the category -> kind."""


class _Order(NamedTuple):
    """One image to paint: `train/good/000.png` is number 0 of folder `train/good`, without a defect."""

    folder: str
    number: int
    defect: str | None


def _orders(category: str, config: SyntheticConfig) -> Iterator[_Order]:
    """Yield every image of *category*."""
    counts: list[tuple[str, str | None, int]] = [
        ("train/good", None, config.train),
        ("test/good", None, config.test_good),
        *((f"test/{defect}", defect, config.test_per_defect) for defect in SUBJECTS[category].defects),
    ]
    for folder, defect, count in counts:
        yield from (_Order(folder, number, defect) for number in range(count))


def _generator(seed: int, category: str, order: _Order) -> Generator:
    """Return the randomness of one image."""
    return np.random.default_rng([seed, crc32(category.encode()), crc32(order.folder.encode()), order.number])


def _save(path: Path, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _write(folder: Path, category: str, config: SyntheticConfig, seed: int) -> None:
    """Paint all images of *category* into *folder*."""
    for order in _orders(category, config):
        image, mask = picture(category, order.defect, config.side, _generator(seed, category, order))
        _save(folder / order.folder / f"{order.number:03d}.png", image)
        if order.defect is not None:
            _save(folder / "ground_truth" / order.defect / f"{order.number:03d}_mask.png", mask)


def check(root: Path, category: str) -> None:
    """Check that *category* can be generated and has no folder in *root* yet.

    Raises:
        DataError: it is not so.

    """
    if category not in GENERATED:
        known = f"one of {', '.join(GENERATED)}"
        where = "category to generate"
        raise DataError(where, got=category, expected=known, fix="choose one of these")
    if (root / category).exists():
        fix = "delete that folder, or choose another root"
        raise DataError(root / category, got="an existing folder", expected="none", fix=fix)


def synthesize(root: Path, category: str, config: SyntheticConfig, seed: int) -> None:
    """Write *category* to `<root>/<category>`, all of it or nothing.

    Masks are 255 exactly where the defect altered a pixel, else 0.

    Args:
        root: the data set's folder; made if missing.
        category: a key of `GENERATED`.
        config: how much.
        seed: at least 0; the same seed gives the same bytes.

    Raises:
        DataError: *category* is unknown, or has a folder in *root* already, or *root* cannot be written.

    """
    check(root, category)
    try:
        root.mkdir(parents=True, exist_ok=True)
        # A sibling, so that the rename stays on one file system.
        unfinished = Path(tempfile.mkdtemp(prefix=f".{category}-", dir=root))
    except OSError as error:
        got = error.strerror or "a folder that cannot be written"
        raise DataError(root, got=got, expected="a folder to write", fix="name another") from error
    try:
        _write(unfinished, category, config, seed)
        unfinished.chmod(0o755)  # mkdtemp lets nobody else read
        unfinished.rename(root / category)
    except BaseException:
        shutil.rmtree(unfinished)
        raise
