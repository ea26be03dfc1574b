"""What a function in a sandbox costs: its cold start, and the way of a batch to a warm one and back, in process.

The function is the smallest in Python, run by AWS's runtime client. Pollers call the worker manager just so. A round
starts five environments, one after the other, and invokes one of them with 100 records (22 kB) again and again; then
two at a time, with all sandboxes on one CPU and the worker manager on another, to see how much of what the runtime
client can take on that CPU it is given. Over HTTP it is 1 kB, to a node as users run it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
import urllib.request
from random import Random
from typing import TYPE_CHECKING

import uvloop
from yarl import URL

from benchmarks.machine import pin
from benchmarks.processes import BenchmarkFailedError, Child
from benchmarks.results import Figure, Row, percentile
from benchmarks.sampling import wait_for
from config.secrets import Secrets
from invocation.classify import Answer
from invocation.invoking import InvocationResult, Request
from invocation.roster import Terms
from invocation.sandboxes import Sandboxes
from invocation.settings import HandlerFunction
from invocation.transport import Transport
from invocation.worker_manager import WorkerManager
from model.placement import Capacity
from node import logs

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from benchmarks.bench import Bench

_STARTS = 5
_SMALL = 1000
_WARM = 20  # invocations before measuring
_RECORDS = 100
_EVENT = json.dumps({"Records": [{"number": i, "data": "x" * 200} for i in range(_RECORDS)]}).encode()


class Sandbox:
    """Cold and warm invocations. `benchmarks.bench.Case`."""

    name = "sandbox"

    def run(self, bench: Bench) -> Iterable[Row]:
        """Measure."""
        bench.say(self.name)
        logs.configure()  # as a node does, and away from the table
        code = bench.home / "sandbox"
        code.mkdir()
        (code / "app.py").write_text("def handler(event, context):\n    return len(event['Records'])\n")
        cold: list[float] = []
        p50: list[float] = []
        p99: list[float] = []
        per_s: list[float] = []
        ratios: list[float] = []
        for number in range(bench.options.rounds):
            alone = _alone(bench, code) if number % 2 else 0.0
            started, warm, given = uvloop.run(_round(bench, code))
            alone = alone or _alone(bench, code)
            cold.append(percentile(started, 0.5))
            p50.append(percentile(warm, 0.5))
            p99.append(percentile(warm, 0.99))
            per_s.append(given)
            ratios.append(per_s[-1] / alone)
        figures = [("cold start", cold), ("warm p50", p50), ("warm p99", p99)]
        yield Row(
            self.name,
            (
                *(Figure.of(name, "ms", values) for name, values in figures),
                Figure.of("records/s", "1/s", per_s),
                Figure.of("of the runtime client alone", "", ratios),
            ),
        )


class InvokeOverHttp:
    """A warm function, invoked through a node's front end at a rate. `benchmarks.bench.Case`.

    A call that is due while the one before has not come back waits, and its waiting counts.
    """

    name = "invoke-http"

    def run(self, bench: Bench) -> Iterable[Row]:
        """Measure."""
        bench.say(self.name)
        code = bench.home / "invoke"
        code.mkdir()
        (code / "app.py").write_text("def handler(event, context):\n    return len(event['data'])\n")
        function = {"handler": "app.handler", "code": str(code)}
        p50: list[float] = []
        p99: list[float] = []
        with bench.redis() as redis, bench.node(None, redis=redis, functions={"f": function}) as node:
            wait_for(node.ready, "a node", within_s=60)
            url = URL(f"{node.url}/2015-03-31/functions/f/invocations")
            for _ in range(bench.options.rounds):
                took = uvloop.run(_calls(url, bench.options.seconds, bench.options.rate))
                p50.append(percentile(took, 0.5))
                p99.append(percentile(took, 0.99))
        yield Row(self.name, (Figure.of("warm p50", "ms", p50), Figure.of("warm p99", "ms", p99)))


def _alone(bench: Bench, code: Path) -> float:
    """Return the records a second that AWS's runtime client takes from a Runtime API that only hands out events."""
    event = bench.home / "event.json"
    event.write_bytes(_EVENT)
    with Child(
        "benchmarks.runtime_floor", ["--event", str(event)], cpus=bench.cpus.measured, stdout=subprocess.PIPE
    ) as api:
        url = api.line()
        env = {"AWS_LAMBDA_RUNTIME_API": url.removeprefix("http://"), "PYTHONPATH": str(code)}
        log = bench.home / "runtime.log"
        with Child("awslambdaric", ["app.handler"], cpus=bench.cpus.others, env=env, log=log):
            wait_for(lambda: _answers(url) > _WARM, "the runtime client")
            began, before = time.perf_counter(), _answers(url)
            time.sleep(bench.options.seconds)
            return _RECORDS * (_answers(url) - before) / (time.perf_counter() - began)


def _answers(url: str) -> int:
    with urllib.request.urlopen(f"{url}/count", timeout=10) as answer:  # noqa: S310  # our own server
        return int(answer.read())


async def _calls(url: URL, seconds: float, rate: float) -> list[float]:
    """Return milliseconds of calls that were due at a rate."""
    event = json.dumps({"data": "x" * _SMALL}).encode()
    took: list[float] = []
    async with Transport() as transport:
        await transport.post(url, event, {}, timeout_s=10)
        began = time.perf_counter()
        for number in range(max(int(seconds * rate), 1)):
            late_s = time.perf_counter() - (began + number / rate)
            if late_s < 0:
                await asyncio.sleep(-late_s)
                late_s = 0.0  # a timer of the loop is late by up to a millisecond, which is not the node's fault
            sent = time.perf_counter()
            came = await transport.post(url, event, {}, timeout_s=10)
            took.append((time.perf_counter() - sent + late_s) * 1000)
            if not isinstance(came, Answer) or came.body != b"%d" % _SMALL:
                raise BenchmarkFailedError(f"the function did not answer: {came}")
    return took


async def _round(bench: Bench, code: Path) -> tuple[list[float], list[float], float]:
    """Return milliseconds of cold and of warm invocations, and the records a second that two environments are given."""
    seconds = bench.options.seconds
    sandboxes = Sandboxes(Secrets(), region="us-east-1", arn=str)
    workers = WorkerManager(sandboxes.make, Capacity(_STARTS, 10_000), Terms(3600.0, 300.0), random=Random(1))
    functions = [HandlerFunction(f"f{i}", "app.handler", str(code)) for i in range(_STARTS)]
    try:
        cold = [await _timed(workers, function) for function in functions]
        warm = await _for(seconds, workers, functions[0])
        pin(0, bench.cpus.measured)  # the sandboxes stay where they were started
        async with asyncio.TaskGroup() as tasks:
            both = [tasks.create_task(_for(seconds, workers, function)) for function in functions[:2]]
    finally:
        pin(0, bench.cpus.others)
        await workers.aclose()
        sandboxes.close()
    return cold, warm, _RECORDS * sum(len(one.result()) for one in both) / seconds


async def _for(seconds: float, workers: WorkerManager, function: HandlerFunction) -> list[float]:
    until = time.monotonic() + seconds
    took: list[float] = []
    while time.monotonic() < until:
        took.append(await _timed(workers, function))
    return took


async def _timed(workers: WorkerManager, function: HandlerFunction) -> float:
    began = time.perf_counter()
    came = await workers.invoke(function, Request(_EVENT, "id"))
    took_ms = (time.perf_counter() - began) * 1000
    if not isinstance(came, InvocationResult) or came.payload != b"%d" % _RECORDS:
        raise BenchmarkFailedError(f"the function did not answer: {came}")
    return took_ms
