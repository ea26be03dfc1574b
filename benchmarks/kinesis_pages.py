"""A backlog of Kinesis, served as fast as Python can: an HTTP server that knows five calls and one stream.

    python -m benchmarks.kinesis_pages --shards 8 --records N

Prints its URL. The answers are those of Kinesis in every byte that a reader looks at, made before the first call
(CBOR's: in the first such call), so that the reader's CPU is what a round is bound by: kinesis-local needs ten times
longer for a record than any reader. Every shard has the same records. Answers are JSON, or CBOR to those who send it.
No signatures are checked, no limits kept, nothing can be written.
"""

from __future__ import annotations

import argparse
import base64
import time
from functools import cached_property
from typing import Any

import msgspec
import uvloop

from benchmarks import cbor
from benchmarks.load_kafka import value
from benchmarks.sink import serve

ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/backlog"

_FIRST = 49590338271490256608559692538361571095921575989136588898
_MAX_RECORDS = 10_000  # of one GetRecords
_APART_US = 1000  # between two records of a shard, which takes a thousand a second at most
_AWAY_MS = 1000  # any number above zero says that there is more
_HASHES = 2**128
_CREATED_MS = 1_700_000_000_000
_STREAM = {
    "StreamName": ARN.rpartition("/")[2],
    "StreamARN": ARN,
    "StreamStatus": "ACTIVE",
    "StreamModeDetails": {"StreamMode": "PROVISIONED"},
    "RetentionPeriodHours": 24,
    "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
    "EncryptionType": "NONE",
}


class Pages:
    """`benchmarks.sink.Takes`: the stream."""

    def __init__(self, shards: int, records: int) -> None:
        self._shards = shards
        self._count = records // shards
        self._now_us = time.time_ns() // 1000
        self._json = _Json([_json_record(*self._made(number)) for number in range(self._count)])

    @cached_property
    def _cbor(self) -> _Cbor:
        """The same for Java's clients; made when the first of them calls."""
        return _Cbor([_cbor_record(*self._made(number)) for number in range(self._count)])

    def _made(self, number: int) -> tuple[int, int, bytes]:
        """Return a record's number, its arrival in epoch microseconds, and its data."""
        arrived_us = self._now_us - (self._count - number) * _APART_US
        return number, arrived_us, value(number, arrived_us)

    def take(self, head: bytes, body: bytes) -> bytes:
        """Answer a call."""
        lower = head.lower()
        at = lower.find(b"\r\nx-amz-target: kinesis_20131202.")
        operation = head[at + 33 :].split(b"\r\n", 1)[0].decode()
        wire = self._cbor if b"application/x-amz-cbor" in lower else self._json
        answer = self._answer(operation, wire.decode(body), wire)
        return b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (
            b"200 OK" if answer else b"400 Bad Request", wire.content_type, len(answer), answer,
        )  # fmt: skip

    def _answer(self, operation: str, request: dict[str, Any], wire: _Json | _Cbor) -> bytes:
        match operation:
            case "GetRecords":
                shard, _, place = request["ShardIterator"].partition("/")
                first = int(place)
                found = wire.records[first : first + min(request.get("Limit", _MAX_RECORDS), _MAX_RECORDS)]
                end = first + len(found)
                return wire.page(found, f"{shard}/{end}", 0 if end == self._count else _AWAY_MS)
            case "GetShardIterator":
                at = 0
                if (number := request.get("StartingSequenceNumber")) is not None:
                    at = int(number) - _FIRST + (request["ShardIteratorType"] == "AFTER_SEQUENCE_NUMBER")
                return wire.encode({"ShardIterator": f"{request['ShardId']}/{at}"})
            case "ListShards":
                return wire.encode({"Shards": self._shown()})
            case "DescribeStreamSummary":
                shown = {**_STREAM, "StreamCreationTimestamp": wire.created, "OpenShardCount": self._shards}
                return wire.encode({"StreamDescriptionSummary": shown})
            case "DescribeStream":
                shown = {**_STREAM, "StreamCreationTimestamp": wire.created}
                return wire.encode({"StreamDescription": {**shown, "Shards": self._shown(), "HasMoreShards": False}})
            case _:
                return b""

    def _shown(self) -> list[dict[str, object]]:
        return [_shard(number, self._shards) for number in range(self._shards)]


class _Json:
    """What most clients speak."""

    content_type = b"application/x-amz-json-1.1"
    created = _CREATED_MS / 1000

    def __init__(self, records: list[bytes]) -> None:
        self.records = records

    def encode(self, answer: dict[str, Any]) -> bytes:
        return msgspec.json.encode(answer)

    def decode(self, body: bytes) -> dict[str, Any]:
        request: dict[str, Any] = msgspec.json.decode(body)
        return request

    def page(self, found: list[bytes], following: str, away_ms: int) -> bytes:
        tail = f'],"NextShardIterator":"{following}","MillisBehindLatest":{away_ms}}}'
        return b'{"Records":[%b%b' % (b",".join(found), tail.encode())


class _Cbor:
    """What Java's clients speak."""

    content_type = b"application/x-amz-cbor-1.1"
    created = cbor.Moment(_CREATED_MS)

    def __init__(self, records: list[bytes]) -> None:
        self.records = records

    def encode(self, answer: dict[str, Any]) -> bytes:
        return cbor.encode(answer)

    def decode(self, body: bytes) -> dict[str, Any]:
        request: dict[str, Any] = cbor.decode(body)
        return request

    def page(self, found: list[bytes], following: str, away_ms: int) -> bytes:
        parts = [cbor.map_head(3), cbor.encode("Records"), cbor.array_head(len(found)), *found]
        more = ("NextShardIterator", following, "MillisBehindLatest", away_ms)
        return b"".join([*parts, *map(cbor.encode, more)])


def _json_record(number: int, arrived_us: int, data: bytes) -> bytes:
    return (
        f'{{"SequenceNumber":"{_FIRST + number}","ApproximateArrivalTimestamp":{arrived_us / 1e6:.3f},'
        f'"Data":"{base64.b64encode(data).decode()}","PartitionKey":"key-{number % 1000}","EncryptionType":"NONE"}}'
    ).encode()


def _cbor_record(number: int, arrived_us: int, data: bytes) -> bytes:
    return cbor.encode(
        {
            "SequenceNumber": str(_FIRST + number),
            "ApproximateArrivalTimestamp": cbor.Moment(arrived_us // 1000),
            "Data": data,
            "PartitionKey": f"key-{number % 1000}",
            "EncryptionType": "NONE",
        }
    )


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
