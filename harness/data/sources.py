"""Where the archives of MVTec AD are, and the SHA-256 that each must have.

`archives.csv` holds what could be established: the whole archive's address, size and SHA-256, and the address of each
category's own archive. No SHA-256 of those is published, so one has to come from the user, or from a mirror's
`SHA256SUMS` in the format of `sha256sum`; without one a category is taken from the whole archive.
"""

import csv
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from harness.data.transfer import Transfer
from profiles.errors import ConfigError, DataError, DownloadError

WHOLE = "mvtec_anomaly_detection.tar.xz"
SUMS = "SHA256SUMS"
SUMS_BYTES = 2**20
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Archive(NamedTuple):
    """An archive to fetch: where from, in the order to try, and what its bytes must hash to."""

    name: str
    urls: tuple[str, ...]
    sha256: str
    size_bytes: int | None
    categories: tuple[str, ...]


class _Known(NamedTuple):
    """One row of `archives.csv`."""

    category: str
    url: str
    size_bytes: int | None
    sha256: str | None


@cache
def known() -> dict[str, _Known]:
    """Return what is known of each official archive, by its name."""
    text = resources.files("harness.data").joinpath("archives.csv").read_text(encoding="utf-8")
    return {
        row["archive"]: _Known(
            row["category"],
            row["url"],
            int(row["size_bytes"]) if row["size_bytes"] else None,
            row["sha256"] or None,
        )
        for row in csv.DictReader(text.splitlines())
    }


def own_archive(category: str) -> str:
    """Return the name of the archive that holds *category* alone."""
    return f"{category}.tar.xz"


def check_mirrors(mirrors: list[str]) -> list[str]:
    """Return the base addresses without their last slash.

    Raises:
        ConfigError: one is no http or https address.

    """
    for mirror in mirrors:
        if not re.fullmatch(r"https?://[^\s/]\S*", mirror):
            expected = "an address that begins with http:// or https://"
            raise ConfigError("--mirror", got=repr(mirror), expected=expected, fix="name the folder of the archives")
    return [mirror.rstrip("/") for mirror in mirrors]


def given_checksums(assignments: list[str]) -> dict[str, str]:
    """Read `ARCHIVE=HEX` of the command line: name of the archive -> SHA-256.

    Raises:
        ConfigError: it is written otherwise, or there is no such archive.

    """
    sums = {}
    for assignment in assignments:
        name, _, digest = assignment.partition("=")
        if name not in known():
            expected = f"ARCHIVE=HEX, the archive {WHOLE} or one like {own_archive('bottle')}"
            raise ConfigError("--sha256", got=repr(assignment), expected=expected, fix="check its name")
        if not _DIGEST.fullmatch(digest.lower()):
            raise ConfigError("--sha256", got=repr(digest), expected="64 hexadecimal digits", fix="copy it whole")
        sums[name] = digest.lower()
    return sums


def mirrored_checksums(mirror: str, path: Path, transfer: Transfer) -> dict[str, str]:
    """Fetch a mirror's `SHA256SUMS`, by way of *path*: name of the archive -> SHA-256.

    Raises:
        DownloadError: there is none, or it cannot be had.
        DataError: it is written otherwise.

    """
    url = f"{mirror}/{SUMS}"
    transfer(url, str(path))
    sums = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        digest, _, name = line.partition(" ")
        if not _DIGEST.fullmatch(digest.lower()):
            expected = "lines of sha256sum: 64 hexadecimal digits, two spaces, a name"
            where = f"{url}, line {number}"
            raise DataError(where, got=repr(line[:80]), expected=expected, fix="mend the mirror")
        sums[name.lstrip(" *").removeprefix("./")] = digest.lower()
    return sums


def choose(categories: list[str], *, whole: bool, sums: dict[str, str], mirrors: list[str]) -> list[Archive]:
    """Choose the archives to fetch for *categories*: the whole one, or of each category its own where *sums* has it."""
    own = [] if whole else [name for name in categories if own_archive(name) in sums]
    rest = [name for name in categories if name not in own]
    archives = [_archive(own_archive(name), (name,), sums, mirrors) for name in own]
    return archives + ([_archive(WHOLE, tuple(rest), sums, mirrors)] if rest else [])


def _archive(name: str, categories: tuple[str, ...], sums: dict[str, str], mirrors: list[str]) -> Archive:
    official = known()[name]
    sha256 = sums.get(name, official.sha256)
    if sha256 is None:
        raise DownloadError(name, got="no SHA-256", expected="one to check it by", fix="--sha256 ARCHIVE=HEX")
    urls = tuple(f"{mirror}/{name}" for mirror in mirrors) or (official.url,)
    return Archive(name, urls, sha256, official.size_bytes if sha256 == official.sha256 else None, categories)
