"""The cache never hands out what was not put in, whatever happens to its folder."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import cache
from harness.cache import ImageCache, image_cache
from profiles.errors import ConfigError

IMAGE = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
KEY = ImageCache.key(b"file", 8)


def filled(folder: Path) -> ImageCache:
    kept = ImageCache(folder)
    kept.put(KEY, IMAGE)
    return kept


def test_what_is_put_in_comes_out_in_this_process_and_the_next(tmp_path: Path) -> None:
    for kept in (filled(tmp_path / "cache"), ImageCache(tmp_path / "cache")):
        found = kept.get(KEY, 8)
        assert found is not None
        assert np.array_equal(found, IMAGE)


def test_what_was_never_put_in_is_not_there(tmp_path: Path) -> None:
    assert filled(tmp_path).get(ImageCache.key(b"another", 8), 8) is None


def test_content_side_and_decoding_make_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {KEY, ImageCache.key(b"file2", 8), ImageCache.key(b"file", 16), ImageCache.key(b"", 8)}
    monkeypatch.setattr(cache, "DECODING", "another")
    assert len({*keys, ImageCache.key(b"file", 8)}) == 5


@given(st.data())
def test_a_damaged_entry_is_not_believed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("cache")
    kept = filled(folder)
    entry = bytearray((folder / KEY).read_bytes())
    if data.draw(st.booleans(), "cut off"):
        entry = entry[: data.draw(st.integers(0, len(entry) - 1))]
    else:
        entry[data.draw(st.integers(0, len(entry) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (folder / KEY).write_bytes(entry)
    assert kept.get(KEY, 8) is None
    kept.put(KEY, IMAGE)
    assert np.array_equal(np.asarray(kept.get(KEY, 8)), IMAGE)


def test_an_entry_has_the_permissions_that_the_users_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        filled(tmp_path)
    finally:
        os.umask(before)
    assert (tmp_path / KEY).stat().st_mode & 0o777 == 0o640


def test_an_entry_that_another_user_keeps_to_himself_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = filled(tmp_path)
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    with monkeypatch.context() as patched:  # a superuser, as tests may run, is denied nothing
        patched.setattr(Path, "read_bytes", Mock(side_effect=denied))
        assert kept.get(KEY, 8) is None
    kept.put(KEY, IMAGE)
    assert kept.get(KEY, 8) is not None


def test_an_entry_under_another_name_is_not_believed(tmp_path: Path) -> None:
    kept, other = filled(tmp_path), ImageCache.key(b"another", 8)
    shutil.copy(tmp_path / KEY, tmp_path / other)
    assert kept.get(other, 8) is None


def test_the_folder_may_be_deleted_at_any_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cache"
    kept = filled(folder)
    shutil.rmtree(folder)
    assert kept.get(KEY, 8) is None
    kept.put(KEY, IMAGE)
    assert kept.get(KEY, 8) is not None
    replace = Path.replace

    def deleted_first(self: Path, target: Path) -> Path:
        shutil.rmtree(folder)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", deleted_first)
    kept.put(KEY, IMAGE)
    assert kept.get(KEY, 8) is None


FILL = """
import sys, numpy as np
from pathlib import Path
from harness.cache import ImageCache
kept = ImageCache(Path(sys.argv[1]))
print("ready", flush=True)
for number in range(10**9 if sys.argv[2] == "forever" else 300):
    image = np.full((3, 64, 64), number % 7, dtype=np.uint8)
    key = ImageCache.key(bytes([number % 7]), 64)
    found = kept.get(key, 64)
    assert found is None or np.array_equal(found, image)
    kept.put(key, image)
"""


def filling(folder: Path, how_long: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", FILL, str(folder), how_long]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_processes_that_fill_one_folder_at_once_see_only_whole_images(tmp_path: Path) -> None:
    processes = [filling(tmp_path, "a while") for _ in range(3)]
    for process in processes:
        _, complaints = process.communicate()
        assert process.returncode == 0, complaints
    assert len(list(tmp_path.iterdir())) == 7


def test_a_process_that_is_killed_leaves_only_whole_images(tmp_path: Path) -> None:
    for _ in range(5):
        with filling(tmp_path, "forever") as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.kill()
    kept = ImageCache(tmp_path)
    for number in range(7):
        key = ImageCache.key(bytes([number]), 64)
        found = kept.get(key, 64)
        assert found is None or (found == number).all()
        assert (found is None) == (not (tmp_path / key).exists())


def test_a_folder_that_cannot_be_used_is_refused_before_anything_is_decoded(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    with pytest.raises(ConfigError) as error:
        ImageCache(file)
    assert str(error.value) == (
        f"data.cache: got {file}, which cannot be used (File exists); expected a folder to read and write; "
        "fix: --set data.cache=off"
    )


def test_a_folder_without_permission_to_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(**_: object) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(cache.tempfile, "TemporaryFile", forbidden)
    with pytest.raises(ConfigError, match=r"cannot be used \(Permission denied\)"):
        ImageCache(tmp_path)


def test_a_disk_that_is_full_is_an_error_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = ImageCache(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ConfigError, match=r"cannot be used \(No space left on device\)"):
        kept.put(KEY, IMAGE)
    assert not list(tmp_path.iterdir())


def test_an_entry_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    kept = ImageCache(tmp_path)
    (tmp_path / KEY).mkdir()
    with pytest.raises(ConfigError, match="Is a directory"):
        kept.get(KEY, 8)


def test_the_setting_names_no_cache_the_users_or_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert image_cache("off") is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    image_cache("user")
    assert (tmp_path / "xdg/inpainting-bench/images").is_dir()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    image_cache("user")
    assert (tmp_path / "home/.cache/inpainting-bench/images").is_dir()
    image_cache(str(tmp_path / "mine"))
    assert (tmp_path / "mine").is_dir()
