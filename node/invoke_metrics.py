"""What the front end's callers were answered, by function: counted in plain numbers, read by a scrape."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from invocation.front_answers import FUNCTION_ERROR
from node.telemetry import cumulative
from pollers.counters import DurationHistogram

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.metrics_core import Metric

    from invocation.classify import Answer

_OK, _ACCEPTED, _THROTTLED, _FIRST_OF_SERVICE = 200, 202, 429, 500


class Result(StrEnum):
    """What an invocation came to."""

    OK = "ok"
    ACCEPTED = "accepted"  # to be invoked later
    ERROR = "error"  # of the function
    THROTTLED = "throttled"
    REFUSED = "refused"  # the request cannot be taken from anybody
    FAILED = "failed"  # the function was not reached, or could not be run


@dataclass(slots=True)
class FunctionMeter:
    """The counts of one function."""

    results: Counter[Result] = field(default_factory=Counter)
    durations: DurationHistogram = field(default_factory=DurationHistogram)  # of those that reached the function


class InvokeMeters(Collector):
    """The counts of all functions, and their metrics."""

    def __init__(self) -> None:
        self._functions: dict[str, FunctionMeter] = {}

    def count(self, function: str, answer: Answer, took_s: float) -> None:
        """Count an invocation of a function of the configuration, whose names are few."""
        meter = self._functions.get(function)
        if meter is None:
            meter = self._functions[function] = FunctionMeter()
        result = _result(answer)
        meter.results[result] += 1
        if answer.status == _OK:
            meter.durations.observe(took_s)

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering does not collect."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return the metrics; none before a function was invoked."""
        results = CounterMetricFamily(
            "esm_frontend_invocations", "Invocations over the Invoke API.", labels=["function", "result"]
        )
        durations = HistogramMetricFamily(
            "esm_frontend_duration_seconds", "Time from a request's head to its answer.", labels=["function"]
        )
        for function, meter in self._functions.items():
            for result in Result:
                results.add_metric([function, result], meter.results[result])
            durations.add_metric([function], *cumulative(meter.durations))
        return results, durations


def _result(answer: Answer) -> Result:
    if answer.status == _OK:
        return Result.ERROR if FUNCTION_ERROR in answer.headers else Result.OK
    if answer.status == _ACCEPTED:
        return Result.ACCEPTED
    if answer.status == _THROTTLED:
        return Result.THROTTLED
    return Result.FAILED if answer.status >= _FIRST_OF_SERVICE else Result.REFUSED
