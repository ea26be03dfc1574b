"""A node's HTTP surface, as client commands see it: answers as told, and notes what it was asked."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class FakeNode(ThreadingHTTPServer):
    """Answers every request alike, and notes the last one. A list of documents is sent as lines, with a flush each."""

    answer: tuple[int, bytes | list[Any]] = (200, b"{}")
    path = ""
    method = ""
    authorization: str | None = None
    body = b""
    headers: Mapping[str, str] = {}
    more_headers: Mapping[str, str] = {}

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeNode

    def do_GET(self) -> None:
        """Answer."""
        self.server.headers = dict(self.headers)
        self.server.path, self.server.authorization = self.path, self.headers["Authorization"]
        self.server.method = self.command
        self.server.body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        status, body = self.server.answer
        self.send_response(status)
        for name, value in self.server.more_headers.items():
            self.send_header(name, value)
        if isinstance(body, bytes):
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.end_headers()  # without a length the answer ends with the connection
        for document in body:
            self.wfile.write(json.dumps(document).encode() + b"\n")
            self.wfile.flush()

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - the base class's names for it

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name for it
        """Stay silent."""


@contextmanager
def fake_node() -> Iterator[FakeNode]:
    """Serve on loopback."""
    with FakeNode(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
