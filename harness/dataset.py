"""The MVTec AD layout, read strictly: what is not as it should be is an error that names the file.

<root>/<category>/train/good/*.png
<root>/<category>/test/<good|defect>/*.png
<root>/<category>/ground_truth/<defect>/<stem>_mask.png
"""

import os
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from harness.images import inspect_image, inspect_mask
from profiles.errors import DataError

GOOD = "good"
AGAIN = "download the category again"
MOST_ENTRIES = 100_000
"""Of a folder; MVTec AD's largest has 391."""


class LabelledImage(NamedTuple):
    """A test image; *mask* is absent where *defect* is `good`."""

    path: Path
    defect: str
    mask: Path | None


class Category(NamedTuple):
    """The files of one category, in the order of their names."""

    name: str
    train: tuple[Path, ...]
    test: tuple[LabelledImage, ...]


def _entries(folder: Path, what: str) -> list[Path]:
    """List a folder by name, hidden files left out.

    Raises:
        DataError: it is missing, unreadable, empty or endless.

    """
    try:
        with os.scandir(folder) as found:
            names = [entry.name for entry in islice(found, MOST_ENTRIES + 1)]
    except OSError as error:
        raise DataError(folder, got=error.strerror or "an unreadable folder", expected=what, fix=AGAIN) from error
    if len(names) > MOST_ENTRIES:
        got, expected = f"more than {MOST_ENTRIES:,} entries", f"{what}, at most {MOST_ENTRIES:,}"
        raise DataError(folder, got=got, expected=expected, fix="name the data set's folder")
    entries = [folder / name for name in sorted(names) if not name.startswith(".")]
    if not entries:
        raise DataError(folder, got="an empty folder", expected=what, fix=AGAIN)
    return entries


def _images(folder: Path) -> list[Path]:
    images = _entries(folder, "a folder of PNG images")
    for path in images:
        if path.suffix.lower() != ".png" or not os.path.isfile(path):  # noqa: PTH113 - see below
            raise DataError(path, got="something other than a PNG file", expected="PNG files only", fix="remove it")
    return images


def list_categories(root: Path) -> list[str]:
    """Return the categories under *root*: its folders that hold a `train` folder.

    Raises:
        DataError: *root* is missing, unreadable, or holds none.

    """
    # of os.path, whose questions have an answer also where one may not look, or a name is too long
    names = [path.name for path in _entries(root, "a folder of categories") if os.path.isdir(path / "train")]  # noqa: PTH112
    if not names:
        raise DataError(
            root, got="no category", expected="<category>/train/good/*.png", fix="name the data set's folder"
        )
    return names


def read_category(root: Path, name: str) -> Category:
    """List the files of a category and check that they belong together; their contents are not read.

    Raises:
        DataError: a folder is missing or empty, a file is no PNG, a defective image has no mask or a mask no image.

    """
    known = list_categories(root)
    if name not in known:
        raise DataError(root, got=f"category {name!r}", expected=f"one of {', '.join(known)}", fix="check --category")
    folder = root / name
    train = _images(folder / "train" / GOOD)
    defects = [path.name for path in _entries(folder / "test", "folders of test images")]
    test = [image for defect in defects for image in _test_images(folder, defect)]
    _refuse_masks_without_image(folder / "ground_truth", test)
    return Category(name, tuple(train), tuple(test))


def _test_images(folder: Path, defect: str) -> list[LabelledImage]:
    """List the test images of one defect, each with its mask.

    Raises:
        DataError: an image has no mask.

    """
    images = []
    for path in _images(folder / "test" / defect):
        mask = folder / "ground_truth" / defect / f"{path.stem}_mask.png"
        if defect != GOOD and not os.path.isfile(mask):  # noqa: PTH113 - see above
            raise DataError(path, got="no mask", expected=str(mask), fix=AGAIN)
        images.append(LabelledImage(path, defect, None if defect == GOOD else mask))
    return images


def _refuse_masks_without_image(ground_truth: Path, test: list[LabelledImage]) -> None:
    wanted = {image.mask for image in test}
    there = os.path.exists(ground_truth)  # noqa: PTH110 - see above
    for defect in _entries(ground_truth, "folders of masks") if there else []:
        for mask in _images(defect):
            if mask not in wanted:
                expected = f"test/{defect.name}/{mask.stem.removesuffix('_mask')}.png"
                raise DataError(mask, got="a mask without its image", expected=expected, fix=AGAIN)


def inspect_category(category: Category) -> None:
    """Check every file of a category, images by their checksums, so that nothing damaged passes.

    Raises:
        DataError: a file is no PNG, breaks off, is transparent or not square, or a mask has another size than its
            image, or no mark.

    """
    for path in category.train:
        inspect_image(path)
    for image in category.test:
        side = inspect_image(image.path)
        if image.mask is not None:
            inspect_mask(image.mask, side)


def split_validation(train: tuple[Path, ...], order: list[int]) -> tuple[list[Path], list[Path]]:
    """Divide training images into those trained on and those validated on: min(20, ⌊10 %⌋), at least one.

    Args:
        train: the training images.
        order: a random permutation of their indices; its head is taken for validation.

    Raises:
        DataError: no image is left to train on.

    """
    count = max(1, min(20, len(train) // 10))
    if count >= len(train):
        raise DataError(
            train[0].parent,
            got=f"{len(train)} training image(s)",
            expected="at least two, as one is kept for validation",
            fix="add training images",
        )
    validation = set(order[:count])
    return (
        [path for index, path in enumerate(train) if index not in validation],
        [path for index, path in enumerate(train) if index in validation],
    )
