"""The node's own sandboxes: what runs functions on this machine, and its Prometheus metrics."""

from __future__ import annotations

from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.registry import Collector

from invocation.roster import Terms
from invocation.sandboxes import Sandboxes, capacity
from invocation.worker_manager import WorkerManager

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from prometheus_client.metrics_core import Metric

    from config.settings import Settings
    from model.secret import SecretResolver


@asynccontextmanager
async def worker_manager(
    settings: Settings, resolver: SecretResolver, *, limits: Callable[[], Mapping[str, int]] = dict, nodes: int = 1
) -> AsyncIterator[WorkerManager]:
    """Give what runs functions on this node, one of so many on this machine; `limits` says how often at most.

    At the end no sandbox is left: be done with invoking by then.
    """
    sandboxes = Sandboxes(resolver, region=settings.aws.region, arn=settings.function_arn)
    kept = settings.sandboxes
    terms = Terms(lease_s=kept.lease_s, idle_s=kept.idle_s)
    workers = WorkerManager(sandboxes.make, capacity(kept, nodes=nodes), terms, random=Random(), limits=limits)  # noqa: S311 - spread, no secret
    try:
        yield workers
    finally:
        await workers.aclose()
        sandboxes.close()


class SandboxCollector(Collector):
    """Reads the worker manager's own counts."""

    def __init__(self, workers: WorkerManager) -> None:
        self._workers = workers

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering does not collect."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return every metric of the sandboxes; none before a function was invoked."""
        environments = GaugeMetricFamily(
            "esm_environments", "Execution environments by what they are doing.", labels=["function", "state"]
        )
        for function, counts in self._workers.counts().items():
            for state, count in counts.items():
                environments.add_metric([function, state.name.lower()], count)
        starts = CounterMetricFamily("esm_cold_starts", "Environments started.", labels=["function"])
        failed = CounterMetricFamily("esm_failed_inits", "Initialisations that failed.", labels=["function"])
        inits = SummaryMetricFamily("esm_init_duration_seconds", "Time an initialisation took.", labels=["function"])
        kills = CounterMetricFamily(
            "esm_environment_resets", "Runtimes that ended before they answered.", labels=["function", "reason"]
        )
        throttles = CounterMetricFamily("esm_function_throttles", "Invocations without room.", labels=["function"])
        for function, counters in self._workers.counters.items():
            starts.add_metric([function], counters.cold_starts)
            failed.add_metric([function], counters.failed_inits)
            inits.add_metric([function], count_value=counters.inits, sum_value=counters.init_total_s)
            throttles.add_metric([function], counters.throttles)
            for reason in ("timeout", "memory", "exit", "not_started"):
                kills.add_metric([function, reason], counters.kills[reason])
        return environments, starts, failed, inits, kills, throttles
