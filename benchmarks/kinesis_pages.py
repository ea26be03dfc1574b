"""A backlog of Kinesis, served as fast as Python can: an HTTP server that knows five calls and one stream.

    python -m benchmarks.kinesis_pages --shards 8 --records N

Prints its URL. The answers are those of Kinesis in every byte that a reader looks at, made before the first call, so
that the reader's CPU is what a round is bound by: kinesis-local needs ten times longer for a record than any reader.
Every shard has the same records. No signatures are checked, no limits kept, nothing can be written.
"""

from __future__ import annotations

import argparse
import base64
import time
from typing import Any

import msgspec
import uvloop

from benchmarks.load_kafka import value
from benchmarks.sink import serve

ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/backlog"

_FIRST = 49590338271490256608559692538361571095921575989136588898
_MAX_RECORDS = 10_000  # of one GetRecords
_APART_US = 1000  # between two records of a shard, which takes a thousand a second at most
_AWAY_MS = 1000  # any number above zero says that there is more
_HASHES = 2**128
_STREAM = {
    "StreamName": ARN.rpartition("/")[2],
    "StreamARN": ARN,
    "StreamStatus": "ACTIVE",
    "StreamModeDetails": {"StreamMode": "PROVISIONED"},
    "RetentionPeriodHours": 24,
    "StreamCreationTimestamp": 1_700_000_000.0,
    "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
    "EncryptionType": "NONE",
}


class Pages:
    """`benchmarks.sink.Takes`: the stream."""

    def __init__(self, shards: int, records: int) -> None:
        self._shards = shards
        now_us, count = time.time_ns() // 1000, records // shards
        self._records = [_record(number, now_us - (count - number) * _APART_US) for number in range(count)]

    def take(self, head: bytes, body: bytes) -> bytes:
        """Answer a call."""
        at = head.lower().find(b"\r\nx-amz-target: kinesis_20131202.")
        operation = head[at + 33 :].split(b"\r\n", 1)[0].decode()
        answer = self._answer(operation, msgspec.json.decode(body))
        return b"HTTP/1.1 %b\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: %d\r\n\r\n%b" % (
            b"200 OK" if answer else b"400 Bad Request", len(answer), answer,
        )  # fmt: skip

    def _answer(self, operation: str, request: dict[str, Any]) -> bytes:
        match operation:
            case "GetRecords":
                return self._page(request["ShardIterator"], request.get("Limit", _MAX_RECORDS))
            case "GetShardIterator":
                place = 0
                if (number := request.get("StartingSequenceNumber")) is not None:
                    place = int(number) - _FIRST + (request["ShardIteratorType"] == "AFTER_SEQUENCE_NUMBER")
                return msgspec.json.encode({"ShardIterator": f"{request['ShardId']}/{place}"})
            case "ListShards":
                return msgspec.json.encode({"Shards": self._shown()})
            case "DescribeStreamSummary":
                return msgspec.json.encode({"StreamDescriptionSummary": {**_STREAM, "OpenShardCount": self._shards}})
            case "DescribeStream":
                shown = {**_STREAM, "Shards": self._shown(), "HasMoreShards": False}
                return msgspec.json.encode({"StreamDescription": shown})
            case _:
                return b""

    def _shown(self) -> list[dict[str, object]]:
        return [_shard(number, self._shards) for number in range(self._shards)]

    def _page(self, iterator: str, limit: int) -> bytes:
        shard, _, place = iterator.partition("/")
        first = int(place)
        found = self._records[first : first + min(limit, _MAX_RECORDS)]
        end = first + len(found)
        away_ms = 0 if end == len(self._records) else _AWAY_MS
        tail = f'],"NextShardIterator":"{shard}/{end}","MillisBehindLatest":{away_ms}}}'
        return b'{"Records":[%b%b' % (b",".join(found), tail.encode())


def _record(number: int, arrived_us: int) -> bytes:
    data = base64.b64encode(value(number, arrived_us)).decode()
    return (
        f'{{"SequenceNumber":"{_FIRST + number}","ApproximateArrivalTimestamp":{arrived_us / 1e6:.3f},'
        f'"Data":"{data}","PartitionKey":"key-{number % 1000}","EncryptionType":"NONE"}}'
    ).encode()


def _shard(number: int, shards: int) -> dict[str, object]:
    first, after = (_HASHES * place // shards for place in (number, number + 1))
    return {
        "ShardId": f"shardId-{number:012}",
        "HashKeyRange": {"StartingHashKey": str(first), "EndingHashKey": str(after - 1)},
        "SequenceNumberRange": {"StartingSequenceNumber": str(_FIRST - 1)},
    }


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description="Serves a backlog of Kinesis records.")
    parser.add_argument("--shards", type=int, required=True)
    parser.add_argument("--records", type=int, required=True)
    arguments = parser.parse_args()
    uvloop.run(serve(Pages(arguments.shards, arguments.records), 0))


if __name__ == "__main__":
    main()
