"""Load for Kafka: a backlog as fast as it goes, or records at a steady rate.

    python -m benchmarks.load_kafka --servers HOST:PORT --topic TOPIC --records N [--rate PER_SECOND]

Values are JSON objects of 230 bytes; every tenth is a click, the others are views. `sent_us` is the moment of sending,
to the microsecond; Kafka's own timestamp is the same to the millisecond. Prints the number sent when all are
acknowledged. Records go round the partitions in turn.
"""

from __future__ import annotations

import argparse
import time

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
    servers: str, topic: str, records: int, *, rate: float | None, partitions: int, kept_one_in: int = KEPT_ONE_IN
) -> None:
    """Send and wait for every acknowledgement."""
    settings = {"bootstrap.servers": servers, "linger.ms": 0 if rate else 20, "acks": "all"}
    producer = Producer({**settings, "queue.buffering.max.messages": 1_000_000, "batch.size": 262_144})
    failed: list[str] = []

    def told(error: object, _message: object) -> None:
        if error is not None:
            failed.append(str(error))

    began = time.monotonic()
    for number in range(records):
        if rate:
            # Sleep to the record's moment: the rate does not drift, whatever a send takes.
            wait_s = began + number / rate - time.monotonic()
            if wait_s > 0:
                producer.poll(0)
                time.sleep(wait_s)
        # One run of a thousand to each partition: a click every tenth everywhere, and large record batches.
        partition = number % partitions if rate else number // 1000 % partitions
        while True:
            try:
                producer.produce(
                    topic, value(number, time.time_ns() // 1000, kept_one_in), partition=partition, on_delivery=told
                )
                break
            except BufferError:
                producer.poll(0.1)
        if not rate and number % 10_000 == 0:
            producer.poll(0)
    left = producer.flush(60)
    if left or failed:
        raise SystemExit(f"{left} not acknowledged, {len(failed)} failed: {failed[:1]}")
    print(records, flush=True)


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description="Sends records to a topic.")
    parser.add_argument("--servers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--records", type=int, required=True)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--kept-one-in", type=int, default=KEPT_ONE_IN, help="how many records are clicks")
    arguments = parser.parse_args()
    send(
        arguments.servers,
        arguments.topic,
        arguments.records,
        rate=arguments.rate,
        partitions=arguments.partitions,
        kept_one_in=arguments.kept_one_in,
    )


if __name__ == "__main__":
    main()
