"""The function that benchmarks call: an HTTP server of its own process that counts and does nothing else.

    python -m benchmarks.sink [--log FILE]

Prints its URL. `POST` anything: counted, answered 200. `GET /count` tells the counts. As cheap as it can be in Python
(an asyncio Protocol on uvloop), so that it is not what is measured: a record is counted by its `"offset":`, or by
whatever `--mark` says, without parsing. With `--log` each record's sending time and arrival go to a file, one line of
JSON an event; for modest rates only.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import uvloop

if TYPE_CHECKING:
    from typing import BinaryIO

_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Counts(msgspec.Struct):
    """What came in so far."""

    records: int = 0
    requests: int = 0
    size: int = 0  # bytes of the events


class Arrival(msgspec.Struct):
    """One event, as the log has it."""

    at_us: int  # epoch microseconds
    shard: str  # the X-Esmd-Shard header
    token: int  # X-Esmd-Fencing-Token, 0 without one
    records: list[tuple[str, int]]  # of each record: its place in the source, and when it was sent, epoch microseconds


class Takes(Protocol):
    """What answers the requests of the connections: the sink, or another server as simple."""

    def take(self, head: bytes, body: bytes) -> bytes:
        """Take a request and return the whole answer."""


class Sink:
    """What the connections share."""

    def __init__(self, mark: bytes, log: BinaryIO | None) -> None:
        self.counts = Counts()
        self._mark = mark
        self._log = log

    def take(self, head: bytes, body: bytes) -> bytes:
        """Count a request and return the answer."""
        if head.startswith(b"GET "):
            told = msgspec.json.encode(self.counts)
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(told), told)
        counts = self.counts
        counts.requests += 1
        counts.size += len(body)
        counts.records += body.count(self._mark)
        if self._log is not None:
            self._log.write(msgspec.json.encode(arrival(head, body)) + b"\n")
            self._log.flush()
        return _OK


class Connection(asyncio.Protocol):
    """Reads requests with a Content-Length, one after the other, and nothing else of HTTP."""

    def __init__(self, sink: Takes) -> None:
        self._sink = sink
        self._parts: list[bytes] = []
        self._missing = 0  # bytes of the request under way; 0: its head is not complete
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take bytes as they come: a request in pieces, or one and a half."""
        self._parts.append(data)
        if len(data) < self._missing:
            self._missing -= len(data)
            return
        data = b"".join(self._parts) if len(self._parts) > 1 else data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            head = data[:end]
            needed = end + 4 + content_length(head)
            if len(data) < needed:
                self._missing = needed - len(data)
                break
            self._transport.write(self._sink.take(head, data[end + 4 : needed]))
            data = data[needed:]
            self._missing = 0
        self._parts = [data] if data else []


def content_length(head: bytes) -> int:
    """Return the length of the body that follows a request's head."""
    at = head.lower().find(b"\r\ncontent-length:")
    return int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0


def arrival(head: bytes, body: bytes) -> Arrival:
    """Read an event of any source: where its records come from, and the `sent_us` in their data."""
    at_us = time.time_ns() // 1000
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in head.split(b"\r\n"))}
    event = msgspec.json.decode(body)
    found = event["Records"] if "Records" in event else event["records"]
    records = [record for several in found.values() for record in several] if isinstance(found, dict) else found
    return Arrival(
        at_us,
        headers.get(b"x-esmd-shard", b"").decode(),
        int(headers.get(b"x-esmd-fencing-token", b"0")),
        [_place_and_time(record) for record in records],
    )


def _place_and_time(record: dict[str, Any]) -> tuple[str, int]:
    if shown := record.get("kinesis"):
        sent = msgspec.json.decode(base64.b64decode(shown["data"]))["sent_us"]
        return record["eventID"], int(sent)
    if (body := record.get("body")) is not None:
        return record["messageId"], int(msgspec.json.decode(body)["sent_us"])
    sent = msgspec.json.decode(base64.b64decode(record["value"]))["sent_us"]
    return f"{record['topic']}-{record['partition']}/{record['offset']}", int(sent)


async def serve(sink: Takes, port: int) -> None:
    """Print the URL and answer until SIGTERM."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(lambda: Connection(sink), "127.0.0.1", port, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await stop.wait()
    server.close()


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description="Counts what is posted to it.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--mark", default='"offset":', help="what every record of an event has once")
    parser.add_argument("--log", type=Path)
    arguments = parser.parse_args()
    with contextlib.ExitStack() as files:
        log = None if arguments.log is None else files.enter_context(arguments.log.open("wb"))
        uvloop.run(serve(Sink(arguments.mark.encode(), log), arguments.port))


if __name__ == "__main__":
    main()
