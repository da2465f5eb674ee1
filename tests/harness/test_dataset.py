import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from harness import dataset
from harness.dataset import inspect_category, list_categories, read_category, split_validation
from profiles.errors import DataError


@pytest.fixture
def root(generated: Path, tmp_path: Path) -> Path:
    """Return a data set that may be damaged."""
    return Path(shutil.copytree(generated, tmp_path / "mvtec"))


@pytest.fixture
def nobodys(generated: Path) -> Iterator[Path]:
    """Return a data set of one's own, and be a user to whom modes apply: the superuser reads everything."""
    folder, user = Path(tempfile.mkdtemp()), os.geteuid()
    folder.chmod(0o755)
    root = Path(shutil.copytree(generated, folder / "mvtec"))
    for path in (root, *root.rglob("*")):
        path.chmod(0o755)
    (root / "weave" / "train" / "good" / "003.png").chmod(0o000)
    (root / "chip").chmod(0o000)
    if user == 0:
        os.seteuid(65534)
    yield root
    os.seteuid(user)
    (root / "chip").chmod(0o755)
    shutil.rmtree(folder)


def first_defect(root: Path) -> str:
    return min(path.name for path in (root / "weave" / "ground_truth").iterdir())


def test_a_category_lists_its_files_by_name(root: Path) -> None:
    category = read_category(root, "weave")
    assert [path.name for path in category.train] == [f"{i:03d}.png" for i in range(6)]
    assert {image.defect for image in category.test} > {"good"}
    for image in category.test:
        assert (image.mask is None) == (image.defect == "good")
        if image.mask is not None:
            assert image.mask.name == f"{image.path.stem}_mask.png"
    inspect_category(category)


def test_other_files_beside_the_folders_are_no_matter(root: Path) -> None:
    (root / "license.txt").write_text("CC")
    (root / "weave" / "readme.txt").write_text("hello")
    (root / "weave" / "train" / "good" / ".DS_Store").write_text("junk")
    inspect_category(read_category(root, "weave"))
    assert list_categories(root) == ["chip", "weave"]


def remove_train(root: Path) -> None:
    shutil.rmtree(root / "weave" / "train" / "good")


def empty_train(root: Path) -> None:
    for path in (root / "weave" / "train" / "good").iterdir():
        path.unlink()


def remove_test(root: Path) -> None:
    shutil.rmtree(root / "weave" / "test")


def remove_masks(root: Path) -> None:
    shutil.rmtree(root / "weave" / "ground_truth")


def empty_defect(root: Path) -> None:
    (root / "weave" / "test" / "zebra").mkdir()


def remove_mask(root: Path) -> None:
    (root / "weave" / "ground_truth" / first_defect(root) / "000_mask.png").unlink()


def remove_image(root: Path) -> None:
    folder = root / "weave" / "test" / first_defect(root)
    shutil.copy(folder / "000.png", folder / "001.png")
    masks = root / "weave" / "ground_truth" / first_defect(root)
    shutil.copy(masks / "000_mask.png", masks / "001_mask.png")
    (folder / "000.png").unlink()


def add_text(root: Path) -> None:
    (root / "weave" / "train" / "good" / "notes.txt").write_text("hello")


def shrink_mask(root: Path) -> None:
    path = root / "weave" / "ground_truth" / first_defect(root) / "000_mask.png"
    with Image.open(path) as image:
        image.resize((32, 32)).save(path)


def truncate_training_image(root: Path) -> None:
    path = root / "weave" / "train" / "good" / "003.png"
    path.write_bytes(path.read_bytes()[:-30])


def crop_test_image(root: Path) -> None:
    path = root / "weave" / "test" / "good" / "000.png"
    with Image.open(path) as image:
        image.crop((0, 0, 64, 32)).save(path)


def crop_mask(root: Path) -> None:
    path = root / "weave" / "ground_truth" / first_defect(root) / "000_mask.png"
    with Image.open(path) as image:
        image.crop((0, 0, 64, 32)).save(path)


def wipe_mask(root: Path) -> None:
    path = root / "weave" / "ground_truth" / first_defect(root) / "000_mask.png"
    Image.new("L", (64, 64)).save(path)


def make_transparent(root: Path) -> None:
    path = root / "weave" / "test" / "good" / "001.png"
    with Image.open(path) as image:
        image.putalpha(100)
        image.save(path)


def leave_only_good_images(root: Path) -> None:
    for folder in (root / "weave" / "test").iterdir():
        if folder.name != "good":
            shutil.rmtree(folder)


DAMAGES: dict[Callable[[Path], None], str] = {
    remove_train: "train/good: got No such file or directory; expected a folder of PNG images; fix: download",
    empty_train: "train/good: got an empty folder; expected a folder of PNG images; fix: download",
    remove_test: "weave/test: got No such file or directory; expected folders of test images; fix: download",
    remove_masks: "000.png: got no mask; expected ",
    empty_defect: "test/zebra: got an empty folder; expected a folder of PNG images",
    remove_mask: "000.png: got no mask; expected ",
    remove_image: "000_mask.png: got a mask without its image; expected test/",
    add_text: "notes.txt: got something other than a PNG file; expected PNG files only; fix: remove it",
    shrink_mask: "000_mask.png: got 32 x 32 pixels; expected 64 x 64, as its image has",
    truncate_training_image: "003.png: got a damaged image",
    crop_mask: "000_mask.png: got 64 x 32 pixels; expected 64 x 64, as its image has",
    wipe_mask: "000_mask.png: got a mask without a mark; expected a defect marked; fix: replace the mask, or move",
    make_transparent: "001.png: got a transparent image; expected opaque pixels",
    leave_only_good_images: "000_mask.png: got a mask without its image; expected test/",
    crop_test_image: "000.png: got 64 x 32 pixels; expected a square image",
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_damaged_data_set_is_refused_by_the_name_of_the_file(
    root: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(root)
    with pytest.raises(DataError) as error:
        inspect_category(read_category(root, "weave"))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2


def test_a_folder_without_end_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "MOST_ENTRIES", 5)
    with pytest.raises(
        DataError, match=r"train/good: got more than 5 entries; expected a folder of PNG images, at most"
    ):
        read_category(root, "weave")


def test_a_name_that_leaves_no_room_for_its_masks_is_refused(root: Path) -> None:
    folder = root / "weave" / "test" / first_defect(root)
    (folder / "000.png").rename(folder / f"{'0' * 250}.png")
    with pytest.raises(DataError, match=r"0\.png: got no mask; expected "):
        read_category(root, "weave")


def test_a_path_too_deep_for_the_system_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got File name too long; expected a folder of categories"):
        list_categories(Path(tmp_path, *["deep"] * 1000))


def test_a_category_that_may_not_be_entered_is_none(nobodys: Path) -> None:
    assert list_categories(nobodys) == ["weave"]


def test_images_that_may_not_be_read_are_named(nobodys: Path) -> None:
    with pytest.raises(
        DataError, match=r"003\.png: got Permission denied; expected a PNG image; fix: replace the file"
    ):
        inspect_category(read_category(nobodys, "weave"))


def test_a_missing_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: got No such file or directory; expected a folder of categories"):
        list_categories(tmp_path / "nowhere")
    with pytest.raises(DataError, match="got an empty folder"):
        list_categories(tmp_path)
    (tmp_path / "readme").mkdir()
    with pytest.raises(DataError, match=r"got no category; expected <category>/train/good/\*\.png"):
        list_categories(tmp_path)


def test_an_unknown_category_is_refused_with_those_there_are(root: Path) -> None:
    with pytest.raises(DataError, match="got category 'bottle'; expected one of chip, weave; fix: check --category"):
        read_category(root, "bottle")


@pytest.mark.parametrize(("images", "validation"), [(2, 1), (9, 1), (10, 1), (25, 2), (209, 20), (391, 20)])
def test_the_split_takes_a_tenth_at_least_one_and_at_most_twenty(images: int, validation: int) -> None:
    paths = tuple(Path(f"{i:03d}.png") for i in range(images))
    trained, validated = split_validation(paths, list(reversed(range(images))))
    assert len(validated) == validation
    assert validated == list(paths[-validation:])
    assert trained + validated == list(paths)


def test_a_split_that_leaves_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(DataError, match=r"got 1 training image\(s\); expected at least two"):
        split_validation((Path("good/000.png"),), [0])


@pytest.mark.data
@pytest.mark.parametrize(("folder", "name", "train", "test"), [
    ("mvtec", "bottle", 64, 83), ("mvtec", "grid", 25, 14), ("mvtec-256", "bottle", 209, 83),
])  # fmt: skip
def test_real_categories_are_read(real_data: Path, folder: str, name: str, train: int, test: int) -> None:
    category = read_category(real_data / folder, name)
    assert (len(category.train), len(category.test)) == (train, test)
    inspect_category(category)
