import fcntl
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from harness.categories import mvtec_ad
from harness.data.download import STAGING, Wish, _staging, download
from harness.data.sources import WHOLE, check_mirrors, choose, given_checksums, known
from harness.data.transfer import CHUNK_BYTES, Patience
from harness.progress import Reporter
from harness.synthesize import SyntheticConfig, synthesize
from profiles.errors import ConfigError, DataError, DownloadError, InterruptedRunError
from tests.harness.data.conftest import packed, sha256
from tests.harness.data.server import Server, Whim


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of all 15 categories, two of them with images."""
    root = tmp_path_factory.mktemp("drawn")
    synthesize(root, "weave", SyntheticConfig(side=64, train=4, test_good=1, test_per_defect=1), seed=0)
    (root / "weave").rename(root / "carpet")
    for name in mvtec_ad():
        (root / name).mkdir(exist_ok=True)
        (root / name / "license.txt").write_text(f"CC of {name}")
    return root


@pytest.fixture(scope="module")
def whole(drawn: Path) -> bytes:
    return packed(drawn, list(mvtec_ad()))


@pytest.fixture(scope="module")
def carpet(drawn: Path) -> bytes:
    return packed(drawn, ["carpet"])


def wish(root: Path, server: Server, *categories: str, **sums: bytes) -> Wish:
    given = {f"{name}.tar.xz": sha256(content) for name, content in sums.items()}
    return Wish(root / "mvtec", list(categories), [server.url], given, keep_archives=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_all_of_it_arrives_and_nothing_else_stays(
    drawn: Path, whole: bytes, server: Server, tmp_path: Path, reporter: Reporter, patience: Patience
) -> None:
    server.files[f"/{WHOLE}"] = whole
    folders = download(wish(tmp_path, server, mvtec_anomaly_detection=whole), reporter, patience)
    assert [folder.name for folder in folders] == list(mvtec_ad())
    assert contents(tmp_path / "mvtec") == contents(drawn)
    assert not (tmp_path / "mvtec" / STAGING).exists()


def test_a_category_comes_from_its_own_archive_where_its_checksum_is_known(
    drawn: Path, carpet: bytes, server: Server, tmp_path: Path, reporter: Reporter, patience: Patience
) -> None:
    server.files["/carpet.tar.xz"] = carpet
    download(wish(tmp_path, server, "carpet", carpet=carpet), reporter, patience)
    assert contents(tmp_path / "mvtec" / "carpet") == contents(drawn / "carpet")
    assert [request.path for request in server.requests] == ["/carpet.tar.xz"]


def test_a_mirror_may_tell_the_checksums(
    carpet: bytes, server: Server, tmp_path: Path, reporter: Reporter, patience: Patience
) -> None:
    server.files["/carpet.tar.xz"] = carpet
    server.files["/SHA256SUMS"] = f"{sha256(carpet).upper()} *./carpet.tar.xz\n".encode()
    download(wish(tmp_path, server, "carpet"), reporter, patience)
    assert (tmp_path / "mvtec" / "carpet" / "train" / "good" / "000.png").exists()
    assert not (tmp_path / "mvtec" / STAGING).exists()


def test_a_mirrors_checksums_must_be_such(
    server: Server, tmp_path: Path, reporter: Reporter, patience: Patience
) -> None:
    server.files["/SHA256SUMS"] = b"<html>"
    with pytest.raises(DataError, match=r"/SHA256SUMS, line 1: got '<html>'; expected lines of sha256sum"):
        download(wish(tmp_path, server, "carpet"), reporter, patience)


def test_without_a_checksum_a_category_comes_from_the_whole_archive_and_it_is_said(
    whole: bytes, server: Server, tmp_path: Path, reporter: Reporter, patience: Patience, said: io.StringIO
) -> None:
    server.files[f"/{WHOLE}"] = whole
    download(wish(tmp_path, server, "carpet", mvtec_anomaly_detection=whole), reporter, patience)
    assert [path.name for path in (tmp_path / "mvtec").iterdir()] == ["carpet"]
    assert f"no checksums from {server.url}: {server.url}/SHA256SUMS: got 404" in said.getvalue()
    assert "no SHA-256 is known of these categories' own archives, so they are taken from the whole" in said.getvalue()


def test_the_whole_archives_checksum_is_shipped_and_another_file_is_refused(
    whole: bytes, server: Server, tmp_path: Path, reporter: Reporter, patience: Patience
) -> None:
    server.files[f"/{WHOLE}"] = whole
    with pytest.raises(DownloadError, match=rf"got {len(whole):,} bytes; expected 5,264,982,680 bytes"):
        download(wish(tmp_path, server), reporter, patience)


def test_a_wrong_checksum_is_refused_and_nothing_of_it_stays(
    carpet: bytes, server: Server, tmp_path: Path, reporter: Reporter, patience: Patience
) -> None:
    server.files["/carpet.tar.xz"] = carpet[:-1] + b"x"
    with pytest.raises(
        DownloadError, match=rf"got a file of another SHA-256; expected SHA-256 {sha256(carpet)}"
    ) as error:
        download(wish(tmp_path, server, "carpet", carpet=carpet), reporter, patience)
    assert error.value.exit_code == 1
    assert len(server.requests) == 1
    assert set(contents(tmp_path / "mvtec")) == {f"{STAGING}/lock"}


def test_a_wrong_file_pieced_together_is_fetched_once_more(
    carpet: bytes, server: Server, tmp_path: Path, reporter: Reporter, patience: Patience
) -> None:
    server.files["/carpet.tar.xz"], server.etag = carpet, None
    staging = tmp_path / "mvtec" / STAGING
    staging.mkdir(parents=True)
    (staging / "carpet.tar.xz.part").write_bytes(b"of an older archive")
    download(wish(tmp_path, server, "carpet", carpet=carpet), reporter, patience)
    assert [request.range for request in server.requests] == ["bytes=19-", None]
    assert (tmp_path / "mvtec" / "carpet").exists()


def test_the_next_mirror_goes_on_where_one_broke_off(
    carpet: bytes, server: Server, tmp_path: Path, reporter: Reporter, patience: Patience, said: io.StringIO
) -> None:
    server.files["/carpet.tar.xz"], server.always = carpet, Whim(cut_at=CHUNK_BYTES)
    assert len(carpet) > 2 * CHUNK_BYTES
    with Server() as other:
        other.files["/carpet.tar.xz"], other.etag = carpet, '"another"'
        asked = wish(tmp_path, server, "carpet", carpet=carpet)._replace(mirrors=[server.url, other.url])
        download(asked, reporter, patience)
        assert [(request.range, request.if_range) for request in other.requests] == [(f"bytes={CHUNK_BYTES}-", None)]
    assert f"{server.url}/carpet.tar.xz: got " in said.getvalue()
    assert (tmp_path / "mvtec" / "carpet").exists()


def test_when_no_mirror_has_it_all_are_named(
    carpet: bytes, server: Server, tmp_path: Path, reporter: Reporter, patience: Patience
) -> None:
    asked = wish(tmp_path, server, "carpet", carpet=carpet)._replace(mirrors=[f"{server.url}/a", f"{server.url}/b"])
    with pytest.raises(DownloadError, match=r"got nothing usable from http://.*/a/carpet.tar.xz, http://.*/b/carpet"):
        download(asked, reporter, patience)


def test_a_category_that_is_there_stays_as_it_is(
    carpet: bytes, server: Server, tmp_path: Path, reporter: Reporter, patience: Patience, said: io.StringIO
) -> None:
    mine = tmp_path / "mvtec" / "carpet" / "mine"
    mine.parent.mkdir(parents=True)
    mine.write_text("precious")
    assert download(wish(tmp_path, server, "carpet", carpet=carpet), reporter, patience) == []
    assert contents(tmp_path / "mvtec") == {"carpet/mine": b"precious"}
    assert "is there already, and stays as it is" in said.getvalue()
    assert server.requests == []


def test_an_archive_without_the_category_is_refused_and_not_kept(
    drawn: Path, server: Server, tmp_path: Path, reporter: Reporter, patience: Patience
) -> None:
    content = packed(drawn, ["tile"])
    server.files["/carpet.tar.xz"] = content
    with pytest.raises(DataError, match=r"carpet.tar.xz: got no folder carpet; expected one per category"):
        download(wish(tmp_path, server, "carpet", carpet=content), reporter, patience)
    assert set(contents(tmp_path / "mvtec")) == {f"{STAGING}/lock"}


def test_what_an_interrupted_extraction_left_is_begun_anew(
    drawn: Path, carpet: bytes, server: Server, tmp_path: Path, reporter: Reporter, patience: Patience
) -> None:
    staging = tmp_path / "mvtec" / STAGING
    half = staging / "extracting" / "carpet" / "train" / "good" / "000.png"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    (staging / "carpet.tar.xz").write_bytes(carpet)
    download(wish(tmp_path, server, "carpet", carpet=carpet), reporter, patience)
    assert contents(tmp_path / "mvtec" / "carpet") == contents(drawn / "carpet")
    assert server.requests == []  # the archive was whole


def test_a_stop_while_the_checksum_is_taken_costs_no_transfer(
    carpet: bytes,
    server: Server,
    tmp_path: Path,
    reporter: Reporter,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.files["/carpet.tar.xz"] = carpet

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pooch.core.hash_matches", stop)
    with pytest.raises(InterruptedRunError, match="what has come is kept; to go on: bench"):
        download(wish(tmp_path, server, "carpet", carpet=carpet), reporter, patience)
    monkeypatch.undo()
    (tmp_path / "mvtec" / STAGING / "tmpkilled").write_bytes(b"lost")
    download(wish(tmp_path, server, "carpet", carpet=carpet), reporter, patience)
    assert len(server.requests) == 1
    assert not (tmp_path / "mvtec" / STAGING).exists()


def test_archives_can_be_kept(
    carpet: bytes, server: Server, tmp_path: Path, reporter: Reporter, patience: Patience
) -> None:
    server.files["/carpet.tar.xz"] = carpet
    download(wish(tmp_path, server, "carpet", carpet=carpet)._replace(keep_archives=True), reporter, patience)
    assert (tmp_path / "mvtec" / STAGING / "carpet.tar.xz").read_bytes() == carpet


def test_two_downloads_do_not_meet_in_one_folder(
    carpet: bytes, server: Server, tmp_path: Path, reporter: Reporter, patience: Patience
) -> None:
    staging = tmp_path / "mvtec" / STAGING
    staging.mkdir(parents=True)
    with (staging / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataError, match=r"mvtec: got a download already at work; expected none; fix: wait for it"):
            download(wish(tmp_path, server, "carpet", carpet=carpet), reporter, patience)


def test_a_lock_that_was_removed_while_it_was_opened_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, lock = fcntl.flock, tmp_path / STAGING / "lock"

    def after_the_last_one_ended(file: IO[str], how: int) -> None:
        monkeypatch.undo()
        lock.unlink()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", after_the_last_one_ended)
    with _staging(tmp_path), pytest.raises(DataError, match="a download already at work"), _staging(tmp_path):
        pass


def test_a_root_that_cannot_be_written_is_refused(server: Server, reporter: Reporter, patience: Patience) -> None:
    with pytest.raises(DataError, match="expected a folder to write; fix: name another"):
        download(wish(Path("/proc/none"), server, "carpet", carpet=b""), reporter, patience)


def test_every_category_has_an_archive_and_the_whole_has_a_checksum() -> None:
    assert set(known()) == {WHOLE, *(f"{name}.tar.xz" for name in mvtec_ad())}
    (archive,) = choose(["carpet"], whole=False, sums={}, mirrors=[])
    assert archive.size_bytes == 5_264_982_680
    assert archive.urls[0].startswith("https://")
    assert archive.urls[0].endswith(WHOLE)


@pytest.mark.parametrize(("given", "message"), [
    ("carpet.zip=" + "0" * 64, "got 'carpet.zip=0.*'; expected ARCHIVE=HEX, the archive mvtec_"),
    ("carpet.tar.xz=12", "--sha256: got '12'; expected 64 hexadecimal digits; fix: copy it whole"),
    ("carpet.tar.xz", "--sha256: got ''; expected 64"),
])  # fmt: skip
def test_a_checksum_written_wrongly_is_refused(given: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        given_checksums([given])


@pytest.mark.parametrize("mirror", ["ftp://x/y", "file:///x", "x.org", "http:///x", "https://"])
def test_a_mirror_must_be_an_http_address(mirror: str) -> None:
    with pytest.raises(
        ConfigError, match=r"--mirror: got .*; expected an address that begins with http:// or https://"
    ):
        check_mirrors([mirror])


def bench(*arguments: str, root: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench", "data", "download", str(root / "mvtec"), *arguments]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_the_licence_is_shown_and_must_be_accepted(tmp_path: Path) -> None:
    process = bench(root=tmp_path)
    _, words = process.communicate()
    assert process.returncode == 2
    assert "CC BY-NC-SA 4.0" in words
    assert "https://creativecommons.org/licenses/by-nc-sa/4.0/" in words
    assert words.endswith("bench: licence: got no answer; expected that you accept it; fix: add --accept-licence\n")
    assert not (tmp_path / "mvtec").exists()


def test_the_licence_can_be_accepted_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.data.licence import accept  # noqa: PLC0415

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: " Yes ")
    accept(accepted=False)
    monkeypatch.setattr("builtins.input", lambda _: "")
    with pytest.raises(ConfigError, match="licence: got ''; expected yes; fix: accept it, or do without the data set"):
        accept(accepted=False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_download_says_how_to_go_on_and_does(
    carpet: bytes, server: Server, tmp_path: Path, number: signal.Signals
) -> None:
    server.files["/carpet.tar.xz"] = carpet
    server.whims = [Whim(cut_at=2 * CHUNK_BYTES), Whim(silent=True)]
    arguments = ["--category", "carpet", "--accept-licence", "--mirror", server.url]
    arguments += ["--sha256", f"carpet.tar.xz={sha256(carpet)}"]
    process = bench(*arguments, root=tmp_path)
    while len(server.requests) < 2:
        assert process.poll() is None
        os.sched_yield()
    process.send_signal(number)
    _, words = process.communicate()
    assert process.returncode == 130
    assert f"bench: interrupted; what has come is kept; to go on: bench data download {tmp_path}/mvtec" in words
    assert (tmp_path / "mvtec" / STAGING / "carpet.tar.xz.part").stat().st_size == 2 * CHUNK_BYTES

    again = bench(*arguments, root=tmp_path)
    shown, _ = again.communicate()
    assert again.returncode == 0
    assert shown == f"{tmp_path}/mvtec/carpet\ncheck what is there: bench data verify {tmp_path}/mvtec\n"
    assert server.requests[-1].range == f"bytes={2 * CHUNK_BYTES}-"


def test_a_full_disk_leaves_no_half_category(
    carpet: bytes,
    server: Server,
    tmp_path: Path,
    reporter: Reporter,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.files["/carpet.tar.xz"] = carpet
    opened = Path.open

    def full(path: Path, mode: str = "r", *arguments: object, **options: object) -> object:
        if mode == "xb" and path.name == "002.png":
            raise OSError(28, "No space left on device")
        return opened(path, mode, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="No space left"):
        download(wish(tmp_path, server, "carpet", carpet=carpet), reporter, patience)
    assert [path.name for path in (tmp_path / "mvtec").iterdir()] == [STAGING]
    assert set(contents(tmp_path / "mvtec" / STAGING)) == {"lock", "carpet.tar.xz"}
    monkeypatch.undo()
    download(wish(tmp_path, server, "carpet", carpet=carpet), reporter, patience)
    assert len(server.requests) == 1
