"""Events of asynchronous invocations, from being accepted until nothing is left to be done for them (spec section 6.3).

The queue they wait in has *partitions*, which are shards of `ASYNC_QUEUE` and leased as all shards are, and in each
partition a *line* for every function that has events there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from model.ids import MappingId, ShardId, ShardKey

ASYNC_QUEUE = MappingId("async-invoke")
"""Stands for a mapping in the names of the queue's shards. No mapping has this id: theirs are UUIDs."""

MAX_EVENT_BYTES = 1024 * 1024
"""The largest event of an asynchronous invocation (spec section 6.1)."""

BESIDES_BYTES = 400
"""About what an event takes in the queue besides its payload."""

_PARTITION = "partition-"


def partition_key(partition: int) -> ShardKey:
    """Return the shard that a partition of the queue is."""
    return ShardKey(ASYNC_QUEUE, ShardId(f"{_PARTITION}{partition}"))


def partition_of(key: ShardKey) -> int:
    """Return the partition that a shard is. Raises ValueError when it is none."""
    if key.mapping != ASYNC_QUEUE or not key.shard.startswith(_PARTITION):
        raise ValueError(f"{key} is no partition of the asynchronous queue")
    return int(key.shard.removeprefix(_PARTITION))


class Condition(StrEnum):
    """What became of an event, in the words of the documents for destinations."""

    SUCCESS = "Success"
    RETRIES_EXHAUSTED = "RetriesExhausted"
    EVENT_AGE_EXCEEDED = "EventAgeExceeded"
    ZERO_RESERVED_CONCURRENCY = "ZeroReservedConcurrency"


@dataclass(frozen=True, slots=True)
class Response:
    """The function's last answer. `payload` is JSON; None when it was too large to be kept for the destination."""

    status: int
    executed_version: str
    function_error: str | None
    payload: bytes | None


@dataclass(frozen=True, slots=True)
class Result:
    """What became of an event: fixed once, so that every attempt to tell a destination says the same."""

    condition: Condition
    at_ms: int  # epoch
    invocations: int
    response: Response | None
    id: str  # UUID: no other object in a bucket has this name


@dataclass(frozen=True, slots=True)
class Standing:
    """How far an event got; kept with it in the queue.

    `deferrals` counts throttles and system errors in a row, or with a `result` the destinations' failures. `told` are
    those destinations that have the result already.
    """

    attempts: int = 0
    deferrals: int = 0
    last: Response | None = None  # of the last attempt, as long as there is no result
    result: Result | None = None
    result_age_s: float = 0.0  # the event's age when there was a result
    told: tuple[str, ...] = ()

    @property
    def kept_bytes(self) -> int:
        """How much of it are the function's answers: bytes."""
        return sum(len(one.payload) for one in (self.last, self._response) if one is not None and one.payload)

    def lean(self) -> Standing:
        """Return it without what the function answered, for when there is no room to keep that."""
        last, result = self.last, self.result
        if last is not None:
            last = replace(last, payload=None)
        if result is not None and result.response is not None:
            result = replace(result, response=replace(result.response, payload=None))
        return replace(self, last=last, result=result)

    @property
    def _response(self) -> Response | None:
        return None if self.result is None else self.result.response


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to be accepted. `line` is the function's name in the configuration, `asked` as the caller gave it."""

    line: str
    asked: str
    request_id: str
    trace: str  # an X-Ray trace header
    payload: bytes

    @property
    def size(self) -> int:
        """What it takes in the queue: bytes, about."""
        return len(self.payload) + BESIDES_BYTES


@dataclass(frozen=True, slots=True)
class QueuedEvent:
    """An event taken from the queue. `id` is unique in its partition and line, `age_s` its age when it was taken."""

    id: str
    event: NewEvent
    age_s: float
    standing: Standing = Standing()

    @property
    def size(self) -> int:
        """What it takes on the node that has it: bytes, about."""
        return self.event.size + self.standing.kept_bytes


@dataclass(frozen=True, slots=True)
class Settled:
    """What is to become of an event that was taken: it is done, or comes again with this standing."""

    line: str
    id: str
    size: int  # of the event, bytes
    again_s: float | None = None  # None: done
    standing: Standing = Standing()
