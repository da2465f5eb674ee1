"""One image file, read strictly: PNG, square, whole, and brought to three 8-bit channels or to a mask.

Before anything of it is decoded, its size and what its header tells are checked against limits, so that neither a file
of gigabytes nor a small one that would unfold to gigabytes is.

Shapes: C = 3 channels, H x W pixels.
"""

import os
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from profiles.errors import DataError
from profiles.timing.loader import part

REPLACE = "replace the file with its original, or download the category again"

# What Pillow doubts and would go on with counts as damaged. For the whole process: `catch_warnings` knows no threads.
warnings.filterwarnings("error", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("error", category=Image.DecompressionBombWarning, module=r"PIL\.")

LARGEST_BYTES = 64 * 2**20
LARGEST_SIDE = 8192
"""Pixels; MVTec AD's largest images have 1024. So many are below Pillow's own limit, at which it only warns."""

PNG_HEADER = struct.Struct(">8s4x4sIIBB")
PNG_START = (b"\x89PNG\r\n\x1a\n", b"IHDR")
CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
"""Of a PNG's colour type: grey, RGB, palette, grey and alpha, RGB and alpha."""

DECODING = f"1, Pillow {PIL.__version__}"
"""Which code makes pixels of a file: another number for every change of `read_image` by which they differ."""


class Header(NamedTuple):
    """What a PNG file's first bytes tell: pixels, channels, bits of each."""

    width: int
    height: int
    channels: int
    depth: int


def read_header(path: Path) -> Header:
    """Read what a PNG file says of itself.

    Raises:
        DataError: it cannot be read, is not a file or a larger one than any image, or is no PNG.

    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            start = file.read(PNG_HEADER.size) if stat.S_ISREG(status.st_mode) else b""
    except OSError as error:
        got = error.strerror or "an unreadable file"
        raise DataError(path, got=got, expected="a PNG image", fix=REPLACE) from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(path, got="something that is no file", expected="a PNG image", fix="remove it")
    if status.st_size > LARGEST_BYTES:
        got, expected = f"a file of {status.st_size:,} bytes", f"at most {LARGEST_BYTES:,}"
        raise DataError(path, got=got, expected=expected, fix=REPLACE)
    return _header(path, start)


def _header(path: Path, start: bytes) -> Header:
    """Take the first bytes of a PNG file apart."""
    if len(start) < PNG_HEADER.size:
        raise DataError(path, got=f"a file of {len(start)} bytes", expected="a PNG image", fix=REPLACE)
    *signature, width, height, depth, colour = PNG_HEADER.unpack(start)
    if tuple(signature) != PNG_START:
        raise DataError(path, got="a file that is no PNG image", expected="a PNG image", fix=REPLACE)
    return Header(width, height, CHANNELS.get(colour, 0), depth)


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe that nobody writes to is opened as well, instead of waited for."""
    return os.open(path, flags | os.O_NONBLOCK)


def read_content(path: Path) -> bytes:
    """Read a file as it is.

    Raises:
        DataError: it cannot be read.

    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(path, got=f"a damaged image ({error})", expected="a whole PNG image", fix=REPLACE)


@contextmanager
def _opened(path: Path, content: bytes | None = None) -> Iterator[Image.Image]:
    """Open a PNG file, or its *content* where that was read already.

    Raises:
        DataError: it cannot be read, is no PNG image, or breaks off.

    """
    try:
        with Image.open(path if content is None else BytesIO(content), formats=("PNG",)) as image:
            yield image
    except UnidentifiedImageError as error:
        raise DataError(path, got="a file that is no PNG image", expected="a PNG image", fix=REPLACE) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(path, got="an absurdly large image", expected="a camera's image", fix=REPLACE) from error
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        IndexError,
        AssertionError,
        UserWarning,
        struct.error,
    ) as error:  # Pillow's ways to say "damaged"
        raise _damaged(path, error) from error


def _refuse_absurd(path: Path) -> None:
    """Check that an image is one that a camera could have made.

    Raises:
        DataError: it is not so.

    """
    width, height, *_ = read_header(path)
    if not (0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE):
        got, expected = f"{width} x {height} pixels", f"sides from 1 to {LARGEST_SIDE}"
        raise DataError(path, got=got, expected=expected, fix=REPLACE)


def inspect_image(path: Path) -> int:
    """Return the side of a square PNG, having checked its checksums; only what may be transparent is decoded.

    Raises:
        DataError: it cannot be read, is no PNG, breaks off, is absurdly large, not square or transparent.

    """
    _refuse_absurd(path)
    with _opened(path) as image:
        width, height = image.size
        maybe_transparent = image.has_transparency_data
        image.verify()
    if maybe_transparent:
        with _opened(path) as image:
            _to_rgb(image, path)
    if width != height:
        raise DataError(
            path,
            got=f"{width} x {height} pixels",
            expected="a square image",
            fix="crop or pad it to a square",
        )
    return width


def stored_size(path: Path) -> tuple[int, int]:
    """Return the pixels of a PNG file, and its values, which are pixels times channels, as its header has them.

    Raises:
        DataError: it cannot be read, or is no PNG.

    """
    with _opened(path) as image:
        pixels = image.width * image.height
        return pixels, pixels * len(image.getbands())


def inspect_mask(path: Path, side: int) -> None:
    """Check a mask: whole, of its image's side, and with at least one mark.

    Raises:
        DataError: it is not so.

    """
    _refuse_absurd(path)
    with _opened(path) as image:
        width, height = image.size
        image.verify()
    if (width, height) != (side, side):
        expected = f"{side} x {side}, as its image has"
        raise DataError(path, got=f"{width} x {height} pixels", expected=expected, fix=REPLACE)
    if not read_mask(path, side).any():
        fix = "replace the mask, or move its image to test/good"
        raise DataError(path, got="a mask without a mark", expected="a defect marked", fix=fix)


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    """Bring any PNG mode to 8-bit RGB: grey repeated, palettes looked up, 16 bits cut to the upper 8.

    Raises:
        DataError: part of the image is transparent, so that its colours are not defined.

    """
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema() != (255, 255):
            raise DataError(
                path, got="a transparent image", expected="opaque pixels", fix="flatten it onto a background"
            )
        return rgba.convert("RGB")
    return image.convert("RGB")


def read_image(path: Path, side: int, content: bytes | None = None) -> Tensor:
    """Decode an image and resize it (antialiased bilinear) to *side*: (C, H, W), uint8.

    Args:
        path: the file.
        side: H = W.
        content: the file's, where it was read already.

    Raises:
        DataError: it cannot be read, is no PNG, breaks off or is transparent.

    """
    with _opened(path, content) as image:
        with part("decode"):
            rgb = _to_rgb(image, path)
        with part("resize"):
            rgb = rgb if rgb.size == (side, side) else rgb.resize((side, side), Image.Resampling.BILINEAR)
        with part("copy"):
            return torch.from_numpy(np.ascontiguousarray(np.asarray(rgb).transpose(2, 0, 1)))  # by this thread alone


def read_mask(path: Path, side: int) -> Tensor:
    """Decode a mask and resize it (nearest) to *side*: (H, W), bool; true where the file is not zero.

    Raises:
        DataError: it cannot be read, is no PNG or breaks off.

    """
    with _opened(path) as image:
        with part("decode"):
            plain = image.convert("RGB") if image.mode in {"P", "PA", "LA", "RGBA"} else image
            values = np.asarray(plain)
            anomalous = values.astype(bool) if values.ndim == 2 else values.any(axis=-1)  # noqa: PLR2004 - H x W
        with part("resize"):
            mask = Image.fromarray(anomalous.astype(np.uint8) * 255).resize((side, side), Image.Resampling.NEAREST)
        with part("copy"):
            return torch.from_numpy(np.array(mask) > 0)
