"""What the demo shows: snapshots, the screen in narrow and wide terminals, lines, and the end."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from node.demo.function import Report, Tally
from node.demo.screen import Lines, opened
from node.demo.snapshot import Due, LastError, MappingView, Observer, Phase, Produced, ShardLine, Snapshot, settled
from node.demo.summary import document, summary
from node.demo.view import Scene, line, screen
from node.printing import sparkline

if TYPE_CHECKING:
    from rich.console import RenderableType

RATES = Produced(1000, 100, 20)
SCENE = Scene(RATES, "esmd", "http://127.0.0.1:9001", "/data/esmd-demo-x/demo.yaml", "/data/esmd-demo-x/esmd.log")
MAPPINGS = (
    MappingView("archive", "Enabled", 1_234_567, 1000.4, 0, 0.0, 232.4, 12856.0, 99, 1234, 99, (900.0, 1000.0)),
    MappingView("clicks", "Enabled", 123_000, 100.0, 0, 0.0, 186.0, 1023.0, 2, 9, 6, (100.0,)),
    MappingView("mails", "Enabled", 24_000, 20.0, 0, 0.0, 7.0, 2088.0, 3, 4, 2, (20.0,)),
    MappingView("paid-orders", "Enabled", 123_456, 119.0, 1_111_111, 880.0, 21.0, 703.0, 4, 11, 7, (100.0,)),
)
SHARDS = tuple(
    ShardLine(mapping.name, f"orders-{at}", "reading", 101, "1234567", 1795251050222744, None)
    for mapping in (MAPPINGS[0], MAPPINGS[3])
    for at in range(3)
)
SHARDS += tuple(
    ShardLine("clicks", f"shardId-{at:012}", "reading", 0, "12345", 1795251050222744, None) for at in (0, 1)
)
SHARDS += tuple(ShardLine("mails", f"poller-{at}", "reading", None, None, 1795251050222744, None) for at in (0, 1))
ERROR = LastError("paid-orders orders-1", "HTTP 500: DatabaseError: deadlock detected, please retry " * 3, 3.2)
FULL = Snapshot(Phase.FLOWING, 12.3, Produced(12_000_000, 1_200_000, 240_000), 1.234, MAPPINGS, SHARDS, ERROR)


def drawn(renderable: RenderableType, width: int) -> list[str]:
    """Return the lines a console of this width shows."""
    console = Console(record=True, width=width, height=24, file=io.StringIO(), color_system=None)
    console.print(renderable)
    return console.export_text().splitlines()


def ledger(
    polled: int, delivered: int, filtered: int = 0, in_flight: int = 0, *, balanced: bool = True
) -> dict[str, Any]:
    """Make a ledger as `status` has it."""
    rest = dict.fromkeys(("destination", "dropped", "parked"), 0)
    counts = {"polled": polled, "delivered": delivered, "filtered": filtered, **rest, "in_flight": in_flight}
    return counts | {"balanced": balanced}


def status(counts: dict[str, Any], error: str | None = None) -> dict[str, Any]:
    """Make a status document with one mapping of one shard."""
    shard = {
        "id": "orders-0",
        "owner": "n",
        "fencing_token": 5,
        "checkpoint": "10",
        "lag_records": 4,
        "lag_s": 0.1,
        "state": "reading",
        "last_error": error,
    }
    mapping = {"name": "m", "uuid": "u", "state": "Enabled", "last_processing_result": "OK"}
    return {"node": "n", "nodes": [], "mappings": [{**mapping, "ledger": counts, "shards": [shard]}]}


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_screen_fits(width: int) -> None:
    """At 80x24 and wider every number of every mapping and shard is there in full."""
    lines = drawn(screen(FULL, SCENE, width), width)
    assert len(lines) <= 24
    assert all(len(shown) <= width for shown in lines)
    assert not [shown for shown in lines if "…" in shown and not shown.startswith("last error")]
    (archive,) = (shown for shown in lines if shown.startswith("archive ") and "1,234,567" in shown)
    for number in ("1,000", "232 ms", "12,856 ms", "99", "1,234"):
        assert number in archive
    assert sum("orders-" in shown and "reading" in shown and "1234567" in shown for shown in lines) == 6
    assert sum("shardId-" in shown and "reading" in shown and "12345" in shown for shown in lines) == 2
    assert sum("poller-" in shown and "reading" in shown for shown in lines) == 2
    assert "first event after 1.23 s · 12,000,000 orders, 1,200,000 clicks, 240,000 mails" in lines[1]
    assert "Ctrl-C" in lines[-1]


@pytest.mark.parametrize("width", [80, 110])
def test_the_headline_has_room_for_the_longest_demo(width: int) -> None:
    """At the highest rate and with a time limit of hours, the headline is whole."""
    scene = Scene(Produced(5000, 500, 100), "esmd", "http://127.0.0.1:9001", "c", "l", seconds=36_000)
    first = drawn(screen(Snapshot(Phase.FLOWING, 35_999), scene, width), width)[0]
    for part in ("5,000", "Kafka", "500", "Kinesis", "100", "SQS"):
        assert part in first
    assert first.rstrip().endswith(" 35,999 s of 36000 s")


def test_a_wide_screen_shows_more() -> None:
    """From 110 columns on there are bars of the last seconds and the shards' own errors and tokens."""
    wide, narrow = ("\n".join(drawn(screen(FULL, SCENE, width), width)) for width in (120, 80))
    assert "▇█" in wide
    assert "▇█" not in narrow
    assert "1795251050222744" in wide
    assert "1795251050222744" not in narrow


def test_an_unusual_address_is_named() -> None:
    """The command for another terminal names the node's address when other commands would not find it."""
    elsewhere = Scene(RATES, "esmd", "http://127.0.0.1:43210", "c", "l")
    assert "esmd status --url http://127.0.0.1:43210" in "\n".join(drawn(screen(FULL, elsewhere, 80), 80))
    assert "--url" not in "\n".join(drawn(screen(FULL, SCENE, 80), 80))


@pytest.mark.parametrize(
    ("snapshot", "told"),
    [
        (Snapshot(Phase.STARTING, 0.0), "starting Redis, Kafka, Kinesis, SQS"),
        (Snapshot(Phase.FLOWING, 0.2), "waiting for the first event"),
        (Snapshot(Phase.FINISHING, 9.0, Produced(10, 1, 1), 1.0), "finishing"),
    ],
)
def test_the_screen_tells_what_is_going_on(snapshot: Snapshot, told: str) -> None:
    """Before the first event and after the last one the screen says what is being waited for."""
    assert told in "\n".join(drawn(screen(snapshot, SCENE, 80), 80))


def test_markup_in_errors_is_shown_as_it_is() -> None:
    """What a function answers is no markup of ours."""
    error = Snapshot(Phase.FLOWING, 1.0, last_error=LastError("m s", "[bold]x[/nope]", 0.0))
    assert "[bold]x[/nope]" in "\n".join(drawn(screen(error, SCENE, 80), 80))


def test_a_line_tells_all_in_one() -> None:
    """Without a terminal each mapping's numbers stand in one line."""
    told = line(FULL)
    assert "\n" not in told
    for part in ("12.3 s", "archive: 1,000 delivered/s", "p99 703 ms", "7 throttled", "lag 303"):
        assert part in told


async def test_lines_come_once_a_second() -> None:
    """Four looks a second make one line a second, after one line that says where config and log are."""
    out = io.StringIO()
    with opened(SCENE, Console(file=out, width=80)) as seen:
        assert isinstance(seen, Lines)
        for quarter in range(9):
            await seen.show(Snapshot(Phase.FLOWING, quarter / 4, mappings=MAPPINGS))
    lines = out.getvalue().splitlines()
    assert SCENE.log in lines[0]
    assert [shown[:7] for shown in lines[1:]] == ["  0.0 s", "  1.0 s", "  2.0 s"]


def test_the_full_screen_leaves_the_terminal_as_it_was() -> None:
    """A terminal's alternate screen is entered and left, and the cursor comes back."""
    out = io.StringIO()
    with opened(SCENE, Console(file=out, force_terminal=True, width=80, height=24, _environ={"TERM": "xterm"})):
        pass
    written = out.getvalue()
    assert written.index("\x1b[?1049h") < written.index("\x1b[?1049l")
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")


def test_bars_are_relative_to_the_highest() -> None:
    """The highest of the last values is a full bar, nothing the lowest, and older values are not shown."""
    assert sparkline([0, 50, 100]) == "▁▅█"
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([1000, *[1.0] * 20]) == "█" * 20
    assert sparkline([]) == ""


def test_rates_and_recent_latencies() -> None:
    """Rates are of the last two seconds, latencies of the last ten, and counts since the beginning."""
    observer, report = Observer(), Report("", tallies={"m": Tally(errors=1, turned_away=2, retries=3)})
    seen = None
    for second in range(20):
        latency = {200: 100} if second < 5 else {200: 100, 50: 10 * (second - 4)}
        report.tallies["m"].latency = latency
        counts = ledger(200 * second, 100 * second, 100 * second)
        told = {"phase": Phase.FLOWING, "elapsed_s": float(second), "produced": Produced(), "first_after_s": None}
        seen = observer.observe(status(counts, "boom" if second == 10 else None), report, at=float(second), **told)  # type: ignore[arg-type]
    assert seen is not None
    (mapping,) = seen.mappings
    assert (mapping.delivered_per_s, mapping.filtered_per_s) == (100.0, 100.0)
    assert (mapping.delivered, mapping.errors, mapping.throttled, mapping.retries) == (1900, 1, 2, 3)
    assert mapping.p99_ms == pytest.approx(1.02**49)  # the slow ones of the beginning are older than ten seconds
    assert mapping.history == (100.0,) * 19
    assert seen.last_error == LastError("m orders-0", "boom", 9.0)
    assert seen.behind == 4


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (ledger(100, 60, 40), True),
        (ledger(100, 60, 39, 1), False),
        (ledger(99, 60, 39), False),
        (ledger(100, 60, 39, balanced=False), False),
    ],
)
def test_settled_means_everything_is_finished(counts: dict[str, Any], expected: bool) -> None:  # noqa: FBT001
    """The demo may end once every mapping has polled all its events, has none in flight and a balanced ledger."""
    assert settled(status(counts), [Due(("m",), 100)]) is expected
    assert not settled(status(counts), [Due(("m",), 100), Due(("other",), 0)])
    assert not settled({"mappings": []}, [Due(("m",), 0)])


def test_readers_of_one_queue_share_its_events() -> None:
    """What one of them has polled the other one never gets."""
    (one,), (other,) = status(ledger(60, 60))["mappings"], status(ledger(40, 40))["mappings"]
    both = {"mappings": [one, {**other, "name": "n"}]}
    assert settled(both, [Due(("m", "n"), 100)])
    assert not settled(both, [Due(("m", "n"), 101)])
    assert not settled(both, [Due(("m",), 100)])


def test_the_document_adds_seconds_and_latencies() -> None:
    """The status document is left as it is, plus the seconds and each mapping's percentiles; none are null."""
    before = status(ledger(10, 10))
    report = Report("", tallies={"m": Tally(latency={0: 98, 50: 2})})
    ended = document(before, report, 3.00049)
    assert ended["seconds"] == 3.0
    assert ended["mappings"][0].pop("latency_ms") == {"p50": 0.0, "p99": 2.6}
    assert {key: value for key, value in ended.items() if key != "seconds"} == before
    assert document(before, Report(""), 1)["mappings"][0]["latency_ms"] == {"p50": None, "p99": None}


@pytest.mark.parametrize("width", [80, 120])
def test_the_summary_says_what_was_shown(width: int) -> None:
    """People read how many events there were, that none is missing, and what to do next."""
    report = Report("", tallies={"m": Tally(errors=3, turned_away=2)})
    ended = document(status(ledger(1_000_000, 600_000, 400_000)), report, 3.0)
    told = " ".join(
        drawn(
            summary(
                ended,
                report,
                produced=Produced(1_000_000, 2000, 400),
                first_after_s=1.234,
                config="demo.yaml",
                command="esmd",
            ),
            width,
        )
    )
    for part in (
        "1,000,000 order events, 2,000 clicks and 400 mails in 3.0 s; the first was delivered 1.23 s after",
        "600,000",
        "Every event was delivered or filtered",
        "failed 3 times",
        "esmd run FILE",
    ):
        assert part in " ".join(told.split())
    left = document(status(ledger(10, 9, 0, 1)), report, 3.0)
    told = " ".join(
        drawn(
            summary(left, report, produced=Produced(10), first_after_s=None, config="demo.yaml", command="esmd"), width
        )
    )
    assert "Some events were not delivered" in told


def test_a_schedule_has_a_line_of_its_own() -> None:
    """When it fires next and how often it has; its shard is not among those that are read, and all still fits."""
    tidy = MappingView("tidy", "Enabled", 3, next_firing="2026-03-01T12:00:00Z")
    shard = ShardLine("tidy", "schedule", "reading", 0, "1795251050222744", 1795251050222744, None)
    full = replace(FULL, mappings=(*MAPPINGS, tidy), shards=(*SHARDS, shard))
    shown = drawn(screen(full, SCENE, 80), 80)
    assert len(shown) <= 24
    assert "tidy: next firing 2026-03-01T12:00:00Z, 3 so far" in shown
    assert not any(line.startswith("tidy ") for line in shown)
    assert line(full).count("tidy: next firing 2026-03-01T12:00:00Z, 3 so far") == 1


def test_without_sandboxes_the_screen_says_why() -> None:
    """Where otherwise no error would be shown; an error is more important."""
    scene = replace(SCENE, no_sandboxes="it needs AWS's runtime client: pip install 'esmd[functions]'")
    (note,) = [
        shown for shown in drawn(screen(replace(FULL, last_error=None), scene, 200), 200) if "sandboxes" in shown
    ]
    assert note.endswith("pip install 'esmd[functions]'")
    assert not any("sandboxes" in shown for shown in drawn(screen(FULL, scene, 200), 200))
