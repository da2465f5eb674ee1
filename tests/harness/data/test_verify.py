import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import bench
import harness.data.verify
from harness.categories import CategoryFacts, mvtec_ad
from harness.data.verify import CategoryReport, verify
from harness.progress import Reporter
from harness.synthesize import SyntheticConfig, synthesize
from profiles.errors import ConfigError, DataError

SIDE = 64
CONFIG = SyntheticConfig(side=SIDE, train=4, test_good=2, test_per_defect=2)


def facts(category: str, channels: int, defect_types: int) -> CategoryFacts:
    return CategoryFacts(category, "texture", 4, 2, 2 * defect_types, defect_types, SIDE, channels, SIDE)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return two small categories that are as their facts say, not to be changed."""
    root = tmp_path_factory.mktemp("published")
    for generated, name in (("weave", "carpet"), ("chip", "screw")):
        synthesize(root, generated, CONFIG, seed=0)
        (root / generated).rename(root / name)
        (root / name / "readme.txt").write_text("cite")
        (root / name / "license.txt").write_text("CC")
    for path in (root / "screw").glob("t*/*/*.png"):
        with Image.open(path) as image:
            image.convert("L").save(path)
    return root


@pytest.fixture
def root(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the same to be damaged, with facts to match."""
    table = {
        name: facts(name, channels, sum(1 for _ in (published / name / "ground_truth").iterdir()))
        for name, channels in (("carpet", 3), ("screw", 1))
    }
    monkeypatch.setattr(harness.data.verify, "mvtec_ad", lambda: table)
    return Path(shutil.copytree(published, tmp_path / "mvtec"))


def look(root: Path, reporter: Reporter, *categories: str) -> list[CategoryReport]:
    return verify(root, list(categories), reporter)


def test_what_is_as_published_has_nothing_off(root: Path, reporter: Reporter) -> None:
    for report in look(root, reporter):
        assert report.findings == ()
        assert report.got == report.expected
        assert min(report.got) > 0


def test_hidden_files_are_no_matter(root: Path, reporter: Reporter) -> None:
    (root / "carpet" / "train" / "good" / ".DS_Store").write_text("junk")
    assert look(root, reporter, "carpet")[0].findings == ()


def first(root: Path, pattern: str) -> Path:
    return min((root / "carpet").glob(pattern))


def image(root: Path) -> Path:
    return root / "carpet" / "train" / "good" / "001.png"


def mask(root: Path) -> Path:
    return first(root, "ground_truth/*/000_mask.png")


def resave(path: Path, change: Callable[[Image.Image], Image.Image]) -> None:
    with Image.open(path) as opened:
        changed = change(opened)
    changed.save(path)


def chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)


def png(side: int, pixels: bytes) -> bytes:
    head = side.to_bytes(4) * 2 + bytes([8, 2, 0, 0, 0])
    parts = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def remove_image(root: Path) -> None:
    image(root).unlink()


def remove_mask(root: Path) -> None:
    mask(root).unlink()


def remove_defect(root: Path) -> None:
    shutil.rmtree(mask(root).parent)
    shutil.rmtree(root / "carpet" / "test" / mask(root).parent.name)


def orphan_mask(root: Path) -> None:
    (root / "carpet" / "test" / mask(root).parent.name / "000.png").unlink()


def unmarked_mask(root: Path) -> None:
    resave(mask(root), lambda _: Image.new("L", (SIDE, SIDE)))


def coloured_mask(root: Path) -> None:
    resave(mask(root), lambda opened: opened.convert("RGB"))


def grey_image(root: Path) -> None:
    resave(image(root), lambda opened: opened.convert("L"))


def deep_image(root: Path) -> None:
    resave(image(root), lambda opened: Image.new("I;16", opened.size))


def small_image(root: Path) -> None:
    resave(image(root), lambda opened: opened.resize((32, 32)))


def oblong_image(root: Path) -> None:
    resave(image(root), lambda opened: opened.crop((0, 0, SIDE, 32)))


def cut_image(root: Path) -> None:
    image(root).write_bytes(image(root).read_bytes()[:-40])


def cut_header(root: Path) -> None:
    image(root).write_bytes(image(root).read_bytes()[:20])


def empty_image(root: Path) -> None:
    image(root).write_bytes(b"")


def flipped_bit(root: Path) -> None:
    content = bytearray(image(root).read_bytes())
    content[len(content) // 2] ^= 4
    image(root).write_bytes(content)


def text_image(root: Path) -> None:
    image(root).write_text("hello, this is no image but a text")


def short_pixels(root: Path) -> None:
    image(root).write_bytes(png(SIDE, bytes(SIDE * 20)))  # its sums are right, but rows are missing


def bomb(root: Path) -> None:
    image(root).write_bytes(png(60_000, b""))  # would unfold to 10.8 GB


def text_bomb(root: Path) -> None:
    content = image(root).read_bytes()
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**27)))
    image(root).write_bytes(content[:33] + bomb + content[33:])


def huge_file(root: Path) -> None:
    os.truncate(image(root), 2**33)  # sparse: takes no room


def link(root: Path) -> None:
    image(root).unlink()
    image(root).symlink_to("000.png")


def link_to_itself(root: Path) -> None:
    (root / "carpet" / "test" / "loop").symlink_to("loop")


def link_upwards(root: Path) -> None:
    (root / "carpet" / "test" / "loop").symlink_to("..")


def pipe(root: Path) -> None:
    image(root).unlink()
    os.mkfifo(image(root))


def foreign_file(root: Path) -> None:
    (root / "carpet" / "train" / "good" / "Thumbs.db").write_text("junk")


def foreign_folder(root: Path) -> None:
    (root / "carpet" / "train" / "bad").mkdir()


def deep_folders(root: Path) -> None:
    here = root / "carpet" / "train" / "good"
    descriptor = os.open(here, os.O_RDONLY)
    for _ in range(50):  # 5,000 characters: no path that the system takes as a whole
        os.mkdir("d" * 100, dir_fd=descriptor)
        below = os.open("d" * 100, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)


def strange_name(root: Path) -> None:
    (root / "carpet" / "train" / "good" / "\x1b[31m\udcff.png").write_text("hello")


def no_train(root: Path) -> None:
    shutil.rmtree(root / "carpet" / "train")


def file_for_folder(root: Path) -> None:
    shutil.rmtree(root / "carpet" / "ground_truth")
    (root / "carpet" / "ground_truth").write_text("hello")


def no_category(root: Path) -> None:
    shutil.rmtree(root / "carpet")


def category_that_loops(root: Path) -> None:
    shutil.rmtree(root / "carpet")
    (root / "carpet").symlink_to("carpet")


OFF: dict[Callable[[Path], None], tuple[str, str, str]] = {
    remove_image: ("carpet/train/good", "no 001.png", "numbers without a gap"),
    remove_mask: ("000_mask.png", "no file", "the mask of a defective image"),
    remove_defect: ("carpet/test", "kinds of defect", ""),
    orphan_mask: ("000_mask.png", "a mask", "nothing, as it has no image"),
    unmarked_mask: ("000_mask.png", "a mask without a mark", "a defect marked"),
    coloured_mask: ("000_mask.png", "64 x 64 pixels, 3 channels of 8 bits", "64 x 64 pixels, 1 channels of 8 bits"),
    grey_image: ("001.png", "64 x 64 pixels, 1 channels of 8 bits", "64 x 64 pixels, 3 channels of 8 bits"),
    deep_image: ("001.png", "64 x 64 pixels, 1 channels of 16 bits", "3 channels of 8 bits"),
    small_image: ("001.png", "32 x 32 pixels, 3 channels of 8 bits", "64 x 64 pixels"),
    oblong_image: ("001.png", "64 x 32 pixels", "64 x 64 pixels"),
    cut_image: ("001.png", "a damaged image", "a whole PNG image"),
    cut_header: ("001.png", "a file of 20 bytes", "a PNG image"),
    empty_image: ("001.png", "a file of 0 bytes", "a PNG image"),
    flipped_bit: ("001.png", "a damaged image", "a whole PNG image"),
    text_image: ("001.png", "a file that is no PNG image", "a PNG image"),
    short_pixels: ("001.png", "a damaged image", "a whole PNG image"),
    bomb: ("001.png", "60000 x 60000 pixels", "64 x 64 pixels"),
    text_bomb: ("001.png", "a damaged image", "a whole PNG image"),
    huge_file: ("001.png", "a file of 8,589,934,592 bytes", "at most 67,108,864"),
    link: ("001.png", "a symbolic link", "a file, a folder or nothing"),
    link_to_itself: ("carpet/test/loop", "a symbolic link", "a file, a folder or nothing"),
    link_upwards: ("carpet/test/loop", "a symbolic link", "a file, a folder or nothing"),
    pipe: ("001.png", "neither a file nor a folder", "a file, a folder or nothing"),
    foreign_file: ("carpet/train/good/Thumbs.db", "a file", "nothing"),
    foreign_folder: ("carpet/train/bad", "a folder", "nothing"),
    deep_folders: (f"carpet/train/good/{'d' * 100}", "a folder", "nothing"),
    strange_name: (r"carpet/train/good/\x1b[31m\udcff.png", "a file of 5 bytes", "a PNG image"),
    no_train: ("carpet/train", "No such file or directory", "a folder"),
    file_for_folder: ("carpet/ground_truth", "a file", "nothing"),
    no_category: ("carpet", "no folder", "the category"),
    category_that_loops: ("carpet", "no folder", "the category"),
}


@pytest.mark.parametrize(("damage", "finding"), OFF.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_off_is_named(
    damage: Callable[[Path], None], finding: tuple[str, str, str], root: Path, reporter: Reporter
) -> None:
    damage(root)
    carpet, screw = look(root, reporter)
    path, got, expected = finding
    hits = [
        each for each in carpet.findings if each.path.endswith(path) and got in each.got and expected in each.expected
    ]
    assert len(hits) == 1, carpet.findings
    assert all(each.path.isprintable() and each.got.isprintable() for each in carpet.findings)
    assert screw.findings == ()
    if damage is deep_folders:
        shutil.rmtree(root / "carpet" / "train" / "good" / ("d" * 100))


@pytest.fixture
def nobodys() -> Iterator[Path]:
    """Return a folder that a user without rights can enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("what", ["train/good/001.png", "train/good", "."])
def test_what_may_not_be_read_is_named(what: str, root: Path, reporter: Reporter, nobodys: Path) -> None:
    here = Path(shutil.copytree(root, nobodys / "mvtec"))
    here.chmod(0o755)
    closed = here / "carpet" / what
    closed.chmod(0o000)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        carpet, screw = look(here, reporter)
    finally:
        os.seteuid(user)
        closed.chmod(0o755)
    assert (str(Path("carpet") / what), "Permission denied") in {(each.path, each.got) for each in carpet.findings}
    assert screw.findings == ()


def test_a_root_that_may_not_be_read_is_wrong_use(
    root: Path, reporter: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(_: Path) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", denied)
    with pytest.raises(DataError, match="mvtec: got Permission denied; expected the folder of MVTec AD"):
        look(root, reporter)


def test_the_missing_numbers_are_listed_but_not_all(root: Path, reporter: Reporter) -> None:
    for path in (root / "carpet" / "train" / "good").iterdir():
        path.unlink()
    shutil.copy(root / "carpet" / "test" / "good" / "000.png", root / "carpet" / "train" / "good" / "99999999999.png")
    findings = {(finding.path, finding.got) for finding in look(root, reporter, "carpet")[0].findings}
    assert ("carpet/train/good", "1 images") in findings
    assert ("carpet/train/good", "no 000.png, 001.png, 002.png, 003.png") in findings


def test_a_folder_without_any_category_is_wrong_use(tmp_path: Path, reporter: Reporter) -> None:
    with pytest.raises(DataError, match="got no category of MVTec AD; expected bottle, cable"):
        look(tmp_path, reporter)
    with pytest.raises(DataError, match="got No such file or directory; expected the folder of MVTec AD"):
        look(tmp_path / "nowhere", reporter)
    with pytest.raises(ConfigError, match=r"--category: got 'weave'; expected one of carpet, .*; fix: choose one"):
        look(tmp_path, reporter, "weave")


def command(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(bench.app, ["data", "verify", *arguments])
    return result.exit_code, result.stdout


def test_the_command_shows_a_table_and_exits_0_or_4(root: Path) -> None:
    code, text = command(str(root))
    assert code == 0
    assert text.endswith("all as published\n")
    bomb(root)
    code, text = command(str(root))
    assert code == 4
    assert "carpet/train/good/001.png  60000 x 60000 pixels, 3 channels of 8 bits" in text
    assert text.endswith("1 things are off\n")
    assert command(str(root), "--category", "screw")[0] == 0


def test_the_command_can_speak_json(root: Path) -> None:
    assert json.loads(command(str(root), "--format", "json")[1])["as_published"] is True
    remove_mask(root)
    code, text = command(str(root), "--format", "json", "--category", "carpet")
    assert code == 4
    told = json.loads(text)
    assert told["as_published"] is False
    assert told["categories"]["carpet"]["got"]["masks"] == told["categories"]["carpet"]["expected"]["masks"] - 1
    assert {finding["got"] for finding in told["categories"]["carpet"]["findings"]} >= {"no file"}


def test_the_facts_hold_5354_images_and_1258_masks() -> None:
    counts = [harness.data.verify.published(each) for each in mvtec_ad().values()]
    assert sum(each.train_good + each.test_good + each.test_defective for each in counts) == 5354
    assert sum(each.masks for each in counts) == 1258


@pytest.mark.data
def test_real_images_differ_only_in_those_left_out(real_data: Path, reporter: Reporter) -> None:
    for report in look(real_data / "mvtec", reporter, "bottle", "grid"):
        assert report.findings
        assert all(finding.path.count("/") < 3 for finding in report.findings)  # folders, no file
    (bottle,) = look(real_data / "mvtec-256", reporter, "bottle")
    assert bottle.got == bottle.expected
    assert {finding.got for finding in bottle.findings} == {
        f"256 x 256 pixels, {channels} channels of 8 bits" for channels in (1, 3)
    }
