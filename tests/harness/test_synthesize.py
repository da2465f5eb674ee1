"""Generated data: the layout, the masks, and what an image may depend on."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from harness import synthesize as module
from harness.painting import SUBJECTS, picture
from harness.synthesize import GENERATED, SyntheticConfig, synthesize
from profiles.errors import DataError

SMALL = SyntheticConfig(side=64, train=3, test_good=2, test_per_defect=2)
MVTEC_TEXTURES = "carpet grid leather tile wood"
MVTEC_OBJECTS = "bottle cable capsule hazelnut metal_nut pill screw toothbrush transistor zipper"
DEFECTS = [(name, defect) for name, subject in SUBJECTS.items() for defect in subject.defects]
each_category = pytest.mark.parametrize("category", GENERATED)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}


def pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def painted(category: str, defect: str | None, number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return picture(category, defect, 128, np.random.default_rng(number))


@each_category
def test_the_layout_is_mvtec_ads(tmp_path: Path, category: str) -> None:
    synthesize(tmp_path, category, SMALL, seed=0)
    folders = Counter(Path(name).parent.as_posix() for name in contents(tmp_path))
    defects = SUBJECTS[category].defects
    expected = {f"{category}/train/good": 3, f"{category}/test/good": 2}
    expected |= {f"{category}/test/{defect}": 2 for defect in defects}
    expected |= {f"{category}/ground_truth/{defect}": 2 for defect in defects}
    assert folders == expected
    assert [path.name for path in tmp_path.iterdir()] == [category]


@each_category
def test_names_are_three_digits_and_a_masks_name_is_its_images(tmp_path: Path, category: str) -> None:
    synthesize(tmp_path, category, SMALL, seed=0)
    root = tmp_path / category
    images = {path.relative_to(root / "test").with_suffix("") for path in root.glob("test/*/*.png")}
    masks = {path.relative_to(root / "ground_truth") for path in root.glob("ground_truth/*/*.png")}
    assert masks == {path.with_name(f"{path.name}_mask.png") for path in images if path.parent.name != "good"}
    assert {path.name for path in (root / "train/good").iterdir()} == {"000.png", "001.png", "002.png"}


@each_category
def test_images_are_rgb_and_masks_grey_of_the_asked_side(tmp_path: Path, category: str) -> None:
    synthesize(tmp_path, category, SMALL, seed=0)
    for path in tmp_path.rglob("*.png"):
        is_mask = "ground_truth" in path.parts
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "L" if is_mask else "RGB", (64, 64))
        assert not is_mask or set(np.unique(pixels(path))) == {0, 255}


@each_category
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path, category: str) -> None:
    for folder, seed in (("first", 1), ("again", 1), ("other", 2)):
        synthesize(tmp_path / folder, category, SMALL, seed)
    first, again, other = (contents(tmp_path / folder) for folder in ("first", "again", "other"))
    assert first == again
    assert first.keys() == other.keys()
    assert not set(first.values()) & set(other.values())


def test_an_image_does_not_depend_on_how_many_others_there_are(tmp_path: Path) -> None:
    more = SyntheticConfig(side=64, train=5, test_good=4, test_per_defect=3)
    synthesize(tmp_path / "few", "weave", SMALL, seed=0)
    synthesize(tmp_path / "many", "weave", more, seed=0)
    assert contents(tmp_path / "few").items() < contents(tmp_path / "many").items()


@pytest.mark.parametrize(("category", "defect"), DEFECTS)
def test_a_mask_is_exactly_where_the_defect_altered_the_image(category: str, defect: str) -> None:
    for number in range(3):
        image, mask = painted(category, defect, number)
        good, nothing = painted(category, None, number)
        assert np.array_equal(mask == 255, (image != good).any(axis=-1))
        assert np.array_equal(mask == 0, mask != 255)
        assert not nothing.any()


@pytest.mark.parametrize(("category", "defect"), DEFECTS)
def test_a_defect_covers_a_visible_part_of_the_image_and_not_most_of_it(category: str, defect: str) -> None:
    shares = [(painted(category, defect, number)[1] > 0).mean() for number in range(10)]
    assert min(shares) > 0.02
    assert max(shares) < 0.25


def test_stored_masks_belong_to_the_stored_images(tmp_path: Path) -> None:
    synthesize(tmp_path, "chip", SMALL, seed=0)
    root = tmp_path / "chip"
    for order in module._orders("chip", SMALL):
        image, mask = picture("chip", order.defect, 64, module._generator(0, "chip", order))
        name = f"{order.number:03d}"
        assert np.array_equal(pixels(root / order.folder / f"{name}.png"), image)
        if order.defect is not None:
            assert np.array_equal(pixels(root / "ground_truth" / order.defect / f"{name}_mask.png"), mask)


@each_category
def test_every_category_has_at_least_three_defects(category: str) -> None:
    assert len(SUBJECTS[category].defects) >= 3


def test_there_are_two_textures_and_two_objects_and_none_is_mvtec_ads() -> None:
    assert Counter(GENERATED.values()) == {"texture": 2, "object": 2}
    assert not set(GENERATED) & set(f"{MVTEC_TEXTURES} {MVTEC_OBJECTS}".split())


@each_category
def test_good_images_differ_from_one_another_by_more_than_noise(category: str) -> None:
    images = [painted(category, None, number)[0].astype(float) for number in range(6)]
    noise = 255 * 0.01 * 2**0.5
    differences = [np.sqrt(np.square(one - other).mean()) for k, one in enumerate(images) for other in images[:k]]
    assert min(differences) > 3 * noise


def test_images_of_different_folders_differ(tmp_path: Path) -> None:
    synthesize(tmp_path, "corduroy", SMALL, seed=0)
    images = [data for name, data in contents(tmp_path).items() if "ground_truth" not in name]
    assert len(images) == len(set(images))


def test_an_existing_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "weave").mkdir()
    with pytest.raises(DataError) as caught:
        synthesize(tmp_path, "weave", SMALL, seed=0)
    assert str(caught.value) == (
        f"{tmp_path / 'weave'}: got an existing folder; expected none; fix: delete that folder, or choose another root"
    )
    assert not contents(tmp_path)


def test_an_unknown_category_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        synthesize(tmp_path / "new", "bottle", SMALL, seed=0)
    assert str(caught.value) == (
        "category to generate: got bottle; expected one of weave, corduroy, waffle, chip; fix: choose one of these"
    )
    assert not (tmp_path / "new").exists()


def test_an_interrupted_call_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = module._save

    def interrupt_at_the_third(path: Path, image: NDArray[np.uint8]) -> None:
        if path.name == "002.png":
            raise KeyboardInterrupt
        save(path, image)

    monkeypatch.setattr(module, "_save", interrupt_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        synthesize(tmp_path, "weave", SMALL, seed=0)
    assert not list(tmp_path.iterdir())


def test_a_finished_folder_is_as_readable_as_any_other(tmp_path: Path) -> None:
    synthesize(tmp_path, "weave", SMALL, seed=0)
    (tmp_path / "other").mkdir(mode=0o755)
    assert (tmp_path / "weave").stat().st_mode & 0o055 == 0o055


def test_a_root_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    config = SyntheticConfig(side=64, train=2, test_good=1, test_per_defect=1)
    with pytest.raises(DataError, match="got File exists; expected a folder to write; fix: name another"):
        synthesize(tmp_path / "file", "weave", config, seed=0)
