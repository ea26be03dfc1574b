"""The rows of fleets: a rolling restart, a stop and a `kill -9` seen from the function, beside Kafka's consumer groups.

Three members share a topic under a steady load. Each is restarted in turn, then one is stopped in an orderly way, then
one of the two that are left is killed. A node's TTL and the groups' `session.timeout.ms` are the same. Everything
is measured where it matters, at the function: the longest time that any partition stood still (without a fault that is
the time between two of its records, some 80 ms at 200 records a second), what was delivered twice, what was lost.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from confluent_kafka import Consumer, TopicPartition

from benchmarks.arrivals import ArrivalLog
from benchmarks.gaps import LastSeen, distinct, duplicates, longest_gap_s
from benchmarks.kafka import mapping_of
from benchmarks.processes import BenchmarkFailedError
from benchmarks.results import Figure, Row
from benchmarks.sampling import wait_for
from tests.support.servers import unique_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from benchmarks.bench import Bench, NodeUnderTest, Sink
    from benchmarks.processes import Child

_PARTITIONS = 16
_MEMBERS = 3
_TTL_S = 10
_QUICK_TTL_S = 6  # Kafka's brokers allow no shorter sessions
_MOST_ROUNDS = 3
_QUIET_S = 1.0  # everything flows when every partition delivered in the last second, and again in the next
_LIMIT_S = 90.0
_LOAD_S = 600.0  # the load is ended long before


@dataclass(frozen=True, slots=True)
class Seen:
    """What a function saw of one round."""

    gaps_s: tuple[float, float, float]  # rolling restart, stop, kill
    twice: tuple[int, int, int]
    lost: int


class Member(Protocol):
    """One process of a fleet."""

    @property
    def child(self) -> Child:
        """The process."""

    def ready(self) -> bool:
        """Whether it has its share."""


@dataclass(frozen=True, slots=True)
class _Worker:
    """A member of a consumer group."""

    child: Child

    def ready(self) -> bool:
        """Whether its last word was that it has partitions."""
        log = self.child.log
        said = [line for line in log.read_text().splitlines() if line.startswith("assigned ")] if log else []
        return bool(said) and said[-1] != "assigned 0"


class Contender(Protocol):
    """A kind of fleet."""

    @property
    def title(self) -> str:
        """Its name in the table."""

    def start(self, bench: Bench, running: contextlib.ExitStack, place: Place) -> Callable[[], Member]:
        """Start what its members share, and return what starts one."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a fleet works."""

    topic: str
    sink: Sink
    ttl_s: int


class Nodes:
    """`Contender`: nodes."""

    title = "node"

    def start(self, bench: Bench, running: contextlib.ExitStack, place: Place) -> Callable[[], Member]:
        """Start a Redis."""
        redis = running.enter_context(bench.redis())
        mapping = {**mapping_of(bench.kafka.bootstrap_servers, place.topic), "MaximumBatchingWindowInSeconds": 0}

        def member() -> NodeUnderTest:
            return running.enter_context(
                bench.node(mapping, redis=redis, sink=place.sink.url, name=place.topic, ttl_s=place.ttl_s)
            )

        return member


@dataclass(frozen=True, slots=True)
class Group:
    """`Contender`: a consumer group."""

    title: str
    module: str

    def start(self, bench: Bench, running: contextlib.ExitStack, place: Place) -> Callable[[], Member]:
        """Name a group."""
        group = unique_name("group")
        arguments = ["--servers", bench.kafka.bootstrap_servers, "--topic", place.topic, "--group", group]
        arguments += ["--session-ms", str(place.ttl_s * 1000), "--url", place.sink.url]

        def member() -> _Worker:
            return _Worker(running.enter_context(bench.child(self.module, arguments, measured=True)))

        return member


_CONTENDERS: tuple[Contender, ...] = (
    Nodes(),
    Group("aiokafka, sticky", "benchmarks.peers.aiokafka.worker"),
    Group("confluent-kafka, cooperative-sticky", "benchmarks.peers.confluent_kafka.worker"),
)


class Fleet:
    """`benchmarks.bench.Case`."""

    name = "fleet"

    def run(self, bench: Bench) -> Iterable[Row]:
        """Put every kind of fleet through the same, in turn."""
        rounds = min(_MOST_ROUNDS, bench.options.rounds)
        found: dict[str, list[Seen]] = {one.title: [] for one in _CONTENDERS}
        failed: dict[str, str] = {}
        for number in range(rounds):
            for one in _CONTENDERS if number % 2 == 0 else reversed(_CONTENDERS):
                if one.title in failed:
                    continue
                try:
                    found[one.title].append(self._round(bench, one))
                except BenchmarkFailedError as exc:
                    if isinstance(one, Nodes):
                        raise
                    failed[one.title] = str(exc)  # a group's failure is no reason to lose everybody's rows
        for title, seen in found.items():
            case = f"{self.name}: {title}"
            yield Row(case, (), failed[title]) if title in failed else Row(case, _figures(seen))

    def _round(self, bench: Bench, contender: Contender) -> Seen:
        quick = bench.options.quick
        topic = bench.kafka.new_topic(_PARTITIONS, prefix="fleet")
        with contextlib.ExitStack() as running:
            sink = running.enter_context(bench.sink(log=True))
            place = Place(topic, sink, _QUICK_TTL_S if quick else _TTL_S)
            member = contender.start(bench, running, place)
            members = [member() for _ in range(_MEMBERS)]
            load = running.enter_context(self._load(bench, topic))
            log = ArrivalLog(sink.log)
            flowing = _Flow(log)
            flowing.wait(members)
            bounds = [_now_us()]
            for _ in range(1 if quick else _MEMBERS):
                members.pop(0).child.end(signal.SIGTERM, within_s=_LIMIT_S)
                members.append(member())
                flowing.wait(members)
            bounds.append(_now_us())
            members.pop(0).child.end(signal.SIGTERM, within_s=_LIMIT_S)
            flowing.wait(members)
            bounds.append(_now_us())
            members.pop(0).child.end(signal.SIGKILL)
            flowing.wait(members)
            load.end(signal.SIGKILL)
            records = _written(bench.kafka.bootstrap_servers, topic)
            with contextlib.suppress(BenchmarkFailedError):  # then some are lost
                wait_for(lambda: distinct(log.all()) >= records, "every record", within_s=30)
            bounds.append(_now_us())
            arrivals = log.all()
        gaps = [longest_gap_s(arrivals, first, after) for first, after in itertools.pairwise(bounds)]
        twice = duplicates(arrivals, bounds)
        seen = Seen((gaps[0], gaps[1], gaps[2]), (twice[0], twice[1], twice[2]), records - distinct(arrivals))
        bench.say(
            f"{self.name} {contender.title}: rolling restart, stop, kill: longest gap "
            f"{', '.join(f'{gap:.2f}' for gap in gaps)} s, twice {', '.join(map(str, twice))}; lost {seen.lost}"
        )
        return seen

    def _load(self, bench: Bench, topic: str) -> Child:
        rate = bench.options.rate
        load = ["--servers", bench.kafka.bootstrap_servers, "--topic", topic, "--records", str(int(rate * _LOAD_S))]
        load += ["--partitions", str(_PARTITIONS), "--rate", str(rate)]
        return bench.child("benchmarks.load_kafka", load, measured=False)


class _Flow:
    """Waits until nothing stands still."""

    def __init__(self, log: ArrivalLog) -> None:
        self._log = log
        self._last_seen = LastSeen()

    def wait(self, members: list[Member]) -> None:
        """Return when everybody has a share and every partition has delivered for two spans in a row.

        Raises `BenchmarkFailedError`.
        """
        began_us = _now_us()
        wait_for(lambda: all(one.ready() for one in members), "a share for every member", within_s=_LIMIT_S)
        wait_for(lambda: self._flows(began_us), "every partition", within_s=_LIMIT_S)
        time.sleep(_QUIET_S)
        quiet_us = _now_us() - int(_QUIET_S * 1_000_000)
        wait_for(lambda: self._flows(quiet_us), "every partition again", within_s=_LIMIT_S)

    def _flows(self, since_us: int) -> bool:
        self._last_seen.add(self._log.new())
        return self._last_seen.since(since_us) == _PARTITIONS


def _figures(seen: list[Seen]) -> tuple[Figure, ...]:
    named = ("rolling restart", "stop", "kill -9")
    figures = [Figure.of(f"gap, {name}", "s", [one.gaps_s[at] for one in seen]) for at, name in enumerate(named)]
    figures += [
        Figure.of(f"twice, {name}", "", [float(one.twice[at]) for one in seen]) for at, name in enumerate(named)
    ]
    return (*figures, Figure.of("lost", "", [float(one.lost) for one in seen]))


def _written(servers: str, topic: str) -> int:
    """Return how many records a topic has."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": unique_name("count")})
    try:
        ends = [consumer.get_watermark_offsets(TopicPartition(topic, number)) for number in range(_PARTITIONS)]
    finally:
        consumer.close()
    return sum(high - low for low, high in ends)


def _now_us() -> int:
    return time.time_ns() // 1000
