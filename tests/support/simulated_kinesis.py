"""A Kinesis stream inside the event loop, in its time: shards that split, merge and expire, with seeded trouble.

It answers the calls that `pollers.sources.kinesis_api` makes, in AWS's JSON, so everything from the parsing upwards is
the product's own. A record goes to the open shard whose hash key range has its partition key's MD5; sequence numbers
rise over the whole stream, so a child begins after everything that its parents hold.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from email.utils import formatdate
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from invocation.classify import Answer, Failure, FailureKind
from tests.support.kpl_encoding import User, encode
from tests.support.virtual_loop import true_time

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from random import Random

ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/storm"
_HASHES = 2**128
_FIRST_NUMBER = 10**55
PAGE = 40  # records in an answer: small, so that a backlog takes several
_ITERATOR_S = 300.0  # how long an iterator is good for
_ERROR, _SERVER_ERROR, _OK = 400, 500, 200


@dataclass(slots=True)
class SimulatedShard:
    """One shard. Times are event-loop time."""

    id: str
    low: int  # hash key range, both included
    high: int
    begins: int  # sequence number
    parents: tuple[str, ...] = ()
    listed_at: float = 0.0
    closed_at: float | None = None
    ends: int | None = None
    numbers: list[int] = field(default_factory=list)  # sequence numbers
    rows: list[dict[str, Any]] = field(default_factory=list)
    carried: list[tuple[str, int]] = field(default_factory=list)  # (partition key, its number) of each record

    def place_after(self, number: int) -> int | None:
        """Return the place behind a sequence number; None if it is none of this shard's."""
        if not self.begins <= number <= (self.ends or number):
            return None
        return bisect_right(self.numbers, number)

    def place_from(self, epoch_s: float) -> int:
        """Return the place of the first record that arrived at a time or later."""
        arrivals = (row["ApproximateArrivalTimestamp"] for row in self.rows)
        return next((place for place, at in enumerate(arrivals) if at >= epoch_s), len(self.rows))

    def row(self) -> dict[str, Any]:
        """Return the shard as ListShards has it."""
        parents = [*self.parents, None, None]
        return {
            "ShardId": self.id,
            "ParentShardId": parents[0],
            "AdjacentParentShardId": parents[1],
            "HashKeyRange": {"StartingHashKey": str(self.low), "EndingHashKey": str(self.high)},
            "SequenceNumberRange": {
                "StartingSequenceNumber": str(self.begins),
                "EndingSequenceNumber": None if self.ends is None else str(self.ends),
            },
        }


@dataclass(frozen=True, slots=True)
class Trouble:
    """How often a call goes wrong, and how late new shards show in the list."""

    throttled: float = 0.01
    failed: float = 0.004
    unanswered: float = 0.002
    expired: float = 0.003  # iterators
    slow: float = 0.01
    slow_s: float = 3.0
    listed_late_s: float = 3.0


class SimulatedStream:
    """The stream. `call` is `pollers.sources.kinesis_api.Caller`."""

    def __init__(self, random: Random, *, shards: int = 3, retention_s: float = 180.0, trouble: Trouble) -> None:
        self._random = random
        self.trouble = trouble
        self._retention_s = retention_s  # of a closed shard
        self._epoch_s = time.time() - true_time()
        self._number = _FIRST_NUMBER
        self.all: dict[str, SimulatedShard] = {}
        self.written: Counter[str] = Counter()  # per partition key
        self.calls: Counter[str] = Counter()
        bounds = [_HASHES * place // shards for place in range(shards + 1)]
        for low, after in pairwise(bounds):
            self._open(low, after - 1, (), late_s=0.0)

    # --- what happens to the stream ----------------------------------------------------------------------------------

    def open_shards(self) -> list[SimulatedShard]:
        """Return the open shards by hash key."""
        return sorted((shard for shard in self.all.values() if shard.ends is None), key=lambda shard: shard.low)

    def put(self, key: str) -> SimulatedShard:
        """Write the key's next record; return where it went."""
        ((_, data),) = self._next_of(shard := self._shard_of(key), [key])
        self._append(shard, key, data)
        return shard

    def put_packed(self, keys: Sequence[str]) -> SimulatedShard:
        """Write the next record of each key in one aggregate, of those whose shard is the first one's; return that."""
        shard = self._shard_of(keys[0])
        packed = self._next_of(shard, [key for key in keys if self._shard_of(key) is shard])
        self._append(shard, keys[0], encode([User(key, None, data) for key, data in packed]))
        return shard

    def _shard_of(self, key: str) -> SimulatedShard:
        place = int.from_bytes(hashlib.md5(key.encode(), usedforsecurity=False).digest(), "big")
        (shard,) = (shard for shard in self.all.values() if shard.ends is None and shard.low <= place <= shard.high)
        return shard

    def _next_of(self, shard: SimulatedShard, keys: Sequence[str]) -> list[tuple[str, bytes]]:
        made = []
        for key in keys:
            number = self.written[key]
            self.written[key] += 1
            shard.carried.append((key, number))
            made.append((key, f"{key}:{number}".encode()))
        return made

    def _append(self, shard: SimulatedShard, key: str, data: bytes) -> None:
        shard.numbers.append(self._next_number())
        shard.rows.append(
            {
                "SequenceNumber": str(shard.numbers[-1]),
                "Data": base64.b64encode(data).decode(),
                "PartitionKey": key,
                "ApproximateArrivalTimestamp": self._epoch_s + true_time(),
            }
        )

    def split(self, shard: SimulatedShard) -> None:
        """Split a shard somewhere in its middle half."""
        width = shard.high - shard.low
        middle = shard.low + width // 4 + self._random.randrange(width // 2)
        late_s = self._close(shard)
        self._open(shard.low, middle, (shard.id,), late_s=late_s)
        self._open(middle + 1, shard.high, (shard.id,), late_s=late_s)

    def merge(self, left: SimulatedShard, right: SimulatedShard) -> None:
        """Merge two neighbours."""
        assert left.high + 1 == right.low
        late_s = max(self._close(left), self._close(right))
        self._open(left.low, right.high, (left.id, right.id), late_s=late_s)

    def disturb(self, *, most: int = 7) -> None:
        """Split or merge somewhere."""
        shards = self.open_shards()
        if len(shards) == 1 or (len(shards) < most and self._random.random() < 0.5):
            self.split(self._random.choice(shards))
        else:
            place = self._random.randrange(len(shards) - 1)
            self.merge(shards[place], shards[place + 1])

    def _open(self, low: int, high: int, parents: tuple[str, ...], *, late_s: float) -> None:
        name = f"shardId-{len(self.all):012}"
        listed_at = max([true_time() + late_s, *(self.all[parent].listed_at for parent in parents)])
        self.all[name] = SimulatedShard(name, low, high, self._next_number(), parents, listed_at)

    def _close(self, shard: SimulatedShard) -> float:
        shard.closed_at = true_time()
        shard.ends = self._next_number()
        return self._random.uniform(0, self.trouble.listed_late_s)

    def _next_number(self) -> int:
        self._number += self._random.randint(1, 1000)
        return self._number

    def kept(self, shard: SimulatedShard) -> bool:
        """Whether the shard's records are still there."""
        return shard.closed_at is None or true_time() < shard.closed_at + self._retention_s

    def now_s(self) -> float:
        """Return the epoch seconds by the stream's clock."""
        return self._epoch_s + true_time()

    def behind_ms(self, shard: SimulatedShard, place: int) -> int:
        """Tell how far a reader is behind that has read everything before a place."""
        if place == len(shard.rows):
            return 0
        now_s = self._epoch_s + true_time()
        behind_s = max(0.001, now_s - shard.rows[place]["ApproximateArrivalTimestamp"])
        return int(behind_s * 1000 + 0.5)

    # --- the calls ---------------------------------------------------------------------------------------------------

    async def call(
        self, region: str, operation: str, body: bytes, *, timeout_s: float, max_answer_bytes: int
    ) -> Answer | Failure:
        """Answer one call after a while, perhaps with an error."""
        await asyncio.sleep(self.latency_s())
        return self.answer(operation, body)

    def answer(self, operation: str, body: bytes) -> Answer | Failure:
        """Answer one call, perhaps with an error."""
        name = operation.rpartition(".")[2]
        self.calls[name] += 1
        error = self.accident(name)
        if error is not None:
            self.calls[f"{name} went wrong"] += 1
            return error
        handlers: dict[str, Callable[[dict[str, Any]], Answer]] = {
            "ListShards": self._list_shards,
            "GetShardIterator": self._iterator,
            "GetRecords": self._get_records,
            "DescribeStreamSummary": self._describe,
        }
        return handlers[name](json.loads(body))

    def latency_s(self) -> float:
        """Draw how long a call takes."""
        if self._random.random() < self.trouble.slow:
            return self._random.uniform(0.5, self.trouble.slow_s)
        return self._random.uniform(0.005, 0.04)

    def accident(self, name: str) -> Answer | Failure | None:
        """Draw what goes wrong with a call, if anything."""
        drawn = self._random.random()
        if drawn < self.trouble.throttled:
            listing = name == "ListShards"
            return refused("LimitExceededException" if listing else "ProvisionedThroughputExceededException")
        drawn -= self.trouble.throttled
        if drawn < self.trouble.failed:
            return refused("InternalFailure", _SERVER_ERROR)
        drawn -= self.trouble.failed
        if drawn < self.trouble.unanswered:
            return Failure(FailureKind.LOST_AFTER_SENT)
        drawn -= self.trouble.unanswered
        if name == "GetRecords" and drawn < self.trouble.expired:
            return refused("ExpiredIteratorException")
        return None

    def _list_shards(self, _request: dict[str, Any]) -> Answer:
        now = true_time()
        document = {
            "Shards": [shard.row() for shard in self.all.values() if shard.listed_at <= now and self.kept(shard)]
        }
        return _says(document, {"Date": formatdate(self._epoch_s + now, usegmt=True)})

    def _iterator(self, request: dict[str, Any]) -> Answer:
        shard = self.all[request["ShardId"]]
        if not self.kept(shard):
            return refused("ResourceNotFoundException")
        if request["ShardIteratorType"] == "AFTER_SEQUENCE_NUMBER":
            found = shard.place_after(int(request["StartingSequenceNumber"]))
            if found is None:
                return refused("InvalidArgumentException")
            place = found
        elif request["ShardIteratorType"] == "AT_TIMESTAMP":
            place = shard.place_from(request["Timestamp"])
        else:
            assert request["ShardIteratorType"] == "TRIM_HORIZON"
            place = 0
        return _says({"ShardIterator": self._iterator_at(shard, place)})

    def _iterator_at(self, shard: SimulatedShard, place: int) -> str:
        return f"{shard.id} {place} {true_time() + _ITERATOR_S}"

    def _get_records(self, request: dict[str, Any]) -> Answer:
        name, place, expires_at = request["ShardIterator"].split(" ")
        shard, first = self.all[name], int(place)
        if not self.kept(shard):
            return refused("ResourceNotFoundException")
        if true_time() > float(expires_at):
            return refused("ExpiredIteratorException")
        rows = shard.rows[first : first + min(PAGE, request["Limit"])]
        after = first + len(rows)
        over = shard.ends is not None and after == len(shard.rows)
        return _says(
            {
                "Records": rows,
                "NextShardIterator": None if over else self._iterator_at(shard, after),
                "MillisBehindLatest": self.behind_ms(shard, after),
            }
        )

    def _describe(self, _request: dict[str, Any]) -> Answer:
        return _says({"StreamDescriptionSummary": {"RetentionPeriodHours": 24}})


def _says(document: object, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(_OK, headers or {}, json.dumps(document).encode())


def refused(code: str, status: int = _ERROR) -> Answer:
    """Make an error answer."""
    return Answer(status, {}, json.dumps({"__type": code, "message": "by seed"}).encode())
