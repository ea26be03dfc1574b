"""Which parts a mapping gets: `node.parts`."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from config.load import load
from invocation.client import Targets
from invocation.invoking import NotInvoked, Request, throttled
from invocation.local_target import LocalTarget
from invocation.settings import HandlerFunction
from invocation.signing import LocalSigner
from model.errors import RefusedError
from node.parts import Parts, unsupported_settings, works_alike
from node.redrive_parts import RedriveParts
from pollers.checkpointer import Checkpointer
from pollers.counters import Meters
from pollers.destinations.aws_clients import AwsClients
from pollers.destinations.results import OneMessage
from pollers.destinations.sqs import SqsDestination
from pollers.pump_parts import PumpParts
from pollers.queue_calls import QueueParts
from pollers.sources.kinesis import KinesisSource
from pollers.sources.kinesis_envelope import KinesisEnvelope
from pollers.sources.schedule import Schedules
from pollers.sources.schedule_envelope import ScheduleEnvelope
from statemgr.memory_store import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from config.settings import Settings

STREAM = "arn:aws:kinesis:us-east-1:000000000000:stream/clicks"
DOCUMENT = """
functions: {{f: {{url: "http://127.0.0.1:9/"}}}}
event_source_mappings:
  - {{Name: clicks, EventSourceArn: {arn}, FunctionName: f, StartingPosition: LATEST, {more}}}
"""


def settings_of(folder: Path, arn: str = STREAM, more: str = "ParallelizationFactor: 4") -> Settings:
    """Read a configuration with one mapping."""
    file = folder / "esmd.yaml"
    file.write_text(DOCUMENT.format(arn=arn, more=more))
    return load([file], environ={})


@asynccontextmanager
async def parts_of(settings: Settings, runner: Any = None) -> AsyncIterator[Parts]:
    """Make what chooses a node's parts."""
    resolver: Any = None
    async with asyncio.TaskGroup() as tasks, Targets(resolver, runner=runner) as targets:
        yield Parts(
            settings,
            tasks=tasks,
            resolver=resolver,
            targets=targets,
            aws=AwsClients(region="us-east-1"),
            meters=Meters(),
            checkpointer=Checkpointer(MemoryStore()),
        )


def test_a_kinesis_mapping_is_supported_with_tumbling_windows_too(tmp_path: Path) -> None:
    """What this version does is not refused."""
    assert unsupported_settings(settings_of(tmp_path)) == []
    assert unsupported_settings(settings_of(tmp_path, more="TumblingWindowInSeconds: 10")) == []


@pytest.mark.parametrize("arn", [STREAM, f"{STREAM}/consumer/c:1"], ids=["stream", "consumer"])
async def test_a_kinesis_mapping_is_read_in_order(tmp_path: Path, arn: str) -> None:
    """Partial responses stop at the lowest failure, lanes are the ParallelizationFactor, nobody is warned."""
    settings = settings_of(tmp_path, arn)
    async with parts_of(settings) as make:
        with capture_logs() as logged:
            parts = make(settings.mappings[0])
    assert isinstance(parts, PumpParts)
    assert isinstance(parts.source, KinesisSource)
    assert isinstance(parts.envelope, KinesisEnvelope)
    assert (parts.policy.in_order, parts.lanes) == (True, 4)
    assert logged == []


async def test_a_schedule_has_a_source_an_event_and_a_destination_of_its_own(tmp_path: Path) -> None:
    """A firing may be as late as the function may run, and a minute; nobody outside is asked; it is not redriven."""
    file = tmp_path / "esmd.yaml"
    queue = "arn:aws:sqs:us-east-1:000000000000:failed"
    file.write_text(
        'functions: {f: {url: "http://127.0.0.1:9/", timeout: 40}}\n'
        'event_source_mappings: [{Name: s, schedule: "rate(1 day)", FunctionName: f, '
        f"DestinationConfig: {{OnFailure: {{Destination: '{queue}'}}}}}}]"
    )
    settings = load([file], environ={})
    (mapping,) = settings.mappings
    none: Any = None
    async with parts_of(settings) as make:
        parts = make(mapping)
        assert await make.look(mapping) is None
        redriving = RedriveParts(make, resolver=none, targets=none, aws=none)
        with pytest.raises(RefusedError, match="firings of a schedule are not redriven"):
            redriving.reader(mapping)
    assert isinstance(parts, PumpParts)
    assert isinstance(parts.source, Schedules)
    assert isinstance(parts.envelope, ScheduleEnvelope)
    assert isinstance(parts.destination, SqsDestination)
    assert parts.source.grace_s == 100.0
    assert (parts.filter, parts.lanes, parts.policy.maximum_retry_attempts) == (None, 1, 2)


@pytest.mark.parametrize(
    ("function", "timeout_s"),
    [
        ('url: "http://127.0.0.1:9/", timeout: 300', 300),
        ('url: "http://127.0.0.1:9/"', 30),
        ('arn: "arn:aws:lambda:us-east-1:000000000000:function:f", timeout: 900', 900),
        ('arn: "arn:aws:lambda:us-east-1:000000000000:function:f"', None),
        ('rie: ["http://127.0.0.1:9"]', None),
    ],
)
async def test_a_queues_pollers_know_how_long_the_function_may_run(
    tmp_path: Path, function: str, timeout_s: float | None
) -> None:
    """For a URL esmd itself ends a call after 30 s; of other functions only a timeout that is given is known."""
    file = tmp_path / "esmd.yaml"
    file.write_text(
        f"functions: {{f: {{{function}}}}}\n"
        "event_source_mappings: [{Name: q, EventSourceArn: 'arn:aws:sqs:us-east-1:000000000000:q', FunctionName: f}]"
    )
    settings = load([file], environ={})
    async with parts_of(settings) as make:
        parts = make(settings.mappings[0])
    assert isinstance(parts, QueueParts)
    assert parts.function_timeout_s == timeout_s


def test_embedded_aws_services_are_started(tmp_path: Path) -> None:
    """They are no longer refused."""
    file = tmp_path / "esmd.yaml"
    file.write_text("embedded: {aws: {}}")
    assert unsupported_settings(load([file], environ={})) == []


@pytest.mark.parametrize(
    ("function", "refused"),
    [
        ("{handler: app.handler, code: .}", None),
        ("{handler: app.handler, code: /no/such}", "function f: code: /no/such is no folder"),
        ("{handler: app.handler, code: ., runtime: ruby}", "function f: runtime ruby is not run"),
        ("{handler: app.handler, code: ., isolation: bubblewrap}", "needs the program bwrap"),
    ],
)
def test_functions_that_this_machine_cannot_run_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, refused: str | None
) -> None:
    """At start, where the mapping stands, with what is missing."""
    monkeypatch.setenv("PATH", "")
    file = tmp_path / "esmd.yaml"
    file.write_text(DOCUMENT.format(arn=STREAM, more="").replace('{url: "http://127.0.0.1:9/"}', function))
    problems = unsupported_settings(load([file], environ={}))
    if refused is None:
        assert problems == []
    else:
        (problem,) = problems
        assert (problem.path, problem.line) == ("event_source_mappings clicks", 4)
        assert refused in problem.rule


async def test_calls_of_an_embedded_service_need_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """They go to the address of this node's server in any Region, signed by nobody in particular."""
    monkeypatch.setenv("AWS_PROFILE", "not-there")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:8")
    signer = LocalSigner("kinesis", "http://127.0.0.1:9", region="us-east-1")
    assert await signer.endpoint("eu-west-1") == ("http://127.0.0.1:9", "eu-west-1")
    assert await signer.endpoint(None) == ("http://127.0.0.1:9", "us-east-1")
    signed = await signer.sign("http://127.0.0.1:9/", "eu-west-1", {"X-Amz-Target": "T"}, b"{}")
    assert "Credential=embedded/" in signed["Authorization"]
    assert "/eu-west-1/kinesis/" in signed["Authorization"]


def test_a_source_of_another_kind_is_a_mistake() -> None:
    """The program's, not the user's."""
    caller: Any = None
    other: Any = type("Mapping", (), {"source": None, "name": "orders"})
    with pytest.raises(TypeError, match="orders is no Kinesis mapping"):
        KinesisSource(other, caller)


async def test_a_topic_for_results_is_on_the_cluster_of_the_functions_mapping(tmp_path: Path) -> None:
    """Of another function's mapping where there is none of its own; without any, nobody knows which cluster it is."""
    file = tmp_path / "esmd.yaml"
    mappings = [
        {
            "Name": name,
            "FunctionName": name,
            "StartingPosition": "LATEST",
            "Topics": [name],
            "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": [f"{name}.example:9092"]}},
        }
        for name in ("a", "b")
    ]
    functions = {name: {"url": "http://127.0.0.1:9/"} for name in ("a", "b", "c")}
    file.write_text(json.dumps({"functions": functions, "event_source_mappings": mappings}))
    async with parts_of(load([file], environ={})) as parts:
        servers = {name: parts.result_topic("kafka://t", name, OneMessage())._servers for name in functions}
    assert servers == {"a": ("a.example:9092",), "b": ("b.example:9092",), "c": ("a.example:9092",)}
    async with parts_of(settings_of(tmp_path)) as parts:
        with pytest.raises(RefusedError, match="no Kafka mapping"):
            parts.result_topic("kafka://t", "f", OneMessage())


async def test_a_handler_is_called_as_it_is_now(tmp_path: Path) -> None:
    """Its one target follows new settings; who asks with those from before gets the same one, and changes nothing."""

    class Runner:
        def __init__(self) -> None:
            self.ran: list[HandlerFunction] = []

        async def invoke(self, function: HandlerFunction, request: Request) -> NotInvoked:
            del request
            self.ran.append(function)
            return throttled(own_limit=True)

    before = HandlerFunction("f", "app.handler", "before")
    after, longer = replace(before, code="after"), replace(before, timeout_s=9.0)
    settings = replace(settings_of(tmp_path), functions={"f": before})
    runner = Runner()
    async with parts_of(settings, runner) as make:
        target = make.target(before)
        make.take(replace(settings, functions={"f": after}))
        assert make.target(before) is make.target(after) is target
        assert isinstance(target, LocalTarget)
        await target.run(Request(b"{}", "id", None, ""))
    assert runner.ran == [after]
    assert works_alike(before, after)
    assert not works_alike(before, longer)
    assert not works_alike(before, None)


async def test_a_replay_to_another_function_is_none_of_the_mappings_own(tmp_path: Path) -> None:
    """Its invocations are traced as that function's, and counted nowhere among the mapping's own."""
    traced: list[str] = []

    def traces(mapping: Any) -> Any:
        traced.append(mapping.function_name)
        return f"traces of {mapping.function_name}"

    settings = settings_of(tmp_path)
    settings = replace(settings, functions={**settings.functions, "g": replace(settings.functions["f"], name="g")})
    async with parts_of(settings) as make:
        make._traces = traces
        none: Any = None
        redriving = RedriveParts(make, resolver=none, targets=none, aws=none)
        own = make(settings.mappings[0])
        assert isinstance(own, PumpParts)
        other = redriving.for_function(own, "g")
        assert traced == ["f", "g"]
        assert str(other.tracing) == "traces of g"
        assert other.counters is not own.counters
        assert other.gate is not own.gate
        other.gate.close()
        await own.close()
