"""Filling topics fast: confluent-kafka's producer, with partitions chosen by the caller. Synchronous."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from confluent_kafka import Producer

from tests.support.history import Partition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Headers = Sequence[tuple[str, bytes | None]] | None

_FLUSH_S = 60.0
_POLL_EVERY = 10_000


def load(
    servers: str,
    records: Iterable[tuple[str, int, bytes | None, bytes | None]],
    *,
    headers: Sequence[Headers] = (),
    **settings: str | int,
) -> int:
    """Append records (topic, partition, key, value) in order, once each, with `headers` or none; return how many."""
    failures: list[str] = []

    def reported(error: Any, _message: Any) -> None:
        if error is not None:
            failures.append(str(error))

    producer = Producer(
        {
            "bootstrap.servers": servers,
            "enable.idempotence": True,
            "linger.ms": 20,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 200_000,
            "queue.buffering.max.kbytes": 262_144,
            "message.max.bytes": 8_000_000,
            "log_level": 0,
            **{name.replace("_", "."): value for name, value in settings.items()},
        }
    )
    count = 0
    for topic, partition, key, value in records:
        count += 1
        if count % _POLL_EVERY == 0:
            producer.poll(0)
        given = headers[count - 1] if headers else None
        while True:
            try:
                producer.produce(
                    topic, value, key, partition, on_delivery=reported, headers=[*given] if given else None
                )
            except BufferError:
                producer.poll(0.1)
            else:
                break
    left = producer.flush(_FLUSH_S)
    assert not left, f"{left} records were not taken"
    assert not failures, failures[:5]
    return count


def keyed(
    topic: str, partitions: int, count: int, value: Callable[[int], bytes], *, keys: int = 50
) -> Iterable[tuple[str, int, bytes, bytes]]:
    """Make `count` records, dealt to the partitions in turn, `keys` keys in each partition."""
    for number in range(count):
        partition = number % partitions
        yield topic, partition, b"%d-%d" % (partition, number // partitions % keys), value(number)


def expected(topic: str, partitions: int, count: int) -> dict[Partition, range]:
    """Return which offsets `keyed` makes in an empty topic."""
    each, more = divmod(count, partitions)
    return {Partition(topic, number): range(each + (number < more)) for number in range(partitions)}
