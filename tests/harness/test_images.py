import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness.images import inspect_image, inspect_mask, read_image, read_mask
from profiles.errors import DataError

RGB = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
GREY = RGB[..., 0]


def saved(image: Image.Image, folder: Path) -> Path:
    path = folder / "image.png"
    image.save(path)
    return path


def as_array(path: Path, side: int = 20) -> np.ndarray:
    return read_image(path, side).permute(1, 2, 0).numpy()


def test_rgb_is_read_as_it_is(tmp_path: Path) -> None:
    assert np.array_equal(as_array(saved(Image.fromarray(RGB), tmp_path)), RGB)


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    assert np.array_equal(as_array(saved(Image.fromarray(GREY), tmp_path)), np.repeat(GREY[..., None], 3, axis=-1))


def test_sixteen_bits_keep_their_upper_eight(tmp_path: Path) -> None:
    deep = GREY.astype(np.uint16) * 256 + 77
    image = saved(Image.fromarray(deep), tmp_path)
    with Image.open(image) as stored:
        assert stored.mode == "I;16"
    assert np.array_equal(as_array(image)[..., 0], GREY)


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    palette = Image.fromarray(RGB).quantize(16)
    assert np.array_equal(as_array(saved(palette, tmp_path)), np.asarray(palette.convert("RGB")))


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    assert set(np.unique(as_array(saved(Image.fromarray(GREY > 100), tmp_path)))) == {0, 255}


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_an_opaque_alpha_channel_is_dropped(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(RGB).convert(mode)
    assert np.array_equal(as_array(saved(image, tmp_path)), np.asarray(image.convert("RGB")))


def test_a_transparent_image_is_refused(tmp_path: Path) -> None:
    image = Image.fromarray(RGB).convert("RGBA")
    image.putpixel((3, 3), (1, 2, 3, 200))
    path = saved(image, tmp_path)
    with pytest.raises(DataError) as error:
        read_image(path, 20)
    assert str(error.value) == (
        f"{path}: got a transparent image; expected opaque pixels; fix: flatten it onto a background"
    )


def test_resizing_is_antialiased(tmp_path: Path) -> None:
    checkers = np.indices((64, 64)).sum(axis=0) % 2 * 255
    path = saved(Image.fromarray(checkers.astype(np.uint8)), tmp_path)
    assert np.abs(as_array(path, 16).astype(int) - 127.5).max() < 2  # subsampling would give 0 or 255


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_a_mask_is_true_where_the_file_is_not_zero(tmp_path: Path, mode: str) -> None:
    truth = np.zeros((20, 20), dtype=np.uint8)
    truth[4:9, 7:12] = 255
    mask = read_mask(saved(Image.fromarray(truth).convert(mode), tmp_path), 20)
    # an alpha channel is opaque everywhere and no mark of a defect
    assert torch.equal(mask, torch.from_numpy(truth > 0))


def test_faint_marks_in_a_mask_count(tmp_path: Path) -> None:
    truth = np.zeros((20, 20), dtype=np.uint8)
    truth[0, 0] = 1
    assert read_mask(saved(Image.fromarray(truth), tmp_path), 20).sum() == 1


def test_a_resized_mask_stays_a_mask(tmp_path: Path) -> None:
    truth = np.zeros((40, 40), dtype=np.uint8)
    truth[:20] = 255
    mask = read_mask(saved(Image.fromarray(truth), tmp_path), 20)
    assert mask.dtype == torch.bool
    assert mask[:10].all()
    assert not mask[10:].any()


@pytest.mark.parametrize("keep", [20, 100, 400, -13])
def test_a_truncated_image_is_found_without_decoding_it(tmp_path: Path, keep: int) -> None:
    path = saved(Image.fromarray(RGB), tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"image\.png: got a .*; expected a .*PNG image; fix: replace the file"):
        inspect_image(path)


def test_a_flipped_bit_is_found_without_decoding_it(tmp_path: Path) -> None:
    path = saved(Image.fromarray(RGB), tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(DataError, match="got a damaged image"):
        inspect_image(path)


def test_what_is_no_png_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_text("hello, this is a text and no image")
    with pytest.raises(DataError, match="got a file that is no PNG image; expected a PNG image"):
        inspect_image(path)
    Image.fromarray(RGB).save(path, format="BMP")
    with pytest.raises(DataError, match="got a file that is no PNG image; expected a PNG image"):
        read_image(path, 20)


def test_a_missing_image_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_image(tmp_path / "none.png", 20)


def test_an_image_must_be_square(tmp_path: Path) -> None:
    path = saved(Image.fromarray(RGB[:10]), tmp_path)
    with pytest.raises(DataError, match="got 20 x 10 pixels; expected a square image; fix: crop or pad it to a square"):
        inspect_image(path)


def test_an_absurdly_large_image_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = saved(Image.fromarray(RGB), tmp_path)
    with pytest.raises(DataError, match="absurdly large"):
        inspect_image(path)


def with_sides(path: Path, width: int, height: int) -> None:
    """Let a PNG's header tell other sides, its checksum right."""
    content = path.read_bytes()
    head = b"IHDR" + width.to_bytes(4) + height.to_bytes(4) + content[24:29]
    path.write_bytes(content[:12] + head + zlib.crc32(head).to_bytes(4) + content[33:])


@pytest.mark.parametrize(("width", "height"), [(8193, 8193), (2**31 - 1, 1), (1, 2**31 - 1), (60_000, 60_000)])
def test_absurd_sides_are_refused_before_anything_is_unfolded(tmp_path: Path, width: int, height: int) -> None:
    path = saved(Image.fromarray(RGB), tmp_path)
    with_sides(path, width, height)
    with pytest.raises(DataError) as error:
        inspect_image(path)
    assert f"image.png: got {width} x {height} pixels; expected sides from 1 to 8192; fix: replace" in str(error.value)
    with pytest.raises(DataError, match="expected sides from 1 to 8192"):
        inspect_mask(path, 20)


def test_a_file_larger_than_any_image_is_refused_unread(tmp_path: Path) -> None:
    path = saved(Image.fromarray(RGB), tmp_path)
    os.truncate(path, 2**40)  # sparse: takes no room
    with pytest.raises(DataError, match="got a file of 1,099,511,627,776 bytes; expected at most 67,108,864; fix"):
        inspect_image(path)


def test_what_a_text_unfolds_to_is_bounded(tmp_path: Path) -> None:
    path = saved(Image.fromarray(RGB), tmp_path)
    bomb = b"zTXt" + b"Comment\0\0" + zlib.compress(bytes(2**28))
    content = path.read_bytes()
    bomb = (len(bomb) - 4).to_bytes(4) + bomb + zlib.crc32(bomb).to_bytes(4)
    path.write_bytes(content[:33] + bomb + content[33:])
    with pytest.raises(DataError, match="got a damaged image"):
        read_image(path, 20)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "image.png")
    with pytest.raises(DataError, match="got something that is no file; expected a PNG image; fix: remove it"):
        inspect_image(tmp_path / "image.png")


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"got Is a directory; expected a PNG image"):
        inspect_image(tmp_path)


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


HEAD = (20).to_bytes(4) * 2
PIXELS = chunk(b"IDAT", zlib.compress(bytes(21 * 20)))


@pytest.mark.parametrize("chunks", [
    chunk(b"IHDR", HEAD + bytes([8, 2, 0, 0, 0])),
    chunk(b"IHDR", HEAD + bytes([8, 3, 0, 0, 0])) + PIXELS,
    chunk(b"IHDR", HEAD + bytes([8, 0, 0, 0, 0])) + chunk(b"acTL", bytes(8)) + PIXELS,
], ids=["no pixels", "a palette that is not there", "no number of frames"])  # fmt: skip
def test_what_pillow_stumbles_over_is_damaged(tmp_path: Path, chunks: bytes) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IEND", b""))
    with pytest.raises(DataError, match=r"image\.png: got a damaged image \(.*\); expected a whole PNG image; fix: "):
        inspect_image(path)
