"""How a snapshot looks: a full screen for a terminal, a line for everything else. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from model.mapping import SourceKind
from node.client import DEFAULT_URL
from node.demo.added import KINDS
from node.demo.snapshot import Phase
from node.printing import sparkline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from node.demo.added import FunctionView
    from node.demo.snapshot import LastError, MappingView, Produced, ShardLine, Snapshot

WIDE = 110
"""From this many columns on there is room for the sparkline and the errors of shards."""

_FRAME = 10  # lines of the screen besides those of mappings, added functions and shards
_READING = "reading"
_KINDS = {
    SourceKind.KAFKA: "Kafka",
    SourceKind.KINESIS: "Kinesis",
    SourceKind.SQS: "SQS",
    SourceKind.SCHEDULE: "schedule",
}
_ERROR_SHOWN_S = 60.0
_STATE_STYLES = {"reading": "green", "retrying": "yellow", "waiting": "yellow", "failed": "bold red"}


@dataclass(frozen=True, slots=True)
class Scene:
    """What stays the same during a demo."""

    rates: Produced  # a second
    command: str  # how to call esmd here
    node_url: str
    config: str
    log: str
    seconds: float | None = None
    no_sandboxes: str | None = None  # why functions do not run in any
    missing: Mapping[str, str] = field(default_factory=dict)  # why added functions do not run, by name


def screen(snapshot: Snapshot, scene: Scene, width: int, height: int | None = None) -> RenderableType:
    """Return the whole screen: 24 lines for four mappings of ten shards and a schedule, so that 80x24 shows all.

    With added functions there is room for as many shards as `height` leaves. No `height`: as long as it gets.
    """
    names = {mapping.name for mapping in snapshot.own}
    shards, wide = [shard for shard in snapshot.shards if shard.mapping in names], width >= WIDE
    functions = _added(snapshot, scene)
    room = len(shards)
    if functions and height is not None:
        # Their table is one of the parts, and takes a line for its heading and one for each of them.
        room = max(1, height - _FRAME - len(names) - len(snapshot.functions) - len(functions))
    return Group(
        _headline(snapshot, scene, width),
        _first(snapshot),
        _schedule(snapshot.schedules),
        _mappings(snapshot.own, wide=wide),
        Text(),
        *functions,
        _shards(shards, room, wide=wide),
        Text(),
        _error(snapshot.last_error, scene.no_sandboxes),
        _hint("config", f"{scene.config}; the log is {PurePath(scene.log).name} beside it"),
        _hint("try", f"{scene.command} status{_url(scene)}   in another terminal; Ctrl-C ends it"),
    )


def line(snapshot: Snapshot) -> str:
    """Return the present state as a line of text."""
    if snapshot.phase is Phase.STARTING:
        return f"{snapshot.elapsed_s:5.1f} s  starting"
    parts = [
        f"{mapping.name}: {mapping.delivered_per_s:,.0f} delivered/s, {mapping.delivered:,} in all, "
        f"{mapping.filtered:,} filtered, p50 {ms(mapping.p50_ms)}, p99 {ms(mapping.p99_ms)}, "
        f"{mapping.errors} errors, {mapping.throttled} throttled"
        for mapping in snapshot.own
    ]
    parts += [_firings(mapping) for mapping in snapshot.schedules]
    parts += [f"{view.function.name}: {view.calls:,} calls" for view in snapshot.functions if not view.function.missing]
    return f"{snapshot.elapsed_s:5.1f} s  " + " | ".join([*parts, f"lag {snapshot.behind:,}"])


def without_sandboxes(why: str) -> str:
    """Say that the functions are not run in sandboxes, and why."""
    return f"the functions run in a process beside the node, not in its sandboxes: {why}"


def does_not_run(name: str, why: str) -> str:
    """Say that an added function is left out, and why."""
    return f"function {name} does not run here: {why}"


def functions_table(functions: Sequence[FunctionView]) -> Table:
    """Return what the added functions have done: their calls, and the events they took by the kind of source."""
    table = _table(True, "added function")
    table.add_column("runtime", no_wrap=True)
    for name in ("calls", *(_KINDS[kind] for kind in KINDS), "errors"):
        table.add_column(name, justify="right", no_wrap=True)
    for view in functions:
        function = view.function
        label = Text(function.name, "bold" if function.missing is None else "dim")
        if function.missing is not None:
            table.add_row(label, Text(function.runtime, "dim"), *[Text("-", "dim")] * (len(KINDS) + 2))
            continue
        taken = [f"{view.delivered[kind]:,}" if kind in view.delivered else "-" for kind in KINDS]
        table.add_row(label, function.runtime, f"{view.calls:,}", *taken, _count(view.errors, "red"))
    return table


def ms(latency_ms: float | None) -> str:
    """Return a latency for people."""
    return "-" if latency_ms is None else f"{latency_ms:,.0f} ms"


def _url(scene: Scene) -> str:
    return "" if scene.node_url == DEFAULT_URL else f" --url {scene.node_url}"


def _headline(snapshot: Snapshot, scene: Scene, width: int) -> RenderableType:
    grid = Table.grid(expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    orders, clicks, mails = scene.rates
    if width >= WIDE:
        what = f"  {orders:,} orders/s in Kafka, {clicks:,} clicks/s in Kinesis, {mails:,} mails/s in SQS"
    else:
        what = f"  Kafka {orders:,}/s, Kinesis {clicks:,}/s, SQS {mails:,}/s"
    clock = f"{snapshot.elapsed_s:,.0f} s"
    if scene.seconds is not None:
        clock += f" of {scene.seconds:g} s"
    if snapshot.phase is Phase.FINISHING:
        clock = "finishing"
    grid.add_row(Text.assemble(("esmd demo", "bold cyan"), what), Text(clock, "bold"))
    return grid


def _first(snapshot: Snapshot) -> Text:
    if snapshot.phase is Phase.STARTING:
        return Text("starting Redis, Kafka, Kinesis, SQS, the functions and the node …", "dim")
    if snapshot.first_after_s is None:
        return Text("waiting for the first event …", "dim")
    orders, clicks, mails = snapshot.produced
    return Text.assemble(
        "first event after ",
        (f"{snapshot.first_after_s:.2f} s", "bold green"),
        f" · {orders:,} orders, {clicks:,} clicks, {mails:,} mails",
        no_wrap=True,
        overflow="ellipsis",
    )


def _schedule(schedules: Sequence[MappingView]) -> Text:
    """Return a line, empty without schedules."""
    return Text("  ".join(map(_firings, schedules)), "dim", no_wrap=True, overflow="ellipsis")


def _firings(schedule: MappingView) -> str:
    return f"{schedule.name}: next firing {schedule.next_firing}, {schedule.delivered:,} so far"


def _mappings(mappings: Sequence[MappingView], *, wide: bool) -> Table:
    per_s, throttled = ("delivered/s", "throttled") if wide else ("per s", "429s")
    table = _table(wide, "mapping", per_s, "delivered", "filtered", "p50", "p99", "errors", "retries", throttled)
    if wide:
        table.add_column("delivered/s, last 20 s", no_wrap=True)
    for mapping in mappings:
        more = [Text(sparkline(mapping.history), "green")] if wide else []
        table.add_row(
            Text(mapping.name, "bold"),
            Text(f"{mapping.delivered_per_s:,.0f}", "bold green"),
            f"{mapping.delivered:,}",
            Text(f"{mapping.filtered:,}", "dim" if not mapping.filtered else ""),
            ms(mapping.p50_ms),
            ms(mapping.p99_ms),
            _count(mapping.errors, "red"),
            _count(mapping.retries, "yellow"),
            _count(mapping.throttled, "yellow"),
            *more,
        )
    return table


def _added(snapshot: Snapshot, scene: Scene) -> list[RenderableType]:
    """Return the table of added functions, and a line for each that is left out; nothing where none were added."""
    if not snapshot.functions:
        return []
    notes = [_hint("note", does_not_run(name, why)) for name, why in scene.missing.items()]
    return [functions_table(snapshot.functions), *notes, Text()]


def _shards(shards: Sequence[ShardLine], room: int, *, wide: bool) -> Table:
    """Return the shards, as many as there is room for: those in trouble rather than others."""
    table = _table(True, "mapping")
    table.add_column("shard" if room >= len(shards) else f"shard ({room} of {len(shards)})", no_wrap=True)
    chosen = sorted(range(len(shards)), key=lambda at: shards[at].state == _READING)[:room]
    table.add_column("lag", justify="right", no_wrap=True, min_width=7)
    table.add_column("checkpoint", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True, min_width=9)
    if wide:
        table.add_column("fencing token", justify="right", no_wrap=True)
        table.add_column("error now", no_wrap=True, overflow="ellipsis")
    for shard in [shards[at] for at in sorted(chosen)]:
        more = [Text(str(shard.fencing_token)), Text(shard.last_error or "", "red")] if wide else []
        table.add_row(
            shard.mapping,
            Text(shard.id, "bold"),
            "-" if shard.lag_records is None else f"{shard.lag_records:,}",
            shard.checkpoint or "-",
            Text(shard.state, _STATE_STYLES.get(shard.state, "dim")),
            *more,
        )
    return table


def _table(airy: bool, first: str, *numbers: str) -> Table:  # noqa: FBT001 - a private helper
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2 if airy else 1, 0, 0))
    table.add_column(first, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _count(count: int, style: str) -> Text:
    return Text(f"{count:,}", style if count else "dim")


def _error(error: LastError | None, no_sandboxes: str | None) -> Text:
    if error is None or error.age_s > _ERROR_SHOWN_S:
        return _hint("last error", "none") if no_sandboxes is None else _hint("note", without_sandboxes(no_sandboxes))
    when = "now" if error.age_s < 1 else f"{error.age_s:.0f} s ago"
    text = Text.assemble(("last error  ", "dim"), f"{when}, {error.where}: ", (error.text, "red"))
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _hint(name: str, value: str) -> Text:
    return Text.assemble((f"{name:12}", "dim"), value, no_wrap=True, overflow="ellipsis")
