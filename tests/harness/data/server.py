"""A server of archives on this machine, with ranges, that misbehaves as it is told, one request after the other."""

import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import NamedTuple, Self


class Whim(NamedTuple):
    """How to treat one request."""

    cut_at: int | None = None
    """Close the connection after this byte of the file."""

    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    ranges: bool = True
    silent: bool = False
    compressed: bool = False
    lengthless: bool = False


class Request(NamedTuple):
    path: str
    range: str | None
    if_range: str | None


class Server:
    """Files by path, whims for the requests to come, and the requests that came."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.etag: str | None = '"one"'
        self.whims: list[Whim] = []
        self.always = Whim()
        self.requests: list[Request] = []
        self.closing = Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.answer(self)

            def log_message(self, *arguments: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.closing.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked, condition = handler.headers.get("Range"), handler.headers.get("If-Range")
        self.requests.append(Request(handler.path, asked, condition))
        whim = self.whims.pop(0) if self.whims else self.always
        if whim.silent:
            self.closing.wait()
        elif whim.status is not None or handler.path not in self.files:
            self._head(handler, whim.status or 404, [*whim.headers, ("Content-Length", "0")])
        else:
            self._send(handler, self.files[handler.path], asked, condition, whim)

    def _send(
        self, handler: BaseHTTPRequestHandler, content: bytes, asked: str | None, condition: str | None, whim: Whim
    ) -> None:
        match = re.fullmatch(r"bytes=(\d+)-", asked or "")
        start = int(match[1]) if match and whim.ranges and condition in {None, self.etag} else 0
        headers = [*whim.headers, *([("ETag", self.etag)] if self.etag else [])]
        headers += [("Content-Encoding", "gzip")] if whim.compressed else []
        headers += [] if whim.lengthless else [("Content-Length", str(len(content) - start))]
        if start >= len(content):
            self._head(handler, 416, [("Content-Range", f"bytes */{len(content)}"), ("Content-Length", "0")])
            return
        if start:
            headers.append(("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"))
        self._head(handler, 206 if start else 200, headers)
        handler.wfile.write(content[start : whim.cut_at])

    @staticmethod
    def _head(handler: BaseHTTPRequestHandler, status: int, headers: list[tuple[str, str]]) -> None:
        handler.send_response(status)
        for name, value in headers:
            handler.send_header(name, value)
        handler.end_headers()
