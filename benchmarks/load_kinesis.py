"""Load for Kinesis: records at a steady rate.

    python -m benchmarks.load_kinesis --endpoint URL --stream ARN --shards 8 --records N --rate PER_SECOND

The values are those of `benchmarks.load_kafka`. Every PutRecords goes to one shard, the shards take turns. Twenty
requests go out a second, each with the records that are due; `sent_us` is the moment before the request. Prints
the number sent when all are acknowledged.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

import botocore.session

from benchmarks.load_kafka import KEPT_ONE_IN, value

if TYPE_CHECKING:
    from collections.abc import Sequence

_HASHES = 2**128
_REQUESTS_PER_S = 20


def client(endpoint: str, region: str) -> Any:
    """Return AWS's own blocking client, of a server that takes any credentials."""
    session = botocore.session.get_session()
    session.set_credentials("test", "test")
    return session.create_client("kinesis", endpoint_url=endpoint, region_name=region)


def put(kinesis: Any, stream: str, shard: int, shards: int, values: Sequence[bytes]) -> None:
    """Write to the shard whose range of hash keys comes in this place."""
    place = str(_HASHES // shards * shard + 1)
    entries = [{"PartitionKey": f"key-{shard}", "ExplicitHashKey": place, "Data": one} for one in values]
    answer = kinesis.put_records(StreamARN=stream, Records=entries)
    if answer["FailedRecordCount"]:
        raise SystemExit(f"{answer['FailedRecordCount']} of {len(entries)} records failed")


def send(kinesis: Any, stream: str, records: int, *, rate: float, shards: int, kept_one_in: int) -> None:
    """Send, each request after the last one's answer."""
    began = time.monotonic()
    size = max(1, round(rate / _REQUESTS_PER_S))
    for request, first in enumerate(range(0, records, size)):
        numbers = range(first, min(records, first + size))
        # Sleep to the moment of the last of them: the rate does not drift, whatever a request takes.
        time.sleep(max(0.0, began + numbers[-1] / rate - time.monotonic()))
        sent_us = time.time_ns() // 1000
        put(kinesis, stream, request % shards, shards, [value(number, sent_us, kept_one_in) for number in numbers])
    print(records, flush=True)


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description="Sends records to a stream.")
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--stream", required=True, help="its ARN")
    parser.add_argument("--shards", type=int, required=True)
    parser.add_argument("--records", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--kept-one-in", type=int, default=KEPT_ONE_IN, help="how many records are clicks")
    arguments = parser.parse_args()
    send(
        client(arguments.endpoint, arguments.stream.split(":")[3]),
        arguments.stream,
        arguments.records,
        rate=arguments.rate,
        shards=arguments.shards,
        kept_one_in=arguments.kept_one_in,
    )


if __name__ == "__main__":
    main()
