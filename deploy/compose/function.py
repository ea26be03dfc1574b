"""A function for the Compose file: prints the values of the Kafka records that it is given."""

from __future__ import annotations

import base64
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Function(BaseHTTPRequestHandler):
    """`GET` says that it is there, `POST` is an invocation."""

    def do_GET(self) -> None:
        """Answer the health check."""
        self._answer({})

    def do_POST(self) -> None:
        """Take one event."""
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for shard, records in event["records"].items():
            for record in records:
                value = base64.b64decode(record.get("value") or b"").decode(errors="replace")
                print(f"{shard} offset {record['offset']}: {value}", flush=True)
        self._answer({"batchItemFailures": []})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name http.server calls
        """Say nothing of requests: the records are what one wants to see."""

    def _answer(self, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("0.0.0.0", 8080), Function).serve_forever()  # noqa: S104 - reached by the nodes' containers
