"""Functions that a file adds to the demo: which they are, what is seen of them, and how that looks."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from config.load import load
from config.yaml_document import read_document
from model.ids import MappingId, ShardId, ShardKey
from model.invocation import Invocation
from model.mapping import SourceKind
from model.outcome import Delivered, FunctionFailed, NotReached, PartlyFailed, Throttled
from node.demo.added import KINDS, AddedFunction, FunctionView, added_functions, reduced, told, views
from node.demo.function import Report, Tally
from node.demo.latency import Latencies
from node.demo.producers import QUEUE_ARN, Producers, Readers, added_queues
from node.demo.screen import opened
from node.demo.show import SHIPPED
from node.demo.snapshot import Due, MappingView, Phase, ShardLine, Snapshot
from node.demo.summary import document, summary
from node.demo.view import line, screen
from node.demo.watching import Watch
from pollers.tracing import UntracedAttempt
from tests.support.node_process import ROOT
from tests.unit.test_demo_view import FULL, SCENE, drawn, ledger, status

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from model.mapping import EventSourceMapping
    from model.outcome import Outcome

EXAMPLE = ROOT / "examples/functions/demo.yaml"
LOCAL = AddedFunction("local", "python3", {"local-orders": SourceKind.KAFKA, "local-minute": SourceKind.SCHEDULE})
NODEJS = AddedFunction("nodejs", "nodejs", {"nodejs-orders": SourceKind.KAFKA}, "needs AWS's runtime client")
ADDED = (
    FunctionView(LOCAL, 1234, 5, {SourceKind.KAFKA: 98_765, SourceKind.SCHEDULE: 7}),
    FunctionView(NODEJS, 0, 0, {SourceKind.KAFKA: 0}),
)
TWO = """
functions:
  mine: {handler: app.handler, code: /c, timeout: 7}
  other: {url: "http://127.0.0.1:1/", timeout: 1}
event_source_mappings:
  - {Name: a, FunctionName: mine, EventSourceArn: "arn:aws:sqs:us-east-1:000000000000:more"}
  - {Name: b, FunctionName: other, EventSourceArn: "arn:aws:sqs:us-east-1:000000000000:more"}
  - Name: c
    FunctionName: other
    EventSourceArn: arn:aws:kinesis:us-east-1:000000000000:stream/else
    StartingPosition: LATEST
"""


def test_the_example_has_every_function_on_every_kind_of_source() -> None:
    """Python, Node.js and a shell script, each on the topic, the stream, a queue of its own and a schedule."""
    settings = load([SHIPPED, EXAMPLE], environ={})
    found = added_functions(settings, str(EXAMPLE), {})
    assert [(one.name, one.runtime) for one in found] == [
        ("local", "python3"),
        ("nodejs", "nodejs"),
        ("shell", "provided"),
    ]
    for one in found:
        assert sorted(one.mappings.values()) == sorted(KINDS)
    readers = Readers.of(settings.mappings)
    assert len(readers.orders) == 2 + 3
    assert len(readers.clicks) == 1 + 3
    assert {name for names in readers.queues.values() for name in names} == {
        "mails",
        *[f"{one.name}-mails" for one in found],
    }
    assert len(readers.queues) == 1 + 3
    queues = added_queues(settings)
    assert set(queues) == set(readers.queues) - {QUEUE_ARN}
    assert set(queues.values()) == {10}  # a message stays hidden for as long as its function may take


def test_queues_may_be_shared_and_other_sources_are_nobodys(tmp_path: Path) -> None:
    """Mappings of one queue finish its messages together; the longest of their functions says how long they hide."""
    path = tmp_path / "mine.yaml"
    path.write_text(TWO)
    settings = load([SHIPPED, path], environ={})
    arn = "arn:aws:sqs:us-east-1:000000000000:more"
    assert added_queues(settings) == {arn: 7}
    assert [one.runtime for one in added_functions(settings, str(path), {})] == ["python3", "elsewhere"]
    readers = Readers.of(settings.mappings)
    assert readers.queues[arn] == ("a", "b")
    assert readers.others == ("tidy", "c")
    producers = Producers.made(1000, 1, added_queues(settings))
    producers.orders.produced, producers.added[arn].produced = 5, 3
    due = producers.due(readers)
    assert Due(("a", "b"), 3) in due
    assert Due(("c",), 0) in due
    assert Due(("archive",), 5) in due
    snapshot = Snapshot(Phase.FLOWING, 1.0, mappings=tuple(MappingView(name, delivered=1) for name in "ab"))
    assert snapshot.unfinished(("a", "b"), 3) == 1


def test_what_cannot_run_is_left_out_with_its_mappings() -> None:
    """All the rest stays as it was written, merged keys included."""
    whole: Any = read_document(EXAMPLE).value
    left = reduced(whole, ["nodejs"])
    assert list(left["functions"]) == ["local", "shell"]
    names = [one["Name"] for one in left["event_source_mappings"]]
    assert len(names) == 8
    assert not [name for name in names if name.startswith("nodejs")]
    assert reduced(whole, []) == whole
    assert reduced({"functions": None}, ["x"]) == {"functions": {}, "event_source_mappings": []}


def test_what_functions_have_done_is_told_by_kind_of_source() -> None:
    """Events are the ledger's, calls and errors what was watched; of what is missing the reason is told."""
    (mapping,) = status(ledger(10, 9))["mappings"]
    now = {"mappings": [{**mapping, "name": "local-orders"}, {**mapping, "name": "elsewhere"}]}
    seen = views((LOCAL, NODEJS), now, {"local-orders": Tally(calls=3, errors=1), "elsewhere": Tally(calls=9)})
    assert (seen[0].calls, seen[0].errors) == (3, 1)
    assert told(seen[0]) == {
        "name": "local",
        "runtime": "python3",
        "calls": 3,
        "errors": 1,
        "delivered": {"kafka": 9, "schedule": 0},
        "missing": None,
    }
    assert told(seen[1])["missing"] == "needs AWS's runtime client"


class Inner:
    """A tracing of somebody else's that notes what it is told."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome | None] = []

    def __call__(self, mapping: EventSourceMapping) -> Inner:
        """Trace every mapping."""
        return self

    def attempt(self, invocation: Invocation, records: int) -> UntracedAttempt:
        """Note what comes of it."""
        noted = self.outcomes

        class Noted(UntracedAttempt):
            __slots__ = ()

            def __exit__(self, *_: object) -> None:
                noted.append(self.outcome)

        return Noted(invocation)


KAFKA = b'{"records": {"orders-0": [{"topic": "orders", "partition": 0, "offset": 7, "timestamp": 1500}]}}'
FIRING = b'{"source": "aws.events", "time": "1970-01-01T00:00:01Z"}'


@pytest.fixture
def attempt(monkeypatch: pytest.MonkeyPatch) -> tuple[Watch, Inner, Callable[..., None]]:
    """Make attempts at batches of a watched mapping, two seconds after the epoch."""
    monkeypatch.setattr("node.demo.watching.time.time", lambda: 2.0)
    (own,) = [one for one in load([SHIPPED], environ={}).mappings if one.name == "tidy"]
    watch, inner = Watch(["tidy"]), Inner()
    tracing = watch(inner)(own)
    shard = ShardKey(MappingId("m"), ShardId("s"))

    def attempted(outcome: Outcome | None, event: bytes = KAFKA, records: int = 1, number: int = 1) -> None:
        with tracing.attempt(Invocation(event, "tidy", shard, 1, "b", number), records) as made:
            assert made.invocation.event == event
            made.outcome = outcome

    return watch, inner, attempted


def test_calls_are_watched_from_the_nodes_side(attempt: tuple[Watch, Inner, Callable[..., None]]) -> None:
    """Calls, failures, retries, throttles and latencies; what traces the mapping besides sees all the same."""
    watch, inner, attempted = attempt
    outcomes = [Delivered(), PartlyFailed(frozenset({1})), FunctionFailed("x"), Throttled("x"), NotReached("x"), None]
    for outcome in outcomes:
        attempted(outcome)
    attempted(Delivered(), FIRING, 1, 2)
    attempted(Delivered(), b"no event of these")
    tally = watch.tallies["tidy"]
    assert (tally.calls, tally.errors, tally.turned_away, tally.retries, tally.records) == (5, 2, 1, 1, 3)
    expected = Latencies()
    expected.add(500)
    expected.add(1000)
    assert tally.latency == expected.counts
    assert inner.outcomes[: len(outcomes)] == outcomes


def test_other_mappings_are_left_to_what_traces_them() -> None:
    """Nothing stands between."""
    inner = Inner()
    (own,) = [one for one in load([SHIPPED], environ={}).mappings if one.name == "clicks"]
    assert Watch(["tidy"])(inner)(own) is inner


SCENE_ADDED = replace(SCENE, missing={"nodejs": "needs AWS's runtime client"})
MORE = tuple(MappingView(name, "Enabled", 5) for name in ("local-orders", "nodejs-orders"))
TICKS = MappingView("local-minute", "Enabled", 7, next_firing="2026-03-01T12:00:00Z")
TROUBLE = ShardLine("clicks", "shardId-000000000009", "failed", 0, "1", 1, "gone")
SHARD = ShardLine("local-orders", "orders-0", "reading", 7_654_321, "9", 1, None)
SNAPSHOT = replace(
    FULL, mappings=(*FULL.mappings, *MORE, TICKS), shards=(*FULL.shards, TROUBLE, SHARD), functions=ADDED
)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 24), (120, 60)])
def test_the_screen_has_room_for_added_functions(width: int, height: int) -> None:
    """They have a table of their own; shards make room for it, those in trouble last."""
    lines = drawn(screen(SNAPSHOT, SCENE_ADDED, width, height), width)
    assert len(lines) <= height
    (local,) = [shown for shown in lines if shown.startswith("local ")]
    assert local.split() == ["local", "python3", "1,234", "98,765", "-", "-", "7", "5"]
    (nodejs,) = [shown for shown in lines if shown.startswith("nodejs ")]
    assert nodejs.split() == ["nodejs", "nodejs", *"-" * 6]
    assert any(shown.startswith("note ") and "function nodejs does not run here: needs AWS" in shown for shown in lines)
    assert any("shardId-000000000009" in shown and "failed" in shown for shown in lines)
    text = "\n".join(lines)
    assert "7,654,321" not in text  # shards of added mappings
    assert "local-minute" not in text
    assert ("shard (" in text) == (height == 24)
    assert "Ctrl-C" in lines[-1]


def test_without_a_terminal_added_functions_are_told_shortly() -> None:
    """Their calls at the end of each line, and once why one does not run."""
    assert "local: 1,234 calls | lag" in line(SNAPSHOT)
    assert "local-orders" not in line(SNAPSHOT)
    assert "nodejs" not in line(SNAPSHOT)


async def test_what_does_not_run_is_told_at_the_beginning() -> None:
    """Once, before the lines that come each second."""
    out = io.StringIO()
    with opened(SCENE_ADDED, Console(file=out, width=80)) as seen:
        await seen.show(SNAPSHOT)
        await seen.show(replace(SNAPSHOT, elapsed_s=99.0))
    assert out.getvalue().count("function nodejs does not run here: needs AWS's runtime client") == 1


def test_the_document_and_the_summary_tell_of_added_functions() -> None:
    """The document has all mappings and a list of functions; in the summary they have a table of their own."""
    (mapping,) = status(ledger(10, 10))["mappings"]
    now = {"mappings": [mapping, {**mapping, "name": "local-orders"}]}
    report = Report("", tallies={"local-orders": Tally(latency={50: 2})})
    ended = document(now, report, 3.0, ADDED)
    assert [one["latency_ms"]["p50"] for one in ended["mappings"]] == [None, 2.6]
    assert ended["functions"] == [told(view) for view in ADDED]
    shown = drawn(
        summary(ended, report, produced=FULL.produced, first_after_s=None, config="c", command="esmd", added=ADDED),
        100,
    )
    assert not [one for one in shown if one.startswith("local-orders")]
    (local,) = [one for one in shown if one.startswith("local ")]
    assert local.split() == ["local", "python3", "1,234", "98,765", "-", "-", "7", "5"]
    assert "functions" not in document(now, report, 3.0)
