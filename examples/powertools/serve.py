"""Put the functions behind a URL: `python serve.py [PORT]`. Prints the address; 0 takes a free port.

POST /topic, /stream or /queue calls a function with an event; GET / tells how often each payment was tried. One event
at a time for each function, as in an execution environment of AWS Lambda: batch processors are not for several threads.
"""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import functions

HANDLERS = {
    "/topic": functions.topic_handler,
    "/stream": functions.stream_handler,
    "/queue": functions.queue_handler,
}
LOCKS = {path: threading.Lock() for path in HANDLERS}


class Endpoint(BaseHTTPRequestHandler):
    """One connection of a node."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Call a function. An exception is a function error, which esmd knows by the status."""
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path not in HANDLERS:
            self._answer(404, {"errorMessage": f"no function {self.path}"})
            return
        try:
            with LOCKS[self.path]:
                response = HANDLERS[self.path](event, None)
        except Exception as exc:  # noqa: BLE001 - whatever it raised, the function failed
            self._answer(500, {"errorMessage": str(exc), "errorType": type(exc).__name__})
        else:
            self._answer(200, response)

    def do_GET(self) -> None:
        """Tell what was tried."""
        self._answer(200, dict(functions.attempts))

    def _answer(self, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing of each request."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8000), Endpoint)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
