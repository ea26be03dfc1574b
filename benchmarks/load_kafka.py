"""Load for Kafka: a backlog as fast as it goes, or records at a steady rate.

    python -m benchmarks.load_kafka --servers HOST:PORT --topic TOPIC --records N [--rate PER_SECOND] [--acks FILE]

Values are JSON objects of 230 bytes; every tenth is a click, the others are views. `sent_us` is the moment of sending,
to the microsecond; Kafka's own timestamp is the same to the millisecond. Prints the number sent when all are
acknowledged. Records go round the partitions in turn. With `--acks` a file gets a line for each record: partition,
offset, and when its acknowledgement was heard of, epoch microseconds.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

VALUE_BYTES = 230
KEPT = "click"
KEPT_ONE_IN = 10


def value(number: int, sent_us: int, kept_one_in: int = KEPT_ONE_IN) -> bytes:
    """Make one value; `sent_us` has 16 digits until the year 2286."""
    kind = KEPT if number % kept_one_in == 0 else "view"
    user = '{"name":"Jane Doe","country":"NZ"}'
    head = f'{{"id":"{number:012}","type":"{kind}","sent_us":{sent_us},"user":{user},"note":"'
    return f'{head}{"x" * (VALUE_BYTES - len(head) - 2)}"}}'.encode()


def send(
    servers: str,
    topic: str,
    records: int,
    *,
    rate: float | None,
    partitions: int,
    kept_one_in: int = KEPT_ONE_IN,
    acks: Path | None = None,
) -> None:
    """Send and wait for every acknowledgement."""
    settings = {"bootstrap.servers": servers, "linger.ms": 0 if rate else 20, "acks": "all"}
    producer = Producer({**settings, "queue.buffering.max.messages": 1_000_000, "batch.size": 262_144})
    answers = Answers(kept=acks is not None)
    began = time.monotonic()
    for number in range(records):
        # To the record's moment: the rate does not drift, whatever a send takes. Polling, so that acknowledgements are
        # heard of when they come.
        while rate and (wait_s := began + number / rate - time.monotonic()) > 0:
            producer.poll(wait_s)
        # One run of a thousand to each partition: a click every tenth everywhere, and large record batches.
        partition = number % partitions if rate else number // 1000 % partitions
        while True:
            try:
                shown = value(number, time.time_ns() // 1000, kept_one_in)
                producer.produce(topic, shown, partition=partition, on_delivery=answers.told)
                break
            except BufferError:
                producer.poll(0.1)
        if not rate and number % 10_000 == 0:
            producer.poll(0)
    left = producer.flush(60)
    if left or answers.failed:
        raise SystemExit(f"{left} not acknowledged, {len(answers.failed)} failed: {answers.failed[:1]}")
    if acks is not None:
        acks.write_text("".join(f"{line}\n" for line in answers.heard))
    print(records, flush=True)


class Answers:
    """What the broker said of records; of those acknowledged a line each, if they are kept."""

    def __init__(self, *, kept: bool) -> None:
        self.failed: list[str] = []
        self.heard: list[str] = []
        self._kept = kept

    def told(self, error: object, message: Any) -> None:
        """Take an answer."""
        if error is not None:
            self.failed.append(str(error))
        elif self._kept:
            self.heard.append(f"[{message.partition()},{message.offset()},{time.time_ns() // 1000}]")


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description="Sends records to a topic.")
    parser.add_argument("--servers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--records", type=int, required=True)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--kept-one-in", type=int, default=KEPT_ONE_IN, help="how many records are clicks")
    parser.add_argument("--acks", type=Path)
    arguments = parser.parse_args()
    send(
        arguments.servers,
        arguments.topic,
        arguments.records,
        rate=arguments.rate,
        partitions=arguments.partitions,
        kept_one_in=arguments.kept_one_in,
        acks=arguments.acks,
    )


if __name__ == "__main__":
    main()
