"""Image files and configurations, damaged in every way: each is used, or refused by one line that says why."""

import io
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from harness.cells import plan
from harness.commands import configuration
from harness.config import RunConfig, build, suite_names
from harness.dataset import inspect_category, read_category
from harness.decoding import Decoder
from harness.images import read_image, read_mask
from harness.interrupt import Interrupt
from harness.launch import _inspected
from harness.progress import Reporter
from harness.synthesize import SyntheticConfig, synthesize
from profiles.errors import BenchError, DataError
from tests.damage import ODD_VALUES, edited, edited_png, inputs
from tests.harness.conftest import tiny_table

pytestmark = pytest.mark.fuzz

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def pngs() -> list[bytes]:
    image = Image.fromarray(PIXELS)
    modes = [image.convert(mode) for mode in ("RGB", "L", "1", "P", "LA", "RGBA")]
    deep = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)
    animated = encoded(image, save_all=True, append_images=[image.rotate(90)])
    return [*map(encoded, [*modes, deep]), encoded(image.convert("P"), transparency=3), animated]


def others() -> list[bytes]:
    image = Image.fromarray(PIXELS)
    return [encoded(image, form) for form in ("JPEG", "BMP", "GIF", "TIFF", "WEBP")]


IMAGES = st.one_of(
    edited_png(pngs()), edited_png(pngs()), edited(pngs()), edited(others()), st.sampled_from(others()),
    st.binary(max_size=100),
)  # fmt: skip


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())
    synthesize(folder, "weave", SyntheticConfig(side=64, train=2, test_good=1, test_per_defect=1), seed=0)
    yield folder
    shutil.rmtree(folder)


@inputs(0.6)
@given(content=IMAGES, place=st.integers(0, 2))
def test_an_image_file_is_read_or_refused_in_a_line(root: Path, content: bytes, place: int) -> None:
    category = read_category(root, "weave")
    defective = next(image for image in category.test if image.mask is not None)
    assert defective.mask is not None
    path = (category.train[0], defective.path, defective.mask)[place]
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        refused = [
            refusal_of(lambda: inspect_category(read_category(root, "weave"))),
            refusal_of(lambda: read_image(path, 16)),
            refusal_of(lambda: read_mask(path, 16)),
            refusal_of(lambda: Decoder(None, Reporter(), Interrupt(), threads=1).decode([path], 16, telling=False)),
        ]
    finally:
        path.write_bytes(whole)
    assert all(text is None or ("\n" not in text and "; expected " in text) for text in refused)


def refusal_of(read: object) -> str | None:
    """Return what refuses to read, if anything does; any other error is a fault."""
    try:
        read()  # type: ignore[operator]
    except DataError as error:
        return str(error)
    return None


SUITES = [resources.files("harness.suites").joinpath(f"{name}.toml").read_bytes() for name in suite_names()]
KEYS = list(build(tiny_table(None), "tiny").flat())
VALUES = st.one_of(
    st.sampled_from(ODD_VALUES).map(str), st.text(max_size=12), st.integers().map(str), st.floats().map(str),
    st.sampled_from(("[1]", "[[[", '["a", "a"]', "{a = 1}", "1979-05-27", '"\\u0000"', "9" * 5000, "[" * 5000, "0x1f")),
)  # fmt: skip
SETTINGS = st.one_of(
    st.builds("{}={}".format, st.sampled_from(KEYS), VALUES),
    st.builds("{}={}".format, st.text("abc.\"'[]#\n", max_size=8), VALUES),
    st.text(max_size=20),
)


@inputs(0.16)
@given(content=st.one_of(edited(SUITES), st.binary(max_size=60)))
@example(content=b"suite = " + b"9" * 5000)
@example(content=b"suite = " + b"[" * 5000)
def test_a_configuration_file_is_used_or_refused_in_a_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    path.write_bytes(content)
    used_or_refused(path, [])


@inputs(0.16)
@given(settings=st.lists(SETTINGS, min_size=1, max_size=3))
@example(settings=["training.batch_size=" + "9" * 5000])
@example(settings=["training.batch_size=" + "[" * 5000])
@example(settings=['data.root="\\u0000"'])
@example(settings=["data.root=" + "a/" * 5000])
def test_settings_are_used_or_refused_in_a_line(settings: list[str]) -> None:
    used_or_refused(None, settings)


def used_or_refused(file: Path | None, settings: list[str]) -> None:
    """Build a configuration and what follows from it; whatever is wrong with it is an error of ours, in a line."""
    try:
        config = configuration(None, file, {}, settings)
        assert plan(config)
        assert again(config) == config
        _inspected(config, Interrupt())
    except BenchError as error:
        assert error.exit_code == 2
        assert "\n" not in str(error)
        assert "; fix: " in str(error)


def again(config: RunConfig) -> RunConfig:
    return build(tomllib.loads(config.to_toml()), "again")
