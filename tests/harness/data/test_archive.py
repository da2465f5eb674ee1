import io
import lzma
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.archive import LIMITS, Limits, Names, extract
from harness.progress import Reporter
from profiles.errors import DataError

MEMBERS = {"bottle/train/good/000.png": b"image", "bottle/license.txt": b"CC", "cable/test/good/000.png": b"other"}
TOP = {"bottle", "cable"}


def tarred(members: dict[str, bytes], kind: str = "w:xz") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=kind) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about names that come twice
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def unpack(
    content: bytes, folder: Path, reporter: Reporter, limits: Limits = LIMITS, wanted: set[str] = TOP
) -> dict[str, bytes]:
    """Return what extraction wrote, by name."""
    archive = folder / "archive"
    archive.write_bytes(content)
    extract(archive, folder / "in" / "side", wanted, reporter, limits)
    return written(folder / "in" / "side")


def written(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("content", [tarred(MEMBERS), tarred(MEMBERS, "w:gz"), zipped(MEMBERS)])
def test_an_archive_is_extracted_whatever_its_format(content: bytes, tmp_path: Path, reporter: Reporter) -> None:
    assert unpack(content, tmp_path, reporter) == MEMBERS


def test_only_the_wanted_folders_are_written(tmp_path: Path, reporter: Reporter) -> None:
    content = tarred({**MEMBERS, "license.txt": b"CC"})
    assert unpack(content, tmp_path, reporter, wanted={"cable"}) == {"cable/test/good/000.png": b"other"}


def test_folders_marked_read_only_are_no_obstacle(tmp_path: Path, reporter: Reporter) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:xz") as tar:
        folder = tarfile.TarInfo("bottle")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o500
        tar.addfile(folder)
        info = tarfile.TarInfo("bottle/license.txt")
        info.mode = 0o4000
        tar.addfile(info)
    assert unpack(stream.getvalue(), tmp_path, reporter) == {"bottle/license.txt": b""}
    place = tmp_path / "in" / "side" / "bottle"
    assert place.stat().st_mode & 0o700 == 0o700
    assert (place / "license.txt").stat().st_mode & 0o7600 == 0o600


LONG = f"bottle/{'a' * 300}.png"
DEEP = "bottle/" + "a/" * 6 + "b"
OUT = "that leads out of the folder"
HOSTILE_NAMES: list[tuple[list[str], str]] = [
    (["/bottle/x"], OUT),
    (["../x"], OUT),
    (["bottle/../../x"], OUT),
    (["bottle/.."], OUT),
    (["bottle\\..\\x"], OUT),
    (["C:/x"], OUT),
    (["bottle/\x1b[31mx"], "whose name cannot be printed"),
    (["bottle/a\nb"], "whose name cannot be printed"),
    ([LONG], "with a name of more than 240 bytes"),
    ([DEEP], "or 6 levels"),
    (["bottle/x", "bottle/x"], "that collides with 'bottle/x'"),
    (["bottle/x", "bottle//./x"], "that collides with 'bottle/x'"),
    (["bottle/x", "bottle/X"], "that collides with 'bottle/x'"),
    (["bottle/é", "bottle/e\u0301"], "that collides with"),
    (["bottle/x", "Bottle/y"], "that collides with 'bottle'"),
    (["bottle/x", "bottle/x/y"], "that collides with 'bottle/x'"),
    (["bottle/x/y", "bottle/x"], "that collides with 'bottle/x'"),
]


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize(("names", "message"), HOSTILE_NAMES)
def test_a_hostile_name_refuses_the_archive(
    names: list[str], message: str, kind: str, tmp_path: Path, reporter: Reporter
) -> None:
    stream = io.BytesIO()
    if kind == "tar":
        with tarfile.open(fileobj=stream, mode="w:gz") as tar:
            for name in names:
                tar.addfile(tarfile.TarInfo(name))
    else:
        with zipfile.ZipFile(stream, "w") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about names that come twice
            for name in names:
                archive.writestr(name, b"")
    with pytest.raises(DataError) as error:
        unpack(stream.getvalue(), tmp_path, reporter)
    assert message in str(error.value)
    assert "expected an archive of folders and files only; fix: do not use this archive" in str(error.value)
    assert str(error.value).isprintable()
    assert set(written(tmp_path)) <= {"archive", "in/side/bottle/x", "in/side/bottle/é", "in/side/bottle/x/y"}


@pytest.mark.parametrize("kind", [
    tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE,
])  # fmt: skip
def test_links_devices_and_pipes_are_refused_also_where_they_are_not_wanted(
    kind: bytes, tmp_path: Path, reporter: Reporter
) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:xz") as tar:
        info = tarfile.TarInfo("elsewhere/x")
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(DataError, match=r"'elsewhere/x', which is a link, a device or a pipe"):
        unpack(stream.getvalue(), tmp_path, reporter)


def test_a_link_before_a_file_of_its_name_writes_nothing_elsewhere(tmp_path: Path, reporter: Reporter) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:xz") as tar:
        link = tarfile.TarInfo("bottle")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("bottle/planted"))
    with pytest.raises(DataError, match="which is a link"):
        unpack(stream.getvalue(), tmp_path, reporter)
    assert not (tmp_path / "planted").exists()


def test_a_link_in_a_zip_is_refused(tmp_path: Path, reporter: Reporter) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        info = zipfile.ZipInfo("bottle/x")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="which is a link, a device or a pipe"):
        unpack(stream.getvalue(), tmp_path, reporter)


def test_an_encrypted_zip_is_refused(tmp_path: Path, reporter: Reporter) -> None:
    content = bytearray(zipped({"bottle/x": b"secret"}))
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the directory
    with pytest.raises(DataError, match="which is encrypted"):
        unpack(bytes(content), tmp_path, reporter)


def test_a_zip_that_understates_a_size_is_refused(tmp_path: Path, reporter: Reporter) -> None:
    content = bytearray(zipped({"bottle/x": b"a" * 5000}))
    at = content.index(b"PK\x01\x02") + 24
    content[at : at + 4] = (50).to_bytes(4, "little")
    with pytest.raises(DataError, match="got a damaged archive"):
        unpack(bytes(content), tmp_path, reporter)


def test_a_nameless_file_in_a_zip_is_refused(tmp_path: Path, reporter: Reporter) -> None:
    content = bytearray(zipped({"x": b""}))
    at = content.index(b"PK\x01\x02")
    content[at + 28], content[at + 30] = 0, 1  # the name becomes an extra field
    with pytest.raises(DataError, match="got a member '' without a name"):
        unpack(bytes(content), tmp_path, reporter)


SMALL = Limits(files=3, total_bytes=10_000, file_bytes=6_000)
BOMBS = {
    "one large file": {"bottle/x": bytes(6_001)},
    "large together": {"bottle/x": bytes(6_000), "bottle/y": bytes(6_000)},
    "large where it is not wanted": {"elsewhere/x": bytes(6_001)},
    "many files": {f"bottle/{number}": b"" for number in range(4)},
}


@pytest.mark.parametrize("pack", [tarred, zipped])
@pytest.mark.parametrize("members", BOMBS.values(), ids=BOMBS)
def test_bombs_are_refused_before_they_are_written(
    members: dict[str, bytes], pack: Callable[[dict[str, bytes]], bytes], tmp_path: Path, reporter: Reporter
) -> None:
    with pytest.raises(DataError, match="got more than 3 members, or larger ones than MVTec AD has"):
        unpack(pack(members), tmp_path, reporter, SMALL)
    assert sum(map(len, written(tmp_path / "in").values())) <= SMALL.total_bytes


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK])
def test_a_header_that_would_fill_the_memory_is_refused_unread(kind: bytes, tmp_path: Path, reporter: Reporter) -> None:
    header = tarfile.TarInfo("bottle/x")
    header.type, header.size = kind, 2**33
    content = lzma.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    with pytest.raises(DataError, match="got a header of 8,589,934,592 bytes"):
        unpack(content, tmp_path, reporter)


def test_a_sparse_file_is_refused(tmp_path: Path, reporter: Reporter) -> None:
    header = tarfile.TarInfo("bottle/x")
    header.type = tarfile.GNUTYPE_SPARSE
    with pytest.raises(DataError, match="which is a link, a device or a pipe"):
        unpack(lzma.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(2048)), tmp_path, reporter)


def test_an_archive_that_breaks_off_is_damaged(tmp_path: Path, reporter: Reporter) -> None:
    for content in (tarred(MEMBERS), tarred(MEMBERS, "w:gz"), zipped(MEMBERS)):
        with pytest.raises(
            DataError, match=r"got a damaged archive \(.*; expected a whole archive; fix: fetch it again"
        ):
            unpack(content[:-30], tmp_path, reporter)


def test_much_that_follows_the_end_is_refused(tmp_path: Path, reporter: Reporter) -> None:
    with pytest.raises(DataError, match="got much that follows its end"):
        unpack(lzma.compress(tarred(MEMBERS, "w:") + bytes(2**21)), tmp_path, reporter)


def test_what_is_no_archive_is_refused(tmp_path: Path, reporter: Reporter) -> None:
    with pytest.raises(DataError, match=r"got a file that begins b'<html>'; expected tar.xz, tar.gz or zip"):
        unpack(b"<html>not found</html>", tmp_path, reporter)


PART = st.sampled_from(
    ["", ".", "..", "a", "A", "b", "é", "e\u0301", "\\", "C:", "\x00", "\udc80", "~", "x" * 300, "ß", "SS"]
)
NAME = st.one_of(st.lists(PART, min_size=1, max_size=9).map("/".join), st.text(max_size=20))


@given(st.lists(st.tuples(NAME, st.sampled_from(["file", "folder"])), max_size=8))
def test_admitted_names_lie_inside_and_never_meet(members: list[tuple[str, str]]) -> None:
    names, admitted = Names(Path("archive")), list[tuple[PurePosixPath, str]]()
    for name, kind in members:
        try:
            admitted.append((names.admit(name, kind), kind))  # type: ignore[arg-type]
        except DataError as error:
            assert str(error).isprintable()
    for path, _ in admitted:
        assert not path.is_absolute()
        assert ".." not in path.parts
        assert len(str(path).encode()) <= LIMITS.name_bytes
        assert len(path.parts) <= LIMITS.depth
    files = [str(path).casefold() for path, kind in admitted if kind == "file"]
    assert len(files) == len(set(files))
    for path, _ in admitted:
        assert not {str(parent).casefold() for parent in path.parents} & set(files)


@given(
    members=st.lists(st.tuples(NAME.filter(lambda name: "\x00" not in name), st.binary(max_size=3)), max_size=5),
    as_zip=st.booleans(),
)
def test_whatever_an_archive_holds_nothing_is_written_outside(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[str, bytes]], *, as_zip: bool
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    try:
        content = (zipped if as_zip else tarred)(dict(members))
    except (UnicodeError, ValueError, IndexError):
        return  # not even a writer takes such a name
    archive = folder / "archive"
    archive.write_bytes(content)
    tops = {part for name, _ in members for part in name.split("/")}
    try:
        extract(archive, folder / "inside", tops, Reporter())
    except DataError as error:
        assert "\n" not in str(error)
    assert {path.name for path in folder.iterdir()} <= {"archive", "inside"}


@given(st.data())
def test_a_damaged_archive_is_an_error_of_ours_or_no_matter(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(data.draw(st.sampled_from([tarred(MEMBERS), tarred(MEMBERS, "w:gz"), zipped(MEMBERS)])))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "archive").write_bytes(content)
    try:
        extract(folder / "archive", folder / "inside", TOP, Reporter())
    except DataError:
        return
    assert {path.name for path in folder.iterdir()} <= {"archive", "inside"}


@given(st.data())
def test_a_damaged_tar_inside_whole_wrapping_is_an_error_of_ours_or_no_matter(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(tarred(MEMBERS, "w:")[:4096])
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    for block in range(0, len(content), 1024):  # make the headers' own sums right, so that their contents are read
        header = content[block : block + 512]
        header[148:156] = b" " * 8
        content[block + 148 : block + 156] = b"%06o\x00 " % sum(header)
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "archive").write_bytes(lzma.compress(content))
    try:
        extract(folder / "archive", folder / "inside", TOP, Reporter())
    except DataError:
        return
    assert {path.name for path in folder.iterdir()} <= {"archive", "inside"}


def test_a_zip_whose_members_begin_before_it_is_refused(tmp_path: Path, reporter: Reporter) -> None:
    content = bytearray(zipped(MEMBERS))
    content[-5] = 1  # where the directory begins, from which all places are reckoned
    with pytest.raises(DataError, match="begins before the archive does"):
        unpack(bytes(content), tmp_path, reporter)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_headers_that_announce_each_other_without_end_are_damage(
    kind: bytes, tmp_path: Path, reporter: Reporter
) -> None:
    info = tarfile.TarInfo("long")
    info.type, info.size = kind, 12
    header = info.tobuf(tarfile.GNU_FORMAT) + b"12 path=abc\n".ljust(tarfile.BLOCKSIZE, b"\0")
    with pytest.raises(DataError, match=r"got a damaged archive \(RecursionError: "):
        unpack(lzma.compress(header * 5000), tmp_path, reporter)
