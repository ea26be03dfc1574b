"""This node's part in asynchronous invocations: partitions it holds, worked on by the path of synchronous callers."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from config.settings import MB
from invocation.accepting import Acceptor
from invocation.front_answers import error_answer
from invocation.frontend import FrontEnd
from invocation.invoke_request import read_head
from invocation.invoking import NotInvoked
from invocation.trace_context import with_span
from model.async_event import Condition, partition_of
from model.errors import RefusedError, UnavailableError
from node.telemetry import cumulative
from pollers.async_counters import AsyncMeters
from pollers.async_delivery import AsyncDelivery, AttemptResult
from pollers.async_pump import AsyncPump, Share
from pollers.destinations.results import OneMessage, ResultDestinations
from pollers.tracing import NO_TRACING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.metrics_core import Metric

    from invocation.accepting import HasEvents
    from invocation.classify import Answer
    from leasing.held import HeldLease
    from model.async_event import NewEvent
    from model.ids import ShardKey
    from node.parts import Parts
    from pollers.async_delivery import FunctionConfigs
    from pollers.destinations.aws_clients import AwsClients
    from pollers.tracing import EventTracing

_TRACE = "X-Amzn-Trace-Id"


class AsyncQueue:
    """The node's front end, and its partitions. `run` while there are any; `worker` works under one lease."""

    def __init__(
        self,
        store: HasEvents,
        parts: Parts,
        configs: FunctionConfigs,
        aws: AwsClients,
        tracing: EventTracing = NO_TRACING,
    ) -> None:
        self._store = store
        self._parts = parts
        meters = AsyncMeters()
        self.collector = AsyncCollector(meters)
        self._acceptor = Acceptor(store, received=meters.received, max_bytes=self._max_bytes)
        self.front_end = FrontEnd(lambda: parts.settings, parts.target, self._acceptor)
        self._destinations = ResultDestinations(
            aws,
            self._function_arn,
            hand_on=self._hand_on,
            topic=lambda name, function: parts.result_topic(name, function, OneMessage()),
            configuration=lambda: parts.settings,
        )
        self._delivery = AsyncDelivery(self._invoke, configs, self._destinations, meters, tracing=tracing)
        self._share = Share()
        self._random = Random()  # noqa: S311 - turns and jitter, no secret
        self._pumps: dict[ShardKey, AsyncPump] = {}

    async def run(self) -> None:
        """Have the pumps look for events in whose partitions some came where none were. Until cancelled."""
        try:
            await self._listen()
        finally:
            await self._destinations.close()

    async def _listen(self) -> None:
        async with aclosing(self._store.events.wakes()) as wakes:  # type: ignore[type-var]  # an async generator; the Protocol does not say so
            async for told in wakes:
                for key, pump in self._pumps.items():
                    if told is None or partition_of(key) in told:
                        pump.look()

    def worker(self, lease: HeldLease) -> PartitionWorker:
        """Return what works on a partition."""
        pump = AsyncPump(
            self._store.events, lease, self._delivery, self._share, random=self._random, max_bytes=self._max_bytes
        )
        return PartitionWorker(lease.key, pump, self._pumps)

    def _max_bytes(self) -> int:
        return self._parts.settings.async_invoke.queue_mb * MB

    async def _invoke(self, event: NewEvent) -> Answer:
        head = read_head(event.asked, None, {_TRACE: event.trace})
        if isinstance(head, NotInvoked):
            return error_answer(head)
        function = self.front_end.find(head)
        if isinstance(function, NotInvoked):
            return error_answer(function)
        head = replace(head, trace=with_span(head.trace))
        return await self.front_end.invoke(function, head, event.payload, event.request_id)

    def _function_arn(self, function_name: str) -> str:
        return self._parts.settings.function_arn(function_name)

    async def _hand_on(self, function: str, event: bytes, *, request_id: str, trace: str) -> None:
        found = self._parts.settings.listed_function(function)
        if found is None:
            raise RefusedError(f"{function} is none of this fleet's functions")
        refused = await self._acceptor.accept(
            found.name, function, event, request_id=request_id, trace=trace, bounded=False
        )
        if refused is not None:
            raise UnavailableError(f"{function}: {refused.message}")


class PartitionWorker:
    """Works on one partition. `pollers.fleet.Worker`."""

    def __init__(self, key: ShardKey, pump: AsyncPump, pumps: dict[ShardKey, AsyncPump]) -> None:
        self._key = key
        self._pump = pump
        self._pumps = pumps

    async def run(self) -> None:
        """Work until drained. Raises `LeaseLostError`."""
        self._pumps[self._key] = self._pump
        try:
            await self._pump.run()
        finally:
            if self._pumps.get(self._key) is self._pump:
                del self._pumps[self._key]

    def drain(self) -> None:
        """Take nothing more."""
        self._pump.drain()

    def refresh(self) -> None:
        """Nothing to bring up to date: the queue itself tells its depth."""

    def mapping_changed(self, *, document: bool) -> None:
        """Never told: the queue is no mapping."""


class AsyncCollector(Collector):
    """The metrics of asynchronous invocations on this node."""

    def __init__(self, meters: AsyncMeters) -> None:
        self._meters = meters

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering does not collect."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return every metric; nothing for functions that had no events."""
        received = _counter("events_received", "Events accepted by this node.")
        ages = HistogramMetricFamily(
            "esm_async_event_age_seconds", "Age of events when they were handed to the function.", labels=["function"]
        )
        invocations = _counter("invocations", "Invocations for events, also repeated ones.", "result")
        results = _counter("events_over", "Events for which all attempts are over.", "condition")
        dropped = _counter("events_dropped", "Events that failed for good without any destination having them.")
        untold = _counter("destination_delivery_failures", "Failed deliveries to destinations.")
        unburied = _counter("dead_letter_errors", "Failed deliveries to dead-letter queues and topics.")
        for function, counters in self._meters:
            received.add_metric([function], counters.received)
            ages.add_metric([function], *cumulative(counters.ages))
            for attempt in AttemptResult:
                invocations.add_metric([function, attempt], counters.invocations[attempt])
            for condition in Condition:
                results.add_metric([function, condition], counters.results[condition])
            dropped.add_metric([function], counters.dropped)
            untold.add_metric([function], counters.destination_errors)
            unburied.add_metric([function], counters.dead_letter_errors)
        return received, ages, invocations, results, dropped, untold, unburied


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"esm_async_{name}", text, labels=["function", *labels])
