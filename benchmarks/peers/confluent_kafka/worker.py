r"""A member of a consumer group as careful confluent-kafka users write it, for the rows of fleets.

    python -m benchmarks.peers.confluent_kafka.worker --servers HOST:PORT --topic TOPIC --group NAME \
        --session-ms 10000 --url URL

Offsets are committed after the POST, before the next read, and so before a rebalance; SIGTERM ends it after its batch,
and it leaves the group. Partitions are assigned by `cooperative-sticky`, so that a rebalance takes only those that
move. Prints `assigned N` whenever that changes.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import urllib3
from confluent_kafka import Consumer, KafkaException

from benchmarks.command_line import KAFKA, reader
from benchmarks.peers.confluent_kafka.event import event

if TYPE_CHECKING:
    import argparse

_HEADERS = {"Content-Type": "application/json"}
_OK = 200
_WAIT_S = 0.05  # a batch that is not full waits so long


def run(arguments: argparse.Namespace) -> None:
    """Read, make, post, commit; until told to stop."""
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    http = urllib3.PoolManager()
    consumer = Consumer(
        {
            "bootstrap.servers": arguments.servers,
            "group.id": arguments.group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": arguments.session_ms,
            "heartbeat.interval.ms": arguments.session_ms // 3,
            "partition.assignment.strategy": "cooperative-sticky",
        }
    )
    held: set[int] = set()

    def told(assigned: list[Any], revoked: list[Any]) -> None:
        held.difference_update(one.partition for one in revoked)
        held.update(one.partition for one in assigned)
        print(f"assigned {len(held)}", flush=True)

    consumer.subscribe(
        [arguments.topic],
        on_assign=lambda _, partitions: told(partitions, []),
        on_revoke=lambda _, partitions: told([], partitions),
        on_lost=lambda _, partitions: told([], partitions),
    )
    try:
        while not stopping:
            messages = [one for one in consumer.consume(arguments.batch, timeout=_WAIT_S) if not one.error()]
            if not messages:
                continue
            answer = http.request("POST", arguments.url, body=event(arguments.servers, messages), headers=_HEADERS)
            if answer.status != _OK:
                raise SystemExit(f"the function answered {answer.status}")
            try:
                consumer.commit(asynchronous=False)
            except KafkaException as exc:
                print(f"not committed: {exc}", flush=True)
    finally:
        consumer.close()


def main() -> None:
    """Run as a program."""
    parser = reader("Delivers a consumer group's share of a topic.", KAFKA)
    parser.add_argument("--group", required=True)
    parser.add_argument("--session-ms", type=int, required=True)
    run(parser.parse_args())


if __name__ == "__main__":
    main()
