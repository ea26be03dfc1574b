"""Choose what a redrive of a mapping reads from: its destination's archive, and its source for records only named."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from model.errors import RefusedError
from model.mapping import KafkaSource, KinesisSource, ScheduleSource, SqsSource
from pollers.counters import Counters
from pollers.destinations.kafka import SCHEME as KAFKA_SCHEME
from pollers.redriving.documents import DocumentReader
from pollers.redriving.kafka import KafkaAccess, KafkaArchive, KafkaRange, KafkaRereading, group_of
from pollers.redriving.kinesis import KinesisRange, KinesisRereading
from pollers.redriving.s3 import S3Archive
from pollers.redriving.sqs import SqsArchive
from pollers.sources.kafka_security import resolve_security
from pollers.sources.kinesis import KinesisSource as KinesisReading
from pollers.sources.kinesis_api import KinesisApi
from pollers.sources.sqs_api import SqsQueue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from invocation.client import Targets
    from model.mapping import EventSourceMapping
    from model.secret import SecretResolver
    from node.parts import Parts
    from pollers.destinations.aws_clients import AwsClients
    from pollers.pump_parts import PumpParts
    from pollers.redriving.archive import Archive, Rereading
    from pollers.redriving.job import Wishes
    from pollers.redriving.ranges import Limits, RangeReader
    from pollers.sources.kafka_security import KafkaSecurity


class RedriveParts:
    """Makes the parts of redrives for one node."""

    def __init__(self, parts: Parts, *, resolver: SecretResolver, targets: Targets, aws: AwsClients) -> None:
        self._parts = parts
        self._resolver = resolver
        self._targets = targets
        self._aws = aws

    def reader(self, mapping: EventSourceMapping) -> DocumentReader:
        """Return what tells a mapping's own documents from others."""
        if isinstance(mapping.source, SqsSource):
            raise RefusedError("queues have no failure documents")
        if isinstance(mapping.source, ScheduleSource):
            raise RefusedError("firings of a schedule are not redriven: invoke the function with `esmd invoke`")
        return DocumentReader(mapping.source, self._parts.settings.function_arn(mapping.function_name))

    def archive(self, mapping: EventSourceMapping, destination: str, wishes: Wishes) -> Archive:
        """Return the archive of a destination that `pollers.redriving.choice` allows."""
        if destination.startswith(KAFKA_SCHEME):
            topic = destination.removeprefix(KAFKA_SCHEME)
            return KafkaArchive(self._access(mapping), topic, commits=not wishes.dry_run)
        if destination.split(":")[2] == "s3":
            return S3Archive(destination, mapping.id, self._aws, since_ms=wishes.since_ms)
        queue = SqsQueue(SqsSource(destination, fifo=False), self._targets.aws("sqs", version="1.0"))
        return SqsArchive(queue, destination.rpartition(":")[2], looks=wishes.dry_run)

    def _kinesis(self, source: KinesisSource, parts: PumpParts) -> tuple[KinesisApi, KinesisRereading]:
        api = KinesisApi(source.arn, self._targets.aws("kinesis"))
        key_range = None
        if source.consumer_arn is not None and isinstance(parts.source, KinesisReading):
            key_range = parts.source.key_range
        return api, KinesisRereading(api, parts.envelope, parts.filter, key_range=key_range)

    def range(self, parts: PumpParts, shards: Sequence[Limits], *, from_ms: int, to_ms: int) -> RangeReader:
        """Return what reads a range of the mapping's source."""
        source = parts.mapping.source
        match source:
            case KinesisSource():
                api, forms = self._kinesis(source, parts)
                return KinesisRange(api, forms, shards, from_ms=from_ms, to_ms=to_ms)
            case KafkaSource():
                access = self._access(parts.mapping)
                return KafkaRange(
                    access, source.topic, parts.envelope, parts.filter, shards, from_ms=from_ms, to_ms=to_ms
                )
            case _:
                raise RefusedError(f"{source.kind} sources are not read again")

    def for_function(self, parts: PumpParts, name: str) -> PumpParts:
        """Return the parts with another function: gate and traces of its own, and counts that are not the mapping's."""
        function = self._parts.settings.target_for(name)
        if function is None:
            raise RefusedError(f"this node knows no function {name}")
        counters = Counters()
        return replace(
            parts,
            target=self._parts.target(function),
            gate=self._parts.gate(parts.mapping, counters),
            counters=counters,
            tracing=self._parts.tracing(replace(parts.mapping, function_name=name)),
        )

    def rereading(self, parts: PumpParts) -> Rereading:
        """Return what reads the mapping's source again."""
        source = parts.mapping.source
        match source:
            case KinesisSource():
                return self._kinesis(source, parts)[1]
            case KafkaSource():
                return KafkaRereading(self._access(parts.mapping), source.topic, parts.envelope, parts.filter)
            case _:
                raise RefusedError(f"{source.kind} sources are not read again")

    def _access(self, mapping: EventSourceMapping) -> KafkaAccess:
        source = mapping.source
        if not isinstance(source, KafkaSource):
            raise RefusedError(f"{mapping.name} reads no Kafka")

        async def security() -> KafkaSecurity:
            return await resolve_security(source, self._resolver)

        return KafkaAccess(
            servers=self._parts.embedded_servers(mapping) or source.bootstrap_servers,
            group=group_of(mapping.id),
            security=security,
        )
