"""Choose the concrete source, envelope, filter, target and destination of a mapping: who knows them all."""

from __future__ import annotations

import time
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from invocation.local_target import LocalTarget
from invocation.sandboxes import check_function
from invocation.settings import LONGEST_TIMEOUT_S, HandlerFunction, known_timeout_s
from model.errors import RefusedError
from model.mapping import KafkaSource as KafkaTopic
from model.mapping import KinesisSource as KinesisStream
from model.mapping import ScheduleSource, SqsSource
from model.problem import Problem
from node.embedded_aws import LONG_POLL_S as EMBEDDED_LONG_POLL_S
from node.embedded_kafka import FETCH_MAX_WAIT_MS as EMBEDDED_FETCH_WAIT_MS
from pollers.caution import Quarantine
from pollers.circuit import Circuit
from pollers.destinations.kafka import SCHEME as KAFKA_SCHEME
from pollers.destinations.kafka import KafkaDestination
from pollers.destinations.s3 import S3Destination
from pollers.destinations.sns import SnsDestination
from pollers.destinations.sqs import SqsDestination
from pollers.failure_document import FailureDocuments, TopicDocuments
from pollers.filtering import compile_filter
from pollers.gate import Gate
from pollers.pump_parts import PumpParts
from pollers.queue_calls import LONG_POLL_S, QueueParts
from pollers.retrying import RetryPolicy
from pollers.sources.kafka import KafkaSource
from pollers.sources.kafka_batch_info import KafkaBatchInfo
from pollers.sources.kafka_envelope import KafkaEnvelope, KafkaRecordView
from pollers.sources.kafka_security import resolve_security
from pollers.sources.kinesis import KinesisSource
from pollers.sources.kinesis_batch_info import KinesisBatchInfo
from pollers.sources.kinesis_envelope import KinesisEnvelope, KinesisRecordView
from pollers.sources.schedule import Schedules
from pollers.sources.schedule_envelope import ScheduleBatchInfo, ScheduleEnvelope
from pollers.sources.sqs_api import SqsQueue
from pollers.sources.sqs_envelope import SqsEnvelope, SqsRecordView
from pollers.tracing import no_traces

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from config.settings import Settings
    from invocation.client import InvokeTarget, RemoteTarget, Targets
    from invocation.settings import FunctionSettings
    from model.mapping import EventSourceMapping
    from model.secret import SecretResolver
    from pollers.checkpointer import Checkpointer
    from pollers.counters import Counters, Meters
    from pollers.destinations.aws_clients import AwsClients
    from pollers.destinations.kafka import Messages
    from pollers.filtering import RecordView
    from pollers.ports import BatchInfo, Destination, Envelope, Source
    from pollers.queue_ports import QueueFacts
    from pollers.tracing import Traces, Tracing

_Told = TypeVar("_Told")


class Parts:
    """Makes the parts of mappings for one node. `take` other settings when the configuration is read again."""

    def __init__(
        self,
        settings: Settings,
        *,
        tasks: asyncio.TaskGroup,
        resolver: SecretResolver,
        targets: Targets,
        aws: AwsClients,
        meters: Meters,
        checkpointer: Checkpointer,
        embedded_kafka: str | None = None,
        embedded_aws: bool = False,
        random: Random | None = None,
        now_s: Callable[[], float] = time.time,
        traces: Traces = no_traces,
    ) -> None:
        self.settings = settings
        self._tasks = tasks
        self._resolver = resolver
        self._targets = targets
        self._aws = aws
        self._made: dict[str, tuple[FunctionSettings, RemoteTarget | LocalTarget]] = {}
        self._meters = meters
        self._checkpointer = checkpointer
        self._embedded_kafka = embedded_kafka  # bootstrap server
        self._long_poll_s = EMBEDDED_LONG_POLL_S if embedded_aws else LONG_POLL_S
        self._kinesis = targets.aws("kinesis")
        self._sqs = targets.aws("sqs", version="1.0")
        self._quarantine = Quarantine()
        self._now_s = now_s  # epoch time, for schedules
        self._traces = traces
        self._random = random or Random()  # noqa: S311 - jitter, no secret

    def __call__(self, mapping: EventSourceMapping) -> PumpParts | QueueParts:
        """Make one mapping's parts. Raises `RefusedError` when this node cannot work on it."""
        if isinstance(mapping.source, SqsSource):
            return self._queue(mapping, mapping.source)
        envelope, view = self._forms(mapping)
        patterns = mapping.filter_patterns
        counters = self._meters.of(mapping.name, mapping.source.kind)
        return PumpParts(
            mapping=mapping,
            source=self._source(mapping, counters),
            envelope=envelope,
            filter=compile_filter(patterns, view) if patterns and view is not None else None,
            target=self._target(mapping),
            gate=self.gate(mapping, counters),
            policy=RetryPolicy.of(mapping, in_order=isinstance(mapping.source, KinesisStream)),
            counters=counters,
            checkpointer=self._checkpointer,
            random=self._random,
            lanes=mapping.extensions.parallelization_factor or mapping.parallelization_factor,
            destination=self._destination(mapping, envelope),
            quarantine=self._quarantine,
            tracing=self._traces(mapping),
        )

    def _queue(self, mapping: EventSourceMapping, source: SqsSource) -> QueueParts:
        patterns = mapping.filter_patterns
        function = self.settings.target_for(mapping.function_name)
        counters = self._meters.of(mapping.name, source.kind)
        return QueueParts(
            mapping=mapping,
            source=SqsQueue(source, self._sqs),
            fifo=source.fifo,
            envelope=SqsEnvelope(source, window=mapping.batching_window_s > 0),
            filter=compile_filter(patterns, SqsRecordView()) if patterns else None,
            target=self._target(mapping),
            gate=self.gate(mapping, counters),
            counters=counters,
            checkpointer=self._checkpointer,
            random=self._random,
            long_poll_s=self._long_poll_s,
            function_timeout_s=None if function is None else known_timeout_s(function),
            tracing=self._traces(mapping),
        )

    def _forms(self, mapping: EventSourceMapping) -> tuple[Envelope, RecordView | None]:
        match mapping.source:
            case KafkaTopic():
                return KafkaEnvelope(mapping.source), KafkaRecordView()
            case KinesisStream():
                return KinesisEnvelope(mapping.source), KinesisRecordView()
            case ScheduleSource():
                return self._schedule_envelope(mapping), None
            case _:
                raise RefusedError(f"{mapping.source.kind} sources are not read by this version")

    def _source(self, mapping: EventSourceMapping, counters: Counters) -> Source:
        if isinstance(mapping.source, KinesisStream):
            return KinesisSource(mapping, self._kinesis)
        if isinstance(mapping.source, ScheduleSource):
            return self._schedules(mapping, counters)

        def count_committed(step: int) -> None:
            counters.committed += step

        embedded = self.embedded_servers(mapping)
        if not embedded:
            return KafkaSource(mapping, self._resolver, tasks=self._tasks, count_committed=count_committed)
        return KafkaSource(
            mapping,
            self._resolver,
            tasks=self._tasks,
            bootstrap_servers=embedded,
            fetch_max_wait_ms=EMBEDDED_FETCH_WAIT_MS,
            count_committed=count_committed,
        )

    def _schedules(self, mapping: EventSourceMapping, counters: Counters) -> Schedules:
        function = self.settings.target_for(mapping.function_name)
        timeout_s = None if function is None else known_timeout_s(function)

        def count_missed(firings: int) -> None:
            counters.missed_firings += firings

        return Schedules(
            mapping,
            count_missed=count_missed,
            function_timeout_s=LONGEST_TIMEOUT_S if timeout_s is None else timeout_s,
            now_s=self._now_s,
        )

    def _schedule_envelope(self, mapping: EventSourceMapping) -> ScheduleEnvelope:
        aws = self.settings.aws
        return ScheduleEnvelope(mapping, partition=aws.partition, region=aws.region, account_id=aws.account_id)

    async def look(self, mapping: EventSourceMapping) -> QueueFacts | None:
        """Ask a stream or queue whether it is there, before there is anything to work on it; Kafka is not asked.

        Raises `RefusedError` and `UnavailableError`. Returns what a queue says of itself.
        """
        match mapping.source:
            case SqsSource() as queue:
                return await SqsQueue(queue, self._sqs).facts()
            case KinesisStream():
                await KinesisSource(mapping, self._kinesis).shards()
        return None

    def embedded_servers(self, mapping: EventSourceMapping) -> Sequence[str]:
        """Return where a topic of the embedded broker is; nothing for all others."""
        embedded = self.settings.embedded.kafka
        topic = mapping.source.topic if isinstance(mapping.source, KafkaTopic) else ""
        if self._embedded_kafka is None or embedded is None or topic not in embedded.topics:
            return ()
        return (self._embedded_kafka,)

    def _destination(self, mapping: EventSourceMapping, envelope: Envelope) -> Destination | None:
        """Choose by the scheme or the service. The mapping's rules have checked that it is one of these."""
        name = mapping.on_failure_destination
        if name is None:
            return None
        function_arn = self.settings.function_arn(mapping.function_name)
        if name.startswith(KAFKA_SCHEME):
            return self._kafka_destination(mapping, name, envelope, function_arn)
        documents = FailureDocuments(
            function_arn=function_arn, envelope=envelope, batch_info=_batch_info(mapping, envelope)
        )
        payload = mapping.extensions.destination_payload
        match name.split(":")[2]:
            case "sqs":
                return SqsDestination(name, documents, self._aws, payload=payload)
            case "sns":
                return SnsDestination(name, documents, self._aws, payload=payload)
            case "s3":
                return S3Destination(name, documents, self._aws)
            case service:
                raise RefusedError(f"{service} is no on-failure destination")

    def result_topic(self, name: str, function: str, documents: Messages[_Told]) -> KafkaDestination[_Told]:
        """Return a Kafka topic as a destination of a function's asynchronous invocations.

        It is on the embedded broker, or on the cluster that the function's Kafka mapping reads, or else some Kafka
        mapping of these files. Raises `RefusedError` when there is none.
        """
        embedded, topic = self.settings.embedded.kafka, name.removeprefix(KAFKA_SCHEME)
        if self._embedded_kafka is not None and embedded is not None and topic in embedded.topics:

            async def no_options() -> dict[str, Any]:
                return {}

            servers = (self._embedded_kafka,)
            return KafkaDestination(name, documents, bootstrap_servers=servers, connect_options=no_options)
        readers = [mapping for mapping in self.settings.mappings if isinstance(mapping.source, KafkaTopic)]
        readers.sort(key=lambda mapping: self._listed_name(mapping.function_name) != function)
        if not readers:
            raise RefusedError(f"{name}: no Kafka mapping of this node says which cluster that is")
        return self._topic_of_cluster(readers[0], name, documents)

    def _listed_name(self, function_name: str) -> str | None:
        listed = self.settings.listed_function(function_name)
        return None if listed is None else listed.name

    def _kafka_destination(
        self, mapping: EventSourceMapping, name: str, envelope: Envelope, function_arn: str
    ) -> Destination:
        source = mapping.source
        if not isinstance(source, KafkaTopic):
            raise RefusedError(f"{name} is a destination for Kafka sources only")
        documents = TopicDocuments(function_arn=function_arn, envelope=envelope, record_info=KafkaBatchInfo(source))
        return self._topic_of_cluster(mapping, name, documents)

    def _topic_of_cluster(
        self, mapping: EventSourceMapping, name: str, documents: Messages[_Told]
    ) -> KafkaDestination[_Told]:
        """Return a topic of the cluster that a Kafka mapping reads."""
        source = mapping.source
        if not isinstance(source, KafkaTopic):
            raise RefusedError(f"{mapping.name} reads no Kafka")

        async def connect_options() -> dict[str, Any]:
            return (await resolve_security(source, self._resolver)).options()

        return KafkaDestination(
            name,
            documents,
            bootstrap_servers=self.embedded_servers(mapping) or source.bootstrap_servers,
            connect_options=connect_options,
        )

    def tracing(self, mapping: EventSourceMapping) -> Tracing:
        """Return what traces invocations on a mapping's behalf."""
        return self._traces(mapping)

    def gate(self, mapping: EventSourceMapping, counters: Counters) -> Gate:
        """Make one for each mapping, also where they share a function: one's trouble need not be the other's."""
        return Gate(Circuit(self._random), mapping=mapping.name, counters=counters)

    def _target(self, mapping: EventSourceMapping) -> InvokeTarget:
        name = mapping.function_name
        function = self.settings.target_for(name)
        if function is None:
            raise RefusedError(f"mapping {mapping.name}: this node knows no function {name}")
        return self.target(function)

    def target(self, function: FunctionSettings) -> RemoteTarget | LocalTarget:
        """Return the one target of a function, whoever calls it: an emulator's container takes one call at a time.

        That of a handler stays the one it is, and follows `take`: who asks with a function from before is not heeded.
        """
        made = self._made.get(function.name)
        if made is not None and isinstance(made[1], LocalTarget) and isinstance(function, HandlerFunction):
            return made[1]
        if made is None or made[0] != function:
            made = self._made[function.name] = (function, self._targets.make(function))
        return made[1]

    def take(self, settings: Settings) -> None:
        """Have other settings hold: handlers are called as they are now from the next call on, under way or not."""
        self.settings = settings
        for name, (before, target) in list(self._made.items()):
            now = settings.functions.get(name)
            if isinstance(target, LocalTarget) and isinstance(now, HandlerFunction) and now != before:
                target.change(now)
                self._made[name] = (now, target)


def works_alike(one: FunctionSettings | None, other: FunctionSettings | None) -> bool:
    """Whether a mapping goes on undisturbed when its function becomes another one."""
    if isinstance(one, HandlerFunction) and isinstance(other, HandlerFunction):
        return (one.name, one.timeout_s) == (other.name, other.timeout_s)
    return one == other


def _batch_info(mapping: EventSourceMapping, envelope: Envelope) -> BatchInfo:
    match mapping.source:
        case KafkaTopic():
            return KafkaBatchInfo(mapping.source)
        case KinesisStream():
            return KinesisBatchInfo(mapping.source)
        case ScheduleSource() if isinstance(envelope, ScheduleEnvelope):
            return ScheduleBatchInfo(mapping.source, envelope.rule_arn)
        case _:
            raise RefusedError(f"{mapping.source.kind} sources have no on-failure destination")


def unsupported_settings(settings: Settings) -> list[Problem]:
    """Return what a configuration asks for that this version or machine does not do: refused, and never half done."""
    problems = []
    for configured in settings.event_source_mappings:
        path = f"event_source_mappings {configured.mapping.name}"
        function = settings.target_for(configured.mapping.function_name)
        if isinstance(function, HandlerFunction):
            try:
                check_function(function)
            except RefusedError as exc:
                problems.append(Problem(path, str(exc), configured.file, configured.line))
    return problems
