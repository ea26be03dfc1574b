"""Brokers as fetches see them, to the byte: sessions after KIP-227, leaders that change, requests that get lost.

`FetchBrokers` stands in for aiokafka's client below its fetcher. Requests are encoded and read again, answers too, in
the version that `version` says. A fetch that finds no records waits for some as long as it may. An answer has as many
whole batches as the request has bytes for, and at least one; within a session those that brought some come last in the
next one, as in Kafka's `FetchSession`.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol import fetch
from aiokafka.record.default_records import DefaultRecordBatchBuilder

if TYPE_CHECKING:
    from collections.abc import Callable


NOT_LEADER = 6
SESSION_NOT_FOUND = 70
EPOCH_INVALID = 71


@dataclass(frozen=True, slots=True)
class Context:
    """What a request is for: places by partition, in which session. With an error: nothing."""

    session_id: int
    places: dict[int, int]
    error: int = 0


@dataclass(slots=True)
class _Session:
    epoch: int  # of the next request
    places: dict[int, int]


class SessionCache:
    """A broker's fetch sessions. Without `room` it gives none."""

    def __init__(self, *, room: bool = True) -> None:
        self.room = room
        self.sessions: dict[int, _Session] = {}
        self._numbers = 0

    def take(self, session_id: int, epoch: int, changed: dict[int, int], forgotten: set[int]) -> Context:
        """Do what the request says of its session."""
        if epoch <= 0:
            self.sessions.pop(session_id, None)
            if epoch < 0 or not self.room:
                return Context(0, changed)
            self._numbers += 1
            self.sessions[self._numbers] = _Session(1, dict(changed))
            return Context(self._numbers, changed)
        session = self.sessions.get(session_id)
        if session is None:
            return Context(0, {}, SESSION_NOT_FOUND)
        if session.epoch != epoch:
            return Context(0, {}, EPOCH_INVALID)
        session.epoch = epoch + 1
        session.places = {p: at for p, at in (session.places | changed).items() if p not in forgotten}
        return Context(session_id, dict(session.places))

    def forget(self) -> None:
        """Lose every session, as when others push them out or the broker restarts."""
        self.sessions.clear()


@dataclass(slots=True)
class _Node:
    cache: SessionCache = field(default_factory=SessionCache)
    reported: dict[tuple[int, int], int] = field(default_factory=dict)  # end by session and partition


class FetchBrokers:
    """Nodes that lead the partitions of one topic."""

    def __init__(self, topic: str, leaders: dict[int, int], *, version: int = 11) -> None:
        self.topic = topic
        self.leaders = leaders  # what is so
        self.known = dict(leaders)  # what the client's metadata says; -1: nobody
        self.version = version
        self.logs: dict[int, list[bytes]] = {partition: [] for partition in leaders}
        self.nodes = {node: _Node() for node in leaders.values()}
        self.requests: list[tuple[int, Any]] = []  # node and what it was asked
        self.lose: Callable[[], str] = lambda: ""  # "request" or "answer"
        self.updates = 0  # of the metadata, asked for
        self.cluster = SimpleNamespace(
            leader_for_partition=lambda partition: self.known.get(partition.partition),
            add_listener=self._listen,
        )
        self._listeners: list[Callable[[Any], None]] = []
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._metadata_max_age_ms = 60_000

    def _listen(self, listener: Callable[[Any], None]) -> None:
        self._listeners.append(listener)

    def append(self, partition: int, value: bytes) -> None:
        """Write a record, a batch of its own."""
        self.logs[partition].append(value)
        self._wake()

    def lead(self, partition: int, node: int) -> None:
        """Change the leader; the client's metadata do not say so yet."""
        self.leaders[partition] = node
        self._wake()

    def force_metadata_update(self) -> asyncio.Future[bool]:
        """Let the client know what is so."""
        self.updates += 1
        self.known = dict(self.leaders)
        for listener in self._listeners:
            listener(self.cluster)
        done = self._loop.create_future()
        done.set_result(True)
        return done

    async def send(self, node_id: int, request: Any) -> Any:
        """Carry a fetch there and its answer back."""
        struct = request.build(getattr(fetch, f"FetchRequest_v{self.version}"))
        arrived = type(struct).decode(io.BytesIO(struct.encode()))
        lost = self.lose()
        if lost == "request":
            await asyncio.sleep(0)
            raise KafkaConnectionError("lost")
        self.requests.append((node_id, arrived))
        answer = await self._answered(node_id, arrived)
        if lost == "answer":
            raise KafkaConnectionError("lost")
        await asyncio.sleep(0)
        return struct.RESPONSE_TYPE.decode(io.BytesIO(answer))

    async def _answered(self, node_id: int, request: Any) -> bytes:
        node = self.nodes[node_id]
        changed = {part[0]: part[-3 if self.version >= 5 else -2] for _, parts in request.topics for part in parts}
        if self.version >= 7:
            forgotten = {number for _, numbers in request.forgotten_topics_data for number in numbers}
            context = node.cache.take(request.session_id, request.session_epoch, changed, forgotten)
            incremental = request.session_epoch > 0
        else:
            context, incremental = Context(0, changed), False
        until = self._loop.time() + request.max_wait_time / 1000
        while True:
            parts = self._parts(node_id, context.places, request)
            if incremental:
                parts = [part for part in parts if self._to_say(node, context.session_id, part)]
            wait_s = until - self._loop.time()
            if context.error or wait_s < 0.001 or any(part[1] or part[-1] for part in parts):
                break
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), wait_s)
        session = node.cache.sessions.get(context.session_id)
        if session is not None:
            brought = {part[0] for part in parts if part[-1]}
            session.places = dict(sorted(session.places.items(), key=lambda place: place[0] in brought))
        for part in parts:
            node.reported[context.session_id, part[0]] = -1 if part[1] else part[2]
        head = (0, context.error, context.session_id) if self.version >= 7 else (0,)
        struct: bytes = getattr(fetch, f"FetchResponse_v{self.version}")(*head, [(self.topic, parts)]).encode()
        return struct

    def _parts(self, node_id: int, places: dict[int, int], request: Any) -> list[tuple[Any, ...]]:
        parts = []
        size = 0
        for partition, offset in places.items():
            room = request.max_bytes - size
            parts.append(self._part(node_id, partition, offset, room=room, at_least=0 if size else 1))
            size += len(parts[-1][-1])
        return parts

    def _part(self, node_id: int, partition: int, offset: int, *, room: int, at_least: int) -> tuple[Any, ...]:
        """Return the answer's part for a partition: at most three records."""
        log = self.logs[partition]
        error = 0 if self.leaders[partition] == node_id else NOT_LEADER
        batches = [] if error else [_batch(at, log[at]) for at in range(offset, min(offset + 3, len(log)))]
        while len(batches) > at_least and sum(map(len, batches)) > room:
            batches.pop()
        records = b"".join(batches)
        begin = (0,) if self.version >= 5 else ()
        replica = (-1,) if self.version >= 11 else ()
        return (partition, error, len(log), len(log), *begin, [], *replica, records)

    def _to_say(self, node: _Node, session_id: int, part: tuple[Any, ...]) -> bool:
        """Tell whether an answer within a session names the partition."""
        return bool(part[1] or part[-1]) or node.reported.get((session_id, part[0])) != part[2]

    def _wake(self) -> None:
        self._changed.set()


def _batch(offset: int, value: bytes) -> bytes:
    """Return a record batch of one."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1,
        batch_size=1 << 20,
    )  # fmt: skip
    builder.append(0, 1, None, value, [])
    made = bytearray(builder.build())
    made[:8] = offset.to_bytes(8, "big")  # not covered by the checksum
    return bytes(made)
