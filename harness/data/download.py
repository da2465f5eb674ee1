"""Fetching MVTec AD: choose the archives, fetch each with its SHA-256 checked, extract aside, move into place.

<root>/.download/       what is under way; gone when all is done
    lock                one download at a time
    <archive>.part      what has come of it, with <archive>.part.json about where from
    <archive>           whole, and its SHA-256 right
    extracting/         the categories of the archive at work; begun anew when interrupted
<root>/<category>/      whole, or not there
"""

import fcntl
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, NamedTuple, NoReturn

import pooch

from harness.categories import mvtec_ad
from harness.data.archive import LIMITS, extract
from harness.data.sources import SUMS_BYTES, WHOLE, Archive, choose, mirrored_checksums, own_archive
from harness.data.transfer import Patience, Transfer
from harness.progress import Reporter
from profiles.errors import BenchError, ConfigError, DataError, DownloadError, InterruptedRunError

STAGING = ".download"
EXTRACTED_ROOM = 1.1
"""Room that the extracted files take, over that of their archive: PNG files are compressed already."""


class Wish(NamedTuple):
    """What to fetch: which categories (none: all), from where, known to be right by what."""

    root: Path
    categories: list[str]
    mirrors: list[str]
    sums: dict[str, str]
    keep_archives: bool


def download(wish: Wish, reporter: Reporter, patience: Patience) -> list[Path]:
    """Fetch the categories that are not there yet; return the folders of those that are new.

    Raises:
        DataError: the root cannot be used, or an archive is damaged or hostile.
        DownloadError: an archive cannot be had, or is not the right one.
        InterruptedRunError: someone asked to stop; what has come is kept.

    """
    wanted = _missing(wish, reporter)
    if not wanted:
        return []
    with _staging(wish.root) as staging, _stoppable():
        sums = _checksums(wish, wanted, staging, reporter, patience)
        archives = choose(wanted, whole=not wish.categories, sums=sums, mirrors=wish.mirrors)
        for archive in archives:
            _announce(archive, reporter, named=bool(wish.categories))
        for archive in archives:
            _place(_fetch(archive, staging, reporter, patience), archive, wish, staging, reporter)
    return [wish.root / name for name in wanted]


def check_wish(wish: Wish) -> None:
    """Check that there are such categories.

    Raises:
        ConfigError: there is one that is not MVTec AD's.

    """
    for name in wish.categories:
        if name not in mvtec_ad():
            expected = f"one of {', '.join(mvtec_ad())}"
            raise ConfigError("--category", got=repr(name), expected=expected, fix="choose one of these")


def _missing(wish: Wish, reporter: Reporter) -> list[str]:
    """Return the wished categories without a folder, in the order of the facts."""
    wished = [name for name in mvtec_ad() if name in wish.categories or not wish.categories]
    for name in wished:
        if os.path.lexists(wish.root / name):
            reporter.say(f"{wish.root / name} is there already, and stays as it is")
    return [name for name in wished if not os.path.lexists(wish.root / name)]


@contextmanager
def _staging(root: Path) -> Iterator[Path]:
    """Hold the folder of what is under way; it goes when all is done.

    Raises:
        DataError: the root cannot be written, or another download is at work in it.

    """
    staging = root / STAGING
    with _locked(root, staging / "lock"):
        shutil.rmtree(staging / "extracting", ignore_errors=True)
        for lost in staging.glob("tmp*"):  # pooch's, where the process was killed while it checked one
            lost.unlink()
        yield staging
        (staging / "lock").unlink()
        if not any(staging.iterdir()):
            staging.rmdir()


def _locked(root: Path, path: Path) -> IO[str]:
    """Open and lock a file; one that its last holder has removed since is opened anew, or two could hold a lock each.

    Raises:
        DataError: the root cannot be written, or another download is at work in it.

    """
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = path.open("w")
        except OSError as error:
            got = error.strerror or "a folder that cannot be written"
            raise DataError(root, got=got, expected="a folder to write", fix="name another") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            fix = "wait for it, or name another root"
            raise DataError(root, got="a download already at work", expected="none", fix=fix) from error
        if os.fstat(lock.fileno()).st_nlink:
            return lock
        lock.close()


@contextmanager
def _stoppable() -> Iterator[None]:
    """Stop at once on SIGINT and SIGTERM: whatever has come can be gone on with.

    Raises:
        InterruptedRunError: someone asked to stop.

    """

    def stop(_: int, __: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt as error:
        command = shlex.join(["bench", *sys.argv[1:]])
        message = f"interrupted; what has come is kept; to go on: {command}"
        raise InterruptedRunError(message) from error
    finally:
        signal.signal(signal.SIGTERM, previous)


def _checksums(wish: Wish, wanted: list[str], staging: Path, reporter: Reporter, patience: Patience) -> dict[str, str]:
    """Return the SHA-256 given; where they leave out a category asked for, also those of the first mirror to answer."""
    if not wish.categories or all(own_archive(name) in wish.sums for name in wanted):
        return wish.sums
    for number, mirror in enumerate(wish.mirrors):
        path = staging / f"SHA256SUMS-{number}"
        transfer = Transfer(path.with_name(path.name + ".part"), reporter, patience, limit_bytes=SUMS_BYTES)
        try:
            return {**mirrored_checksums(mirror, path, transfer), **wish.sums}
        except DownloadError as error:
            reporter.say(f"no checksums from {mirror}: {error}")
        finally:
            path.unlink(missing_ok=True)
            transfer.discard()
    return wish.sums


def _announce(archive: Archive, reporter: Reporter, *, named: bool) -> None:
    """Say what will be fetched, and why all of it where only some was asked for."""
    size = f", {archive.size_bytes / 1e9:.1f} GB" if archive.size_bytes else ""
    reporter.say(f"fetching {archive.name}{size}: {', '.join(archive.categories)}")
    if named and archive.name == WHOLE:
        reporter.say(
            "no SHA-256 is known of these categories' own archives, so they are taken from the whole one; "
            f"to fetch less: --sha256 {own_archive(archive.categories[0])}=HEX, or a mirror with a file SHA256SUMS"
        )


def _fetch(archive: Archive, staging: Path, reporter: Reporter, patience: Patience) -> Path:
    """Fetch an archive from the first address that has the right one.

    Raises:
        DownloadError: none has.

    """
    for url in archive.urls:
        try:
            return _fetch_from(url, archive, staging, reporter, patience)
        except DownloadError as error:
            if len(archive.urls) == 1:
                raise
            reporter.say(str(error))
    got = f"nothing usable from {', '.join(archive.urls)}"
    expected = f"the archive with SHA-256 {archive.sha256}"
    raise DownloadError(archive.name, got=got, expected=expected, fix="see above; --mirror names other places")


def _fetch_from(url: str, archive: Archive, staging: Path, reporter: Reporter, patience: Patience) -> Path:
    """Fetch an archive from one address; a wrong one that was pieced together is fetched once more as a whole.

    Raises:
        DownloadError: it cannot be had, or its SHA-256 is wrong.

    """
    pooch.get_logger().setLevel("ERROR")  # the reporter speaks
    transfer = Transfer(
        staging / f"{archive.name}.part",
        reporter,
        patience,
        limit_bytes=LIMITS.total_bytes,
        size_bytes=archive.size_bytes,
        room=EXTRACTED_ROOM,
    )
    known_hash = f"sha256:{archive.sha256}"
    for again in (True, False):
        try:
            path = Path(pooch.retrieve(url, known_hash, path=staging, fname=archive.name, downloader=transfer))
            transfer.discard()
            return path  # noqa: TRY300 - the loop's normal end
        except ValueError as error:  # pooch has deleted the file
            transfer.discard()
            if not (again and transfer.resumed):
                expected = f"SHA-256 {archive.sha256}"
                raise DownloadError(url, got="a file of another SHA-256", expected=expected, fix="--mirror") from error
            reporter.say(f"{archive.name}: its SHA-256 is wrong; as it came in pieces, it is fetched once more")
    raise AssertionError  # the loop returns or raises


def _place(path: Path, archive: Archive, wish: Wish, staging: Path, reporter: Reporter) -> None:
    """Extract an archive aside and move its categories into place, each in one step.

    Raises:
        DataError: it is damaged or hostile, or lacks a category.

    """
    aside = staging / "extracting"
    try:
        written = extract(path, aside, archive.categories, reporter)
        for name in archive.categories:
            if name not in written:
                raise DataError(path, got=f"no folder {name}", expected="one per category", fix="another mirror")
        os.sync()  # a folder in place has its contents on the disk
        for name in archive.categories:
            (aside / name).rename(wish.root / name)
            reporter.say(f"{wish.root / name}")
    except BenchError:
        path.unlink()  # an archive that was refused once would be refused again
        raise
    finally:
        reporter.end()
        shutil.rmtree(aside, ignore_errors=True)
    if not wish.keep_archives:
        path.unlink()
