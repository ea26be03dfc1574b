"""aiokafka's fetcher, with a fetch session per broker and a plan that does not mind many partitions.

Requests, answers and their decoding stay aiokafka's. What is ours: which partitions a fetch is for, that a request
names only what has changed since the last one to that broker (`kafka_fetch_session`), and what a record is in memory.
Seen in aiokafka 0.14, and relied on beside what `kafka_client` says:

- `_get_actions_per_node` is all there is of planning; `_records` are the answers' parts that are not taken yet, or
  errors. A part's `_partition_records._records` has the bytes it came as, its `_consumer_record` makes a record of a
  partition from what was decoded, when it is taken. A partition's state has `_position` and `_paused`.
- A request is built once the connection's versions are known, and then sent at once; its struct's RESPONSE_TYPE reads
  the answer, if anyone still waits for it. `topics` of the request are looked at after that, for the offsets asked for.
- What the fetcher does with an answer is the same whether it names all partitions or some.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any

import msgspec
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.protocol.fetch import FetchRequest

from pollers.sources.kafka_fetch_session import FetchSession

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aiokafka import TopicPartition

_FIRST_VERSION = 7  # of the fetch request that knows sessions: Kafka 1.1

_FOREIGN = -1  # no partition of ours
_LEAST_BYTES = 32 * 1024  # of an answer, however much is held: somebody may wait for just that

_Assigned = dict[int, list[tuple[int, Any]]]  # by leader: partitions, and aiokafka's state of each


class KafkaRecord(msgspec.Struct, gc=False):
    """A record, by the names of aiokafka's `ConsumerRecord`, which takes four times as long to make."""

    topic: str
    partition: int
    offset: int
    timestamp: int | None
    timestamp_type: int | None
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class SessionFetcher(Fetcher):  # type: ignore[misc]  # aiokafka ships no types
    """Fetches the assigned partitions of one topic, positions of which are always known.

    What is fetched and not taken yet has `hold_max_bytes` at most, an equal share of them for each broker, and beyond
    that only the least that a fetch can bring. So one may bring large record batches of many partitions, however many
    there are.
    """

    def __init__(self, topic: str, client: Any, subscriptions: Any, *, hold_max_bytes: int, **options: Any) -> None:
        super().__init__(client, subscriptions, **options)
        self._topic = topic
        self._hold_max_bytes = hold_max_bytes
        self._sessions: dict[int, FetchSession] = {}
        self._leaders: _Assigned | None = None  # of the assignment below; None: to be looked up
        self._leaders_of: Any = None
        client.cluster.add_listener(self._forget_leaders)

    def seek_to(self, tp: TopicPartition, offset: int) -> None:
        """Change a place, maybe of a new assignment, which knows nothing of the ends of its partitions.

        The answer that tells them may be under way and is then thrown away; a session would not tell them again.
        """
        for session in self._sessions.values():
            session.begin_anew()
        super().seek_to(tp, offset)

    def heard_ms(self, partition: TopicPartition) -> int | None:
        """Return the wall clock of the last answer that had nothing new about a partition; None without one."""
        session = self._sessions.get(self._client.cluster.leader_for_partition(partition))
        return None if session is None else session.heard_ms(partition.partition)

    def _get_actions_per_node(self, assignment: Any) -> tuple[list[Any], dict[int, Any], float, bool, list[Any]]:
        """Plan: one fetch to each broker without one under way, for all it leads that is neither held here nor paused.

        As in aiokafka a broker is left alone for a moment while something it sent is not taken.
        """
        leaders = self._by_leader(assignment)
        held: dict[int, set[int]] = {}
        held_bytes: dict[int, int] = {}
        timeout_s: dict[int, float] = {}
        for partition, part in self._records.items():
            leader = self._client.cluster.leader_for_partition(partition)
            held.setdefault(leader, set()).add(partition.partition)
            held_bytes[leader] = held_bytes.get(leader, 0) + _bytes_of(part)
            timeout_s[leader] = max(timeout_s.get(leader, 0.0), part.calculate_backoff())
        requests = []
        for node, states in leaders.items():
            if node in self._in_flight or timeout_s.get(node):
                continue
            # Past the properties, which double what a plan for a thousand partitions costs.
            wanted = {number: state._position for number, state in states if not state._paused}  # noqa: SLF001 - said above
            for number in held.get(node, ()):
                wanted.pop(number, None)
            if wanted:
                room = self._hold_max_bytes // len(leaders) - held_bytes.get(node, 0)
                max_bytes = max(_LEAST_BYTES, min(self._fetch_max_bytes, room))
                requests.append((node, self._request(node, wanted, max_bytes)))
        waits = [wait_s for wait_s in timeout_s.values() if wait_s]
        leaderless = sum(map(len, leaders.values())) < len(assignment.tps)
        return requests, {}, min(waits, default=self._fetcher_timeout), leaderless, []

    async def _proc_fetch_request(self, assignment: Any, node_id: int, request: SessionFetchRequest) -> bool:
        """Carry a fetch out; rest before the next one when the broker refused even one that named everything."""
        arrived: bool = await super()._proc_fetch_request(assignment, node_id, request)
        for part in self._records.values():
            if (fetched := _fetched(part)) is not None:
                fetched._consumer_record = _record  # noqa: SLF001  # said above
        if request.refused:
            await asyncio.sleep(self._retry_backoff)
        return arrived

    def _by_leader(self, assignment: Any) -> _Assigned:
        """Return what each broker leads, as of the last metadata."""
        if self._leaders is None or self._leaders_of is not assignment:
            found: _Assigned = {}
            for partition in assignment.tps:
                leader = self._client.cluster.leader_for_partition(partition)
                if leader is not None and leader != -1:
                    found.setdefault(leader, []).append((partition.partition, assignment.state_value(partition)))
            self._leaders, self._leaders_of = found, assignment
        return self._leaders

    def _forget_leaders(self, _cluster: Any) -> None:
        self._leaders = None

    def _request(self, node: int, wanted: Mapping[int, int], max_bytes: int) -> SessionFetchRequest:
        return SessionFetchRequest(
            self._sessions.setdefault(node, FetchSession()),
            wanted,
            topic=self._topic,
            partition_bytes=self._max_partition_fetch_bytes,
            max_wait_time=self._fetch_max_wait_ms,
            min_bytes=self._fetch_min_bytes,
            max_bytes=max_bytes,
            isolation_level=self._isolation_level,
        )


class SessionFetchRequest(FetchRequest):  # type: ignore[misc]  # aiokafka ships no types
    """A fetch that names what its session says; to a broker without sessions, everything."""

    def __init__(
        self, session: FetchSession, wanted: Mapping[int, int], *, topic: str, partition_bytes: int, **options: int
    ) -> None:
        super().__init__(topics=[], **options)
        self.refused = False
        self._session = session
        self._wanted = wanted
        self._topic = topic
        self._partition_bytes = partition_bytes
        self._full = True
        self._answer: Any = None

    def build(self, request_struct_class: Any) -> Any:
        """Make the request in the version of the connection it goes out on."""
        if request_struct_class.API_VERSION < _FIRST_VERSION:
            self._name(self._wanted.items())
            return super().build(request_struct_class)
        ask = self._session.ask(self._wanted)
        self._name(ask.changed)
        struct = super().build(request_struct_class)
        struct.session_id = ask.session_id
        struct.session_epoch = ask.epoch
        struct.forgotten_topics_data = [(self._topic, list(ask.forgotten))] if ask.forgotten else []
        self._full = not ask.epoch
        self._answer = struct.RESPONSE_TYPE
        struct.RESPONSE_TYPE = self
        return struct

    def decode(self, data: Any) -> Any:
        """Read the answer and tell the session; an answer that cannot be believed names nothing afterwards."""
        answer = self._answer.decode(data)
        named = [
            (part[0] if topic == self._topic else _FOREIGN, part[1]) for topic, parts in answer.topics for part in parts
        ]
        if not self._session.answered(answer.session_id, answer.error_code, named, now_ms=int(time.time() * 1000)):
            self.refused = self._full
            answer.topics = []
        self._name([(number, self._wanted[number]) for number, _ in named if number in self._wanted])
        return answer

    def _name(self, places: Iterable[tuple[int, int]]) -> None:
        """Let `topics` be these partitions with their offsets."""
        named = [(number, offset, self._partition_bytes) for number, offset in places]
        random.shuffle(named)  # a full answer has no room for the last ones; within a session the broker takes turns
        self._topics = [(self._topic, named)] if named else []


def _bytes_of(part: Any) -> int:
    """Return the bytes of an answer's part that is not taken yet; an error has none."""
    fetched = _fetched(part)
    return 0 if fetched is None else int(fetched._records.size_in_bytes())  # noqa: SLF001  # said above


def _fetched(part: Any) -> Any:
    """Return the records of an answer's part; None: it is an error, or nothing of it is left."""
    return getattr(part, "_partition_records", None)


def _record(partition: TopicPartition, decoded: Any) -> KafkaRecord:
    return KafkaRecord(
        partition.topic,
        partition.partition,
        decoded.offset,
        decoded.timestamp,
        decoded.timestamp_type,
        decoded.key,
        decoded.value,
        decoded.headers,
    )
