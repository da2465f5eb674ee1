"""One file over HTTP that survives cuts: what has come is kept in `<name>.part`, and the next attempt goes on after it.

The request asks for the rest (`Range`) on condition that the file is still the same one (`If-Range` with the server's
strong ETag, else its date). A server that does not know ranges, or whose file has changed, sends the whole file, and
the transfer starts anew. Bytes may come from one mirror and go on from another: only the SHA-256, which the caller
checks over the whole file, says that they are the right ones.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import NamedTuple

import requests
from requests import Response
from requests.exceptions import ChunkedEncodingError, RequestException, SSLError, Timeout

from harness.progress import Reporter
from profiles.errors import DownloadError
from profiles.files import replacing

CHUNK_BYTES = 2**14
"""What a cut loses at most: a chunk that did not come whole is not handed on."""

MEGABYTE = 10**6
GAIN_BYTES = 2**20
"""An attempt that came this much further than any before was no failure: a bad line gets there, a bad server ends."""

OK, PARTIAL, NOT_SATISFIABLE = 200, 206, 416
BUSY = {408, 425, 429, 500, 502, 503, 504}


class Patience(NamedTuple):
    """How long to wait for a server, and how often to try again: waits double from the first to the longest."""

    timeout_s: float = 30.0
    attempts: int = 5
    first_wait_s: float = 1.0
    longest_wait_s: float = 30.0
    wait: Callable[[float], None] = sleep


class _State(NamedTuple):
    """Of what file the part is: the address it came from, the server's mark of the version, the whole size."""

    url: str = ""
    validator: str | None = None
    total: int | None = None


class _PassingError(Exception):
    """What may go better next time, with the seconds that the server asks to wait."""

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class Transfer:
    """A downloader as pooch calls it: fetches an address to a file, going on where an earlier one stopped.

    *size_bytes* is the file's size where it is known, *limit_bytes* the largest that is accepted; on the disk *room*
    times the file's size has to be free besides the file itself.
    """

    def __init__(
        self,
        part: Path,
        reporter: Reporter,
        patience: Patience,
        *,
        limit_bytes: int,
        size_bytes: int | None = None,
        room: float = 0.0,
    ) -> None:
        self._part = part
        self._state_file = part.with_name(part.name + ".json")
        self._reporter = reporter
        self._patience = patience
        self._limit_bytes = limit_bytes
        self._size_bytes = size_bytes
        self._room = room
        self.resumed = False

    def __call__(self, url: str, output_file: str, pooch: object = None) -> None:  # noqa: ARG002 - as pooch calls it
        """Fetch *url* to *output_file*; when it fails, what has come is kept for the next call.

        Raises:
            DownloadError: it cannot be had.

        """
        failures, furthest = 0, self._have()
        self.resumed = furthest > 0
        while True:
            try:
                self._attempt(url)
                break
            except _PassingError as error:
                gained = self._have() > furthest + GAIN_BYTES
                furthest = max(furthest, self._have())
                failures = 0 if gained else failures + 1
                if failures >= self._patience.attempts:
                    got = f"{error}, {failures} times ({self._have():,} bytes are kept)"
                    raise DownloadError(url, got=got, expected="the file", fix="try again, or --mirror") from error
                self._pause(failures, error)
        self._hand_over(Path(output_file))

    def _hand_over(self, output: Path) -> None:
        """Give the file its name; the part stays until the caller has checked it, or is stopped while doing so."""
        output.unlink(missing_ok=True)
        try:
            output.hardlink_to(self._part)
        except OSError:  # a file system without links: a stop during the check costs the file
            self._part.replace(output)

    def discard(self) -> None:
        """Forget what has come: the caller has no more use for it."""
        self._part.unlink(missing_ok=True)
        self._state_file.unlink(missing_ok=True)

    def _pause(self, failures: int, error: _PassingError) -> None:
        doubled_s = self._patience.first_wait_s * 2 ** max(0, failures - 1)
        wait_s = min(self._patience.longest_wait_s, max(doubled_s, error.wait_s or 0.0))
        self._reporter.say(f"{self._part.stem}: {error}; trying again in {wait_s:g} s")
        self._patience.wait(wait_s)

    def _have(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _attempt(self, url: str) -> None:
        """Ask for what is missing and append it.

        Raises:
            _PassingError: the connection or the server failed.
            DownloadError: asking again would not help.

        """
        have, state = self._have(), self._state()
        if have and have == state.total:
            return  # only the last step is missing: its renaming
        try:
            timeout_s = self._patience.timeout_s
            with requests.get(url, headers=_headers(url, have, state), stream=True, timeout=timeout_s) as response:
                start, total = self._placed(response, have, state)
                if start is not None:
                    self._receive(response, url, start, total)
        except SSLError as error:
            got = f"no secure connection ({error})"
            raise DownloadError(url, got=got, expected="the file", fix="--mirror") from error
        except (requests.ConnectionError, Timeout, ChunkedEncodingError) as error:
            raise _PassingError(_words(error)) from error
        except RequestException as error:  # too many redirects, an address that is none
            raise DownloadError(url, got=str(error), expected="the file", fix="--mirror") from error

    def _placed(self, response: Response, have: int, state: _State) -> tuple[int | None, int | None]:
        """Say at which byte the answer goes on, or None where nothing is missing, and how large the file is."""
        if response.status_code == OK:
            if have:
                self._reporter.say(f"{self._part.stem}: the server sends it from the start; what had come is dropped")
            return 0, _number(response.headers.get("Content-Length"))
        start, total = _content_range(response.headers.get("Content-Range", ""))
        if response.status_code == NOT_SATISFIABLE and have and total == have:
            return None, total
        if response.status_code == PARTIAL and start == have and (state.total is None or total in {None, state.total}):
            return have, total if total is not None else state.total
        if response.status_code in {PARTIAL, NOT_SATISFIABLE}:
            self.discard()
            message = "another file than before, or another part of it than asked for"
            raise _PassingError(message)
        if response.status_code in BUSY:
            raise _PassingError(_status(response), _number(response.headers.get("Retry-After")))
        raise DownloadError(response.url, got=_status(response), expected="the file", fix="--mirror")

    def _receive(self, response: Response, url: str, start: int, total: int | None) -> None:
        """Append the answer's body to the part, which is cut to *start* first."""
        self._check(response, url, start, total)
        self._save(_State(url, _validator(response), total))
        self._reporter.begin(self._part.stem, total // MEGABYTE if total else None, "MB", start // MEGABYTE)
        try:
            with self._part.open("r+b" if start else "wb") as file:
                file.seek(start)
                done = start
                for chunk in response.iter_content(CHUNK_BYTES):
                    file.write(chunk)
                    self._reporter.advance((done + len(chunk)) // MEGABYTE - done // MEGABYTE)
                    done += len(chunk)
                    if done > self._limit_bytes:
                        self.discard()
                        raise self._too_large(url, f"{done:,} bytes and more")
        finally:
            self._reporter.end()
        if total is not None and done != total:
            message = f"an end at {done:,} of {total:,} bytes"
            raise _PassingError(message)

    def _check(self, response: Response, url: str, start: int, total: int | None) -> None:
        """Refuse what is no such file, or has no room, before any of it is kept."""
        if response.headers.get("Content-Encoding", "identity") != "identity":
            expected = "the file as it is"
            raise DownloadError(url, got="a file compressed in transit", expected=expected, fix="--mirror")
        if total is not None and self._size_bytes not in {None, total}:
            expected = f"{self._size_bytes:,} bytes"
            raise DownloadError(url, got=f"{total:,} bytes", expected=expected, fix="--mirror")
        if total is not None and total > self._limit_bytes:
            raise self._too_large(url, f"{total:,} bytes")
        free = shutil.disk_usage(self._part.parent).free
        needed = (total or 0) - start + round((total or 0) * self._room)
        if needed > free:
            got, expected = f"{free:,} bytes free", f"{needed:,} to hold and extract the archive"
            raise DownloadError(self._part.parent, got=got, expected=expected, fix="make room, or another folder")

    def _too_large(self, url: str, got: str) -> DownloadError:
        return DownloadError(url, got=got, expected=f"at most {self._limit_bytes:,}", fix="--mirror")

    def _state(self) -> _State:
        """Read of what file the part is; where that is lost or damaged, nothing is known of it."""
        try:
            return _State(**json.loads(self._state_file.read_bytes()))
        except (OSError, ValueError, TypeError):
            return _State()

    def _save(self, state: _State) -> None:
        with replacing(self._state_file) as aside:
            aside.write_text(json.dumps(state._asdict()), encoding="utf-8")


def _headers(url: str, have: int, state: _State) -> dict[str, str]:
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if state.validator and state.url == url:
            headers["If-Range"] = state.validator
    return headers


def _validator(response: Response) -> str | None:
    """Return what `If-Range` may name: a strong ETag, else the date of the last change."""
    etag = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _content_range(value: str) -> tuple[int | None, int | None]:
    """Read `bytes 10-99/100` or `bytes */100`: first byte, size of the whole."""
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", value.strip())
    return (_number(match[1]), _number(match[2])) if match else (None, None)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None


def _status(response: Response) -> str:
    return f"{response.status_code} {response.reason}"


def _words(error: RequestException) -> str:
    return "no answer in time" if isinstance(error, Timeout) or "timed out" in str(error) else f"cut off ({error})"
