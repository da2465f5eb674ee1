"""Extracting an archive that nobody vouches for: regular files and folders inside one folder, and nothing else.

Nothing of Python's own extraction is used (its safe filter is missing before 3.11.4): every name is checked, then each
file is written by us under a path built by us, with our modes. So no member can name a place outside, be a link, a
device or a pipe, come twice, differ from another in upper and lower case alone, or outgrow the limits; and folders that
the archive marks read-only are no obstacle. One hostile member refuses the whole archive, also where its file is not
wanted.
"""

import gzip
import lzma
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Literal, NamedTuple, Self

from harness.progress import Reporter
from profiles.errors import DataError

CHUNK_BYTES = 2**20
MEGABYTE = 10**6
REFUSED = "an archive of folders and files only"
ELSEWHERE = "do not use this archive; fetch it elsewhere"


class Limits(NamedTuple):
    """What an archive may hold; MVTec AD holds 6,612 images and masks of together about 5 GB, three folders deep."""

    files: int = 20_000
    total_bytes: int = 16 * 2**30
    file_bytes: int = 64 * 2**20
    depth: int = 6
    name_bytes: int = 240
    header_bytes: int = 2**16


LIMITS = Limits()
PAX_TYPES = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
Kind = Literal["file", "folder"]


class _Member(NamedTuple):
    """A member as the archive tells it; *refusal* says what else it is than a file or a folder."""

    name: str
    kind: Kind
    size: int
    refusal: str | None
    opened: Callable[[], IO[bytes]]


class Names:
    """The names of an archive so far; each new one is admitted or refused."""

    def __init__(self, archive: Path, limits: Limits = LIMITS) -> None:
        self._archive = archive
        self._limits = limits
        self._seen: dict[str, tuple[str, Kind]] = {}

    def admit(self, name: str, kind: Kind) -> PurePosixPath:
        """Return *name* as a path inside the folder.

        Raises:
            DataError: it leads elsewhere, is too long or deep, or collides with an earlier one.

        """
        path = PurePosixPath(*(part for part in name.split("/") if part not in {"", "."}))
        why = self._why_not(name, path, kind)
        if why is None:
            taken = [self._collides(str(parent), "folder") for parent in [*path.parents][-2::-1]]
            why = next((each for each in [*taken, self._collides(str(path), kind)] if each), None)
        if why is None:
            return path
        raise refusal(self._archive, f"a member {name[:80]!r} {why}")

    def _why_not(self, name: str, path: PurePosixPath, kind: Kind) -> str | None:
        if name.startswith("/") or ".." in path.parts or "\\" in name or name[1:2] == ":":
            return "that leads out of the folder"
        if not name.isprintable():  # control characters, and bytes that are no UTF-8
            return "whose name cannot be printed"
        if len(name.encode()) > self._limits.name_bytes or len(path.parts) > self._limits.depth:
            return f"with a name of more than {self._limits.name_bytes} bytes or {self._limits.depth} levels"
        if kind == "file" and not path.parts:
            return "without a name"
        return None

    def _collides(self, path: str, kind: Kind) -> str | None:
        if path == ".":
            return None
        key = unicodedata.normalize("NFC", path).casefold()
        before = self._seen.get(key)
        self._seen[key] = (path, kind)
        if before is None or before == (path, kind) == (path, "folder"):
            return None
        return f"that collides with {before[0][:80]!r}"


def refusal(archive: Path, got: str) -> DataError:
    """Return the error that refuses an archive."""
    return DataError(archive, got=got, expected=REFUSED, fix=ELSEWHERE)


def extract(
    archive: Path, folder: Path, wanted: Collection[str], reporter: Reporter, limits: Limits = LIMITS
) -> set[str]:
    """Write those files of *archive* that lie in the *wanted* top folders to *folder*; return the top folders written.

    Raises:
        DataError: it is damaged, hostile, or larger than the limits.

    """
    names, written, files, total_bytes = Names(archive, limits), set[str](), 0, 0
    with archive.open("rb") as raw, _damage_of(archive):
        reporter.begin(f"extracting {archive.name}", archive.stat().st_size // MEGABYTE, "MB")
        read_mb = 0
        for member in _members(raw, archive, limits):
            if member.refusal:
                raise refusal(archive, f"a member {member.name[:80]!r}, {member.refusal}")
            path = names.admit(member.name, member.kind)
            files, total_bytes = files + 1, total_bytes + member.size
            if files > limits.files or total_bytes > limits.total_bytes or member.size > limits.file_bytes:
                raise refusal(archive, f"more than {limits.files:,} members, or larger ones than MVTec AD has")
            if member.kind == "file" and path.parts[0] in wanted and len(path.parts) > 1:
                _write(member, folder / path, archive)
                written.add(path.parts[0])
            reporter.advance(raw.tell() // MEGABYTE - read_mb)
            read_mb = raw.tell() // MEGABYTE
    reporter.end()
    return written


def _write(member: _Member, path: Path, archive: Path) -> None:
    """Write one file, which must be as long as the archive says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    left = member.size
    with closing(member.opened()) as source, path.open("xb") as file:
        while chunk := source.read(CHUNK_BYTES):
            left -= len(chunk)
            if left < 0:
                break
            file.write(chunk)
    if left:
        raise refusal(archive, f"a member {member.name[:80]!r} of another size than it says")


@contextmanager
def _damage_of(archive: Path) -> Iterator[None]:
    """Turn the ways in which Python's readers say "damaged" into an error of ours."""
    damaged = (
        tarfile.TarError,
        zipfile.BadZipFile,
        gzip.BadGzipFile,
        lzma.LZMAError,
        zlib.error,
        EOFError,
        NotImplementedError,  # a zip's method of compression, or its encryption
        UnicodeError,
        OverflowError,
        ValueError,
        RecursionError,  # long names of long names
    )
    try:
        yield
    except damaged as error:
        got = f"a damaged archive ({type(error).__name__}: {error})"
        raise DataError(archive, got=got, expected="a whole archive", fix="fetch it again") from error


def _members(raw: IO[bytes], archive: Path, limits: Limits) -> Iterator[_Member]:
    """Yield the members of an archive, recognised by its first bytes."""
    start = raw.read(6)
    raw.seek(0)
    if start == b"\xfd7zXZ\x00":
        with lzma.open(raw) as stream:
            yield from _tar_members(stream, archive, limits)
    elif start[:2] == b"\x1f\x8b":
        with gzip.open(raw) as stream:
            yield from _tar_members(stream, archive, limits)
    elif start[:4] == b"PK\x03\x04":
        yield from _zip_members(raw)
    else:
        fix = "name a mirror that holds the archive itself"
        raise DataError(archive, got=f"a file that begins {start!r}", expected="tar.xz, tar.gz or zip", fix=fix)


def _tar_members(stream: IO[bytes] | gzip.GzipFile, archive: Path, limits: Limits) -> Iterator[_Member]:
    """Yield the members in one pass: a compressed archive of 5 GB is not unpacked twice."""

    class Header(tarfile.TarInfo):
        """A header, refused before tarfile reads what it announces: long names and attributes go to memory whole."""

        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
            info = super().frombuf(buf, encoding, errors)
            if info.size < 0 or info.type not in (*tarfile.SUPPORTED_TYPES, *PAX_TYPES):
                raise refusal(archive, "a header of an unknown kind or size")
            if info.type not in tarfile.REGULAR_TYPES and info.size > limits.header_bytes:
                raise refusal(archive, f"a header of {info.size:,} bytes")
            return info

    with tarfile.open(fileobj=stream, mode="r|", tarinfo=Header) as tar:
        for info in tar:
            kind: Kind = "folder" if info.isdir() else "file"
            plain = info.isdir() or (info.isreg() and not info.issparse())
            refused = None if plain else "which is a link, a device or a pipe"
            yield _Member(info.name, kind, info.size if info.isreg() else 0, refused, partial(_opened, tar, info))
    if len(stream.read(CHUNK_BYTES + 1)) > CHUNK_BYTES:  # to the end, which holds the checksum of the compression
        raise refusal(archive, "much that follows its end")


def _opened(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(info)
    if file is None:
        message = f"{info.name} has no contents"
        raise tarfile.ReadError(message)
    return file


def _zip_members(raw: IO[bytes]) -> Iterator[_Member]:
    with zipfile.ZipFile(raw) as archive:
        for info in archive.infolist():
            mode = stat.S_IFMT(info.external_attr >> 16)
            refused = "which is a link, a device or a pipe" if mode not in {0, stat.S_IFREG, stat.S_IFDIR} else None
            if info.flag_bits & 1:
                refused = "which is encrypted"
            if info.header_offset < 0:  # what zipfile reckons where the directory is not where it should be
                refused = "which begins before the archive does"
            kind: Kind = "folder" if info.filename.endswith("/") else "file"  # is_dir stumbles over an empty name
            yield _Member(info.orig_filename, kind, info.file_size, refused, partial(archive.open, info))
