"""The rows of peers: a node beside other programs that people use for the same work.

Everybody reads the same backlog in batches of one size and posts to the same sink, in turn, every other round the
other way round; ratios are taken within a round. A peer that cannot be had on a machine, or does not run, is left out
of the table with the reason.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.deliveries import node_mapping, read_for_one, reader_arguments
from benchmarks.peering import Peer
from benchmarks.processes import BenchmarkFailedError
from benchmarks.results import Figure, Row
from benchmarks.sampling import ratios, take
from tests.support.servers import ServerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.bench import Bench
    from benchmarks.deliveries import DeliverySource, Feed
    from benchmarks.sampling import Sample

_MOST_ROUNDS = 3
_WARM_PER_S = 100_000  # records that no peer exceeds which has to warm up

KAFKA = (
    Peer("aiokafka", "aiokafka", "aiokafka"),
    Peer("confluent_kafka", "confluent-kafka", "confluent-kafka"),
    Peer("faststream", "FastStream on aiokafka", "faststream", ("--on", "aiokafka")),
    Peer("faststream", "FastStream on confluent-kafka", "faststream", ("--on", "confluent-kafka")),
)
KINESIS = (
    Peer("aioboto3_kinesis", "aioboto3", "aioboto3"),
    Peer("async_kinesis", "async-kinesis", "async-kinesis", needs=("redis",)),
    # Compiled code comes only after many calls, and the first worker of an application waits a while for its leases.
    Peer("kcl", "KCL", "amazon-kinesis-client", needs=("dynamodb",), warm_s=20.0, within_s=180.0),
)
SQS = (Peer("aioboto3_sqs", "aioboto3", "aioboto3"),)


@dataclass(frozen=True, slots=True)
class _Found:
    """What the rounds of one subject gave."""

    samples: list[Sample] = field(default_factory=list)
    reason: list[str] = field(default_factory=list)  # why it was left out


@dataclass(frozen=True, slots=True)
class Peers:
    """One source's peers and a node, with or without a filter. `benchmarks.bench.Case`."""

    source: DeliverySource
    peers: Sequence[Peer]
    filtered: bool = False

    @property
    def name(self) -> str:
        """The case's name."""
        return f"peers-{self.source.name}{'-filter' if self.filtered else ''}"

    def run(self, bench: Bench) -> Iterable[Row]:
        """Measure everybody in turn."""
        options = bench.options
        records = 5_000 if options.quick else self._records(options.seconds)
        feed = self.source.backlog(bench, records)
        node = _Found()
        found = {peer: _Found() for peer in self.peers}
        commands = {peer: self._command(bench, peer, found[peer]) for peer in self.peers}
        order: list[Peer | None] = [None, *self.peers]
        for number in range(min(_MOST_ROUNDS, options.rounds)):
            for subject in order if number % 2 == 0 else reversed(order):
                if subject is None:
                    node.samples.append(self._node(bench, feed))
                    bench.say(f"{self.name} node: {node.samples[-1].told()}")
                elif not found[subject].reason:
                    self._try(bench, feed, subject, commands[subject], found[subject])
        yield self._row("node", node, node)
        for peer in self.peers:
            yield self._row(peer.shown, found[peer], node)

    def _records(self, seconds: float) -> int:
        """Return how many nobody gets through: the fastest without a warm-up, nor those that have one."""
        return int(self.source.per_s * (seconds + 1) + _WARM_PER_S * max(peer.warm_s for peer in self.peers))

    def _row(self, title: str, found: _Found, node: _Found) -> Row:
        case = f"{self.name}: {title}"
        if found.reason:
            return Row(case, (), found.reason[0])
        return Row(
            case,
            (
                Figure.of("records/CPU-s", "1/s", [one.records_per_cpu_s for one in found.samples]),
                Figure.of("node's times this", "", ratios(node.samples, found.samples)),
                Figure.of("records/s", "1/s", [one.records_per_s for one in found.samples]),
                Figure.of("a request", "", [one.records_per_request for one in found.samples]),
                Figure.of("peak", "MB", [one.peak_mb for one in found.samples]),
                Figure.of("first record", "s", [one.first_s for one in found.samples]),
            ),
        )

    def _command(self, bench: Bench, peer: Peer, found: _Found) -> list[str]:
        if peer.downloads and not bench.options.download:
            found.reason.append("it needs packages of its own, and --no-downloads was said")
            return []
        if peer.downloads:
            bench.say(f"looking for the packages of {peer.title}, or fetching them")
        try:
            return peer.command()
        except ServerUnavailableError as exc:
            found.reason.append(str(exc))
            return []

    def _try(self, bench: Bench, feed: Feed, peer: Peer, command: Sequence[str], found: _Found) -> None:
        try:
            found.samples.append(self._peer(bench, feed, peer, command))
        except BenchmarkFailedError as exc:
            found.reason.append(str(exc))
            bench.say(f"{self.name} {peer.title}: {exc}")
        else:
            bench.say(f"{self.name} {peer.title}: {found.samples[-1].told()}")

    def _node(self, bench: Bench, feed: Feed) -> Sample:
        mapping = node_mapping(self.source, feed, self.source.batches[0], filtered=self.filtered)
        with (
            bench.redis() as redis,
            bench.sink(mark=self.source.mark) as sink,
            bench.node(mapping, redis=redis, sink=sink.url, env=feed.env) as node,
        ):
            share = read_for_one(self.source, filtered=self.filtered)
            sample = take(bench, node.child, sink, name=self.name, total=feed.records // share, share=share)
            node.child.end(signal.SIGKILL)  # the Redis goes too; nobody takes over
            return sample

    def _peer(self, bench: Bench, feed: Feed, peer: Peer, command: Sequence[str]) -> Sample:
        with bench.redis() as redis, bench.sink(mark=self.source.mark) as sink:
            needed = ["--redis", redis] if "redis" in peer.needs else []
            needed += ["--dynamodb", bench.moto] if "dynamodb" in peer.needs else []
            arguments = reader_arguments(self.source, feed, sink.url, self.source.batches[0], filtered=self.filtered)
            arguments += [*peer.arguments, *needed]
            share = read_for_one(self.source, filtered=self.filtered)
            with bench.child(peer.module, arguments, measured=True, env=feed.env, command=command) as child:
                sample = take(
                    bench, child, sink, name=f"{self.name} {peer.title}", total=feed.records // share, share=share,
                    warm_s=peer.warm_s, within_s=peer.within_s,
                )  # fmt: skip
                child.end(signal.SIGKILL)
                return sample
