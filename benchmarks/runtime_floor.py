"""The floor of sandboxes: a Runtime API that gives the same event again and again, and throws the answers away.

    python -m benchmarks.runtime_floor --event FILE

Prints its URL, which is also where the count of answers is. What AWS's runtime client takes from it in a second is what
it can take at all: nothing here watches over time, memory or what the function writes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import uvloop

from benchmarks.sink import serve

_STATUS = b'{"status":"OK"}'
_ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: %d\r\n\r\n%b" % (len(_STATUS), _STATUS)
_NEXT = (
    "HTTP/1.1 200 OK",
    "Content-Type: application/json",
    "Lambda-Runtime-Aws-Request-Id: 8476a536-e9f4-11e8-9739-2dfe598c3fcd",
    "Lambda-Runtime-Deadline-Ms: 9999999999999",
    "Lambda-Runtime-Trace-Id: Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700",
    "Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:us-east-1:000000000000:function:f",
)


class Runtime:
    """`benchmarks.sink.Takes`."""

    def __init__(self, event: bytes) -> None:
        head = "\r\n".join((*_NEXT, f"Content-Length: {len(event)}", "", ""))
        self._next = head.encode() + event
        self.answers = 0

    def take(self, head: bytes, body: bytes) -> bytes:  # noqa: ARG002  # whatever it answers
        """Take a request and return the whole answer."""
        if head.startswith(b"GET /count"):
            told = b"%d" % self.answers
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(told), told)
        if head.startswith(b"GET "):
            return self._next
        self.answers += 1
        return _ACCEPTED


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description="Gives one event again and again.")
    parser.add_argument("--event", type=Path, required=True)
    uvloop.run(serve(Runtime(parser.parse_args().event.read_bytes()), 0))


if __name__ == "__main__":
    main()
