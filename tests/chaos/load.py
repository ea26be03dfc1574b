"""The load: numbered records, written to a topic, a stream, a queue and a FIFO queue all the time.

Each source has keys of its own and a thread that writes to it at a steady pace, from one record to the next of a few
keys chosen by seed. It notes when the source had confirmed each record.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Protocol

from confluent_kafka import Producer

from tests.support.numbered import Numbering

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.kinesis_streams import Stream
    from tests.support.sqs_servers import RealQueue

_EVERY_S = 0.1
_FLUSH_S = 60.0
_END_S = 90.0


class Sender(Protocol):
    """Writes records to one source; blocks until the source has them, or calls `confirmed` for each of them later."""

    def send(self, records: list[tuple[str, str]], confirmed: Callable[[str], None]) -> None:
        """Write (key, text) in order, once each."""

    def flush(self) -> None:
        """Wait for what is not confirmed yet."""


@dataclass
class ToKafka:
    """A topic. An idempotent producer: what is written while the broker is away comes later, once and in order."""

    servers: str
    topic: str
    partitions: int

    def __post_init__(self) -> None:
        self._failures: list[str] = []
        self._producer = Producer(
            {"bootstrap.servers": self.servers, "enable.idempotence": True, "linger.ms": 5, "log_level": 0}
        )

    def send(self, records: list[tuple[str, str]], confirmed: Callable[[str], None]) -> None:
        """Write to the partitions of the keys."""
        for key, text in records:

            def reported(error: object, _message: object, text: str = text) -> None:
                if error is not None:
                    self._failures.append(str(error))
                confirmed(text)

            number = int(key.rpartition("-")[2])
            self._producer.produce(self.topic, text, key, number % self.partitions, on_delivery=reported)
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait for the broker."""
        assert not self._producer.flush(_FLUSH_S), "the broker has not taken all records"
        assert not self._failures, self._failures[:5]


@dataclass
class ToKinesis:
    """A stream."""

    stream: Stream

    def send(self, records: list[tuple[str, str]], confirmed: Callable[[str], None]) -> None:
        """Write in one call."""
        self.stream.put([(key, text.encode()) for key, text in records])
        for _, text in records:
            confirmed(text)

    def flush(self) -> None:
        """Nothing is under way."""


@dataclass
class ToQueue:
    """A queue; the keys are the message groups of a FIFO queue."""

    queue: RealQueue

    def send(self, records: list[tuple[str, str]], confirmed: Callable[[str], None]) -> None:
        """Write in calls of ten."""
        self.queue.send_each((key if self.queue.fifo else None, text) for key, text in records)
        for _, text in records:
            confirmed(text)

    def flush(self) -> None:
        """Nothing is under way."""


@dataclass
class Feed:
    """One source under load."""

    name: str  # of its mapping, and of its keys
    sender: Sender
    keys: int
    per_second: float
    ordered: bool = True
    written_at: dict[str, float] = field(default_factory=dict)  # epoch seconds, by record
    error: Exception | None = None

    def __post_init__(self) -> None:
        self.numbering = Numbering(f"{self.name}-{number}" for number in range(self.keys))

    def write(self, seed: int, stop: threading.Event) -> None:
        """Write until told to stop, then wait for the source to have it all. A failure is kept in `error`."""
        random = Random(f"{seed} {self.name}")
        keys = list(self.numbering.written)
        began, count = time.monotonic(), 0
        try:
            while not stop.wait(_EVERY_S):
                due = min(int((time.monotonic() - began) * self.per_second) - count, 10 * len(keys))
                chosen = random.choices(keys, k=due)
                count += due
                self.sender.send([(key, self.numbering.next(key)) for key in chosen], self._confirmed)
            self.sender.flush()
        except Exception as exc:  # noqa: BLE001  told to the main thread
            self.error = exc

    def _confirmed(self, text: str) -> None:
        self.written_at[text] = time.time()


@contextlib.contextmanager
def under_load(feeds: list[Feed], seed: int) -> Iterator[None]:
    """Write to all sources for the length of the block; at its end all of it is in the sources. Blocks there."""
    stop = threading.Event()
    threads = [threading.Thread(target=feed.write, args=(seed, stop), name=feed.name, daemon=True) for feed in feeds]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(_END_S)
    for feed in feeds:
        if feed.error is not None:
            raise feed.error
