"""What a node knows of its functions besides where they are: what holds for them in the fleet, how often they run."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from controlplane.function_parts import FunctionFiles
from controlplane.lambda_definitions import LambdaDefinitions
from controlplane.lambda_functions import LambdaFunctions
from invocation.counting import Counting
from leasing.clock import trust_clock
from node.lambda_definitions_api import LambdaDefinitionsApi
from node.lambda_functions_api import LambdaFunctionsApi
from node.uploaded_functions import UploadedFunctions
from statemgr.function_view import FunctionView

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.metrics_core import Metric

    from config.settings import Settings
    from statemgr.stores import Store


class FunctionSide(Collector):
    """The parts, and their metrics. `settings` are those that hold, `files_settings` what of them files say."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings = self.files_settings = settings
        self._store = store
        self.view = FunctionView(store.functions)
        self.files = FunctionFiles(store.functions, self.view, lambda: self.settings.function_parts)
        self.uploaded = UploadedFunctions(lambda: self.files_settings, store.code, self.view)
        self.definitions = LambdaDefinitions(store.functions, store.code, self.uploaded)
        self.counting = Counting(
            store.concurrency,
            reserved=lambda: self.view.reserved,
            account=lambda: self.settings.invoke.account_concurrency,
            ttl_s=settings.leasing.ttl_s,
            clock=trust_clock,
        )

    def take(self, files: Settings) -> Settings:
        """Have files' settings hold; return them with the functions that the API made. Those of files go first."""
        self.files_settings = files
        self.settings = replace(files, functions={**self.uploaded.functions, **files.functions})
        return self.settings

    async def reload(self, *, before: Settings) -> None:
        """Do what the present files' settings say that those before did not. Raises as `FunctionFiles.take_up`."""
        await self.files.take_up(before=before.function_parts)
        await self.uploaded.follow()

    async def run(self) -> None:
        """Count invocations, and follow the functions of the API, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.counting.run(), name="counting")
            tasks.create_task(self.uploaded.run(self.definitions.sweep), name="functions of the API")

    def apis(self) -> tuple[LambdaDefinitionsApi, LambdaFunctionsApi]:
        """Return the Lambda API's operations on functions, to be had over HTTP."""
        return LambdaDefinitionsApi(self.definitions), LambdaFunctionsApi(LambdaFunctions(self._store.functions, self))

    # `controlplane.lambda_functions.FunctionSurroundings`

    @property
    def account_concurrency(self) -> int:
        """Invocations of all functions at one time."""
        return self.settings.invoke.account_concurrency

    @property
    def function_count(self) -> int:
        """How many functions the node's files list."""
        return len(self.settings.functions)

    def listed_name(self, function_name: str) -> str | None:
        """Return the name of the listed function that a FunctionName means; None if it means none."""
        found = self.settings.listed_function(function_name)
        return None if found is None else found.name

    def function_arn(self, function_name: str) -> str:
        """Return the ARN by which a function is named in documents."""
        return self.settings.function_arn(function_name)

    def is_known(self, function_name: str) -> bool:
        """Whether a function can be invoked from here, listed or not."""
        return self.settings.target_for(function_name) is not None

    # `prometheus_client.registry.Collector`

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering does not collect."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of concurrency; of a function none before it was invoked, but for what is reserved."""
        running = GaugeMetricFamily(
            "esm_function_concurrency", "Invocations under way, started by this node.", labels=["function"]
        )
        for function, number in self.counting.running.items():
            running.add_metric([function], number)
        reserved = GaugeMetricFamily(
            "esm_function_reserved_concurrency", "Invocations at one time in the whole fleet.", labels=["function"]
        )
        for function, number in self.view.reserved.items():
            reserved.add_metric([function], number)
        throttles = CounterMetricFamily(
            "esm_concurrency_throttles",
            "Invocations refused for a limit of concurrency of the whole fleet.",
            labels=["function", "reason"],
        )
        for (function, reason), number in self.counting.throttles.items():
            throttles.add_metric([function, reason], number)
        fallback = GaugeMetricFamily(
            "esm_concurrency_fallback", "1 while the store is away, and each node has its share of the limits."
        )
        fallback.add_metric([], self.counting.in_fallback)
        return running, reserved, throttles, fallback, self.uploaded.metric()
