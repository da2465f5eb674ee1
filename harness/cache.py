"""Decoded images kept on disk between runs: one file each, named by what it was made from.

The name digests the image file's content, the side it was brought to, and the version of the code that did so. A file
begins with a digest of its own name and pixels, so one that is damaged or was written by halves is not believed and
made anew. It is written aside and renamed: any number of processes may fill a folder, be stopped at any moment, and
the folder be deleted at any time.

Shapes: C = 3 channels, H x W pixels.
"""

import hashlib
import os
import tempfile
import uuid
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.images import DECODING
from profiles.errors import ConfigError

OFF = "off"
USER = "user"
SETTING = "data.cache"
DIGEST_BYTES = hashlib.sha256().digest_size

Pixels = NDArray[np.uint8]


class ImageCache:
    """A folder of decoded images.

    Raises:
        ConfigError: nothing can be written there, or what is there cannot be read.

    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise self._unusable(error) from error

    @staticmethod
    def key(content: bytes, side: int) -> str:
        """Name the image that an image file's *content* becomes at *side*."""
        return hashlib.sha256(f"{DECODING}, {side}, ".encode() + hashlib.sha256(content).digest()).hexdigest()

    def get(self, key: str, side: int) -> Pixels | None:
        """Return the image (C, H, W) of that name, or nothing if there is none or it is damaged."""
        try:
            entry = (self._folder / key).read_bytes()
        except (FileNotFoundError, PermissionError):
            return None  # not there, or another user's who does not share it: it is decoded and kept anew
        except OSError as error:
            raise self._unusable(error) from error
        digest, pixels = entry[:DIGEST_BYTES], memoryview(entry)[DIGEST_BYTES:]
        if digest != _digest(key, pixels):
            return None
        return np.frombuffer(pixels, dtype=np.uint8).reshape(-1, side, side)

    def put(self, key: str, image_chw: Pixels) -> None:
        """Keep an image under that name."""
        pixels = image_chw.tobytes()
        aside: Path | None = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / f"{uuid.uuid4().hex}.part").open("xb") as file:  # its mode as the user's umask has it
                aside = Path(file.name)
                file.write(_digest(key, pixels))
                file.write(pixels)
            aside.replace(self._folder / key)
        except FileNotFoundError:
            return  # someone deleted the folder just now, as they may: nothing is kept
        except OSError as error:
            if aside is not None:
                aside.unlink(missing_ok=True)
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> ConfigError:
        got = f"{self._folder}, which cannot be used ({error.strerror})"
        return ConfigError(SETTING, got=got, expected="a folder to read and write", fix=f"--set {SETTING}={OFF}")


def _digest(key: str, pixels: bytes | memoryview) -> bytes:
    digest = hashlib.sha256(key.encode())
    digest.update(pixels)
    return digest.digest()


def image_cache(setting: str) -> ImageCache | None:
    """Open the cache that a configuration names: `off`, `user` for the user's cache folder, or a folder.

    Raises:
        ConfigError: it cannot be used.

    """
    if setting == OFF:
        return None
    if setting == USER:
        home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
        return ImageCache(Path(home) / "inpainting-bench" / "images")
    return ImageCache(Path(setting))
