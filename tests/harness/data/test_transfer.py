import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from harness.data.transfer import CHUNK_BYTES, GAIN_BYTES, Patience, Transfer
from harness.progress import Reporter
from profiles.errors import DownloadError
from tests.harness.data.server import Request, Server, Whim

CONTENT = np.random.default_rng(0).bytes(300_000)
LIMIT = 10 * 2**20
THIRD, MOST = 6 * CHUNK_BYTES, 15 * CHUNK_BYTES


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "file.part"


@pytest.fixture
def transfer(part: Path, reporter: Reporter, patience: Patience) -> Transfer:
    return Transfer(part, reporter, patience, limit_bytes=LIMIT)


def fetch(transfer: Transfer, server: Server, folder: Path) -> bytes:
    transfer(f"{server.url}/file", str(folder / "file"))
    return (folder / "file").read_bytes()


@pytest.fixture(autouse=True)
def _file(server: Server) -> None:
    server.files["/file"] = CONTENT


def test_a_file_arrives_whole_and_leaves_nothing_beside_it(transfer: Transfer, server: Server, tmp_path: Path) -> None:
    assert fetch(transfer, server, tmp_path) == CONTENT
    transfer.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_after_a_cut_it_asks_for_the_rest_of_the_same_file(
    transfer: Transfer, server: Server, tmp_path: Path, waits: list[float]
) -> None:
    server.whims = [Whim(cut_at=THIRD), Whim(cut_at=MOST)]
    assert fetch(transfer, server, tmp_path) == CONTENT
    first, second, third = server.requests
    assert first == Request("/file", None, None)
    assert (second.range, second.if_range) == (f"bytes={THIRD}-", '"one"')
    assert (third.range, third.if_range) == (f"bytes={MOST}-", '"one"')
    assert waits == [1.0, 2.0]


def test_what_came_before_an_interruption_is_kept_for_the_next_call(
    transfer: Transfer, server: Server, part: Path, tmp_path: Path
) -> None:
    server.always = Whim(cut_at=THIRD)
    with pytest.raises(DownloadError, match=r"got .*3 times \(98,304 bytes are kept\); expected the file; fix: try"):
        fetch(transfer, server, tmp_path)
    assert part.read_bytes() == CONTENT[:THIRD]
    server.always = Whim()
    server.requests.clear()
    assert fetch(transfer, server, tmp_path) == CONTENT
    assert [request.range for request in server.requests] == [f"bytes={THIRD}-"]
    assert transfer.resumed


def test_a_server_without_ranges_sends_it_from_the_start(
    transfer: Transfer, server: Server, tmp_path: Path, said: io.StringIO
) -> None:
    server.whims = [Whim(cut_at=THIRD), Whim(ranges=False)]
    assert fetch(transfer, server, tmp_path) == CONTENT
    assert "the server sends it from the start" in said.getvalue()


def test_a_file_that_changed_meanwhile_is_fetched_from_the_start(
    transfer: Transfer, server: Server, part: Path, tmp_path: Path
) -> None:
    server.always = Whim(cut_at=THIRD)
    with pytest.raises(DownloadError):
        fetch(transfer, server, tmp_path)
    server.always, server.etag = Whim(), '"two"'
    server.files["/file"] = CONTENT[::-1]
    assert fetch(transfer, server, tmp_path) == CONTENT[::-1]


def test_without_a_mark_of_the_version_another_size_tells_another_file(
    transfer: Transfer, server: Server, tmp_path: Path
) -> None:
    server.etag, server.whims = None, [Whim(cut_at=THIRD)]
    other = CONTENT + b"more"
    grow = server.answer

    def grown(handler: object) -> None:
        if len(server.requests) == 1:
            server.files["/file"] = other
        grow(handler)  # type: ignore[arg-type]

    server.answer = grown  # type: ignore[method-assign]
    assert fetch(transfer, server, tmp_path) == other
    assert [request.range for request in server.requests] == [None, f"bytes={THIRD}-", None]


def test_a_weak_etag_is_no_condition(transfer: Transfer, server: Server, tmp_path: Path) -> None:
    server.etag, server.whims = 'W/"one"', [Whim(cut_at=THIRD)]
    assert fetch(transfer, server, tmp_path) == CONTENT
    assert server.requests[1] == Request("/file", f"bytes={THIRD}-", None)


def test_a_file_that_only_lacks_its_name_is_not_asked_for_again(
    transfer: Transfer, server: Server, part: Path, tmp_path: Path
) -> None:
    part.write_bytes(CONTENT)
    state = {"url": f"{server.url}/file", "validator": None, "total": len(CONTENT)}
    part.with_name("file.part.json").write_text(json.dumps(state))
    assert fetch(transfer, server, tmp_path) == CONTENT
    assert server.requests == []


@pytest.mark.parametrize("state", [None, "{", '{"colour": 1}'])
def test_a_part_of_which_nothing_is_known_is_gone_on_with(
    transfer: Transfer, server: Server, part: Path, tmp_path: Path, state: str | None
) -> None:
    part.write_bytes(CONTENT[:1000])
    if state:
        part.with_name("file.part.json").write_text(state)
    assert fetch(transfer, server, tmp_path) == CONTENT
    assert server.requests == [Request("/file", "bytes=1000-", None)]


def test_a_whole_part_of_which_nothing_is_known_is_done(
    transfer: Transfer, server: Server, part: Path, tmp_path: Path
) -> None:
    part.write_bytes(CONTENT)
    assert fetch(transfer, server, tmp_path) == CONTENT


def test_a_part_longer_than_the_file_is_dropped(transfer: Transfer, server: Server, part: Path, tmp_path: Path) -> None:
    part.write_bytes(CONTENT + b"more")
    assert fetch(transfer, server, tmp_path) == CONTENT


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(transfer: Transfer, server: Server, tmp_path: Path, status: int) -> None:
    server.whims = [Whim(status=status), Whim(status=status)]
    assert fetch(transfer, server, tmp_path) == CONTENT


def test_a_server_may_say_how_long_to_wait_but_not_for_ever(
    transfer: Transfer, server: Server, tmp_path: Path, waits: list[float]
) -> None:
    server.whims = [
        Whim(status=503, headers=(("Retry-After", "7"),)),
        Whim(status=503, headers=(("Retry-After", "9" * 9),)),
    ]
    assert fetch(transfer, server, tmp_path) == CONTENT
    assert waits == [7.0, 30.0]


@pytest.mark.parametrize("status", [401, 403, 404, 410, 501])
def test_a_refusal_is_final(transfer: Transfer, server: Server, tmp_path: Path, status: int) -> None:
    server.always = Whim(status=status)
    with pytest.raises(DownloadError, match=rf"/file: got {status} .*; expected the file; fix: --mirror") as error:
        fetch(transfer, server, tmp_path)
    assert error.value.exit_code == 1
    assert len(server.requests) == 1


def test_redirects_are_followed_but_not_in_a_circle(transfer: Transfer, server: Server, tmp_path: Path) -> None:
    server.whims = [Whim(status=302, headers=(("Location", "/file"),))]
    assert fetch(transfer, server, tmp_path) == CONTENT
    transfer.discard()
    server.always = Whim(status=302, headers=(("Location", "/file"),))
    with pytest.raises(DownloadError, match="Exceeded 30 redirects"):
        fetch(transfer, server, tmp_path)


def test_a_silent_server_is_left_after_the_timeout(
    server: Server, part: Path, reporter: Reporter, tmp_path: Path
) -> None:
    waits: list[float] = []
    transfer = Transfer(part, reporter, Patience(timeout_s=0.2, attempts=2, wait=waits.append), limit_bytes=LIMIT)
    server.always = Whim(silent=True)
    with pytest.raises(DownloadError, match=r"got no answer in time, 2 times"):
        fetch(transfer, server, tmp_path)
    assert waits == [1.0]


def test_a_server_that_is_not_there_is_an_error_of_ours(transfer: Transfer, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"got cut off .*3 times"):
        transfer("http://127.0.0.1:9/file", str(tmp_path / "file"))


def test_attempts_that_come_further_are_no_failures(
    server: Server, part: Path, reporter: Reporter, patience: Patience, tmp_path: Path
) -> None:
    server.files["/file"] = np.random.default_rng(1).bytes(8 * GAIN_BYTES)
    server.whims = [Whim(cut_at=(GAIN_BYTES + 2 * CHUNK_BYTES) * number) for number in range(1, 7)]
    transfer = Transfer(part, reporter, patience, limit_bytes=LIMIT)
    assert fetch(transfer, server, tmp_path) == server.files["/file"]
    assert len(server.requests) == 7


def test_a_server_that_always_starts_anew_and_cuts_is_given_up(
    transfer: Transfer, server: Server, tmp_path: Path
) -> None:
    server.always = Whim(ranges=False, cut_at=200_000)
    with pytest.raises(DownloadError, match="3 times"):
        fetch(transfer, server, tmp_path)


def test_another_size_than_the_known_one_is_refused_before_a_byte_is_kept(
    server: Server, part: Path, reporter: Reporter, patience: Patience, tmp_path: Path
) -> None:
    transfer = Transfer(part, reporter, patience, limit_bytes=LIMIT, size_bytes=5)
    with pytest.raises(DownloadError, match="got 300,000 bytes; expected 5 bytes; fix: --mirror"):
        fetch(transfer, server, tmp_path)
    assert not part.exists()


@pytest.mark.parametrize("lengthless", [False, True])
def test_a_file_larger_than_the_limit_is_refused(
    server: Server, part: Path, reporter: Reporter, patience: Patience, tmp_path: Path, *, lengthless: bool
) -> None:
    server.always = Whim(lengthless=lengthless)
    transfer = Transfer(part, reporter, patience, limit_bytes=250_000)
    with pytest.raises(DownloadError, match=r"expected at most 250,000"):
        fetch(transfer, server, tmp_path)
    assert not part.exists()


def test_a_file_whose_length_is_not_told_is_taken(transfer: Transfer, server: Server, tmp_path: Path) -> None:
    server.always = Whim(lengthless=True)
    assert fetch(transfer, server, tmp_path) == CONTENT


def test_a_file_compressed_on_the_way_is_refused(transfer: Transfer, server: Server, tmp_path: Path) -> None:
    server.always = Whim(compressed=True)
    with pytest.raises(DownloadError, match="got a file compressed in transit"):
        fetch(transfer, server, tmp_path)


def test_without_room_for_archive_and_contents_nothing_is_fetched(
    server: Server, part: Path, reporter: Reporter, patience: Patience, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil._ntuple_diskusage(10**6, 0, 599_999)  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    transfer = Transfer(part, reporter, patience, limit_bytes=LIMIT, room=1.0)
    with pytest.raises(DownloadError, match=r"got 599,999 bytes free; expected 600,000 to hold and extract"):
        fetch(transfer, server, tmp_path)
    assert not part.exists()
