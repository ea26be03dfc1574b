"""How the demo ends: the document of `demo --json` (contract section 5), or a table and some sentences. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from node.demo.added import told
from node.demo.function import Tally
from node.demo.latency import Latencies
from node.demo.view import functions_table, ms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from node.demo.added import FunctionView
    from node.demo.function import Report
    from node.demo.snapshot import Produced

_COUNTS = ("polled", "delivered", "filtered")
_COLUMNS = (*_COUNTS, "p50", "p99", "errors", "throttled")


def document(
    status: Mapping[str, Any], report: Report, seconds: float, added: Sequence[FunctionView] = ()
) -> dict[str, Any]:
    """Return the status document with the seconds events were produced for, and each mapping's latencies.

    Latencies are from a record's timestamp to the invocation that took it; null when none was taken. Where functions
    were added, `functions` says what each has done.
    """
    mappings = []
    for mapping in status["mappings"]:
        latencies = Latencies((report.tallies.get(mapping["name"]) or Tally()).latency)
        p50, p99 = latencies.percentile(50), latencies.percentile(99)
        mappings.append({**mapping, "latency_ms": {"p50": _rounded(p50), "p99": _rounded(p99)}})
    more = {"functions": [told(view) for view in added]} if added else {}
    return {**status, "mappings": mappings, "seconds": round(seconds, 3), **more}


def summary(
    ended: Mapping[str, Any],
    report: Report,
    *,
    produced: Produced,
    first_after_s: float | None,
    config: str,
    command: str,
    added: Sequence[FunctionView] = (),
) -> RenderableType:
    """Return what people read at the end; `ended` is what `document` made, `added` what added functions have done."""
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("mapping", no_wrap=True)
    for name in _COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    of_added = {name for view in added for name in view.function.mappings}
    for mapping in ended["mappings"]:
        if mapping["name"] in of_added:
            continue
        ledger, tally = mapping["ledger"], report.tallies.get(mapping["name"]) or Tally()
        counts = [f"{ledger[name]:,}" for name in _COUNTS]
        latency = [ms(mapping["latency_ms"][name]) for name in ("p50", "p99")]
        table.add_row(Text(mapping["name"], "bold"), *counts, *latency, f"{tally.errors:,}", f"{tally.turned_away:,}")
    more: list[RenderableType] = [Text(), functions_table(added)] if added else []
    return Group(
        Text(_headline(ended, produced, first_after_s)),
        Text(),
        table,
        *more,
        Text(),
        Text(_shown(ended, report)),
        Text(_next(config, command)),
    )


def _headline(ended: Mapping[str, Any], produced: Produced, first_after_s: float | None) -> str:
    orders, clicks, mails = produced
    said = f"{orders:,} order events, {clicks:,} clicks and {mails:,} mails in {ended['seconds']:.1f} s"
    return said + (
        "." if first_after_s is None else f"; the first was delivered {first_after_s:.2f} s after the command."
    )


def _shown(ended: Mapping[str, Any], report: Report) -> str:
    errors = sum(tally.errors for tally in report.tallies.values())
    turned_away = sum(tally.turned_away for tally in report.tallies.values())
    trouble = f"although the functions failed {errors:,} times and turned {turned_away:,} calls away"
    ledgers = [mapping["ledger"] for mapping in ended["mappings"]]
    if all(ledger["balanced"] and not ledger["in_flight"] for ledger in ledgers):
        return (
            f"Every event was delivered or filtered out, {trouble}: what failed was retried, which is what p99 shows."
        )
    return f"Some events were not delivered before the end, {trouble}."


def _next(config: str, command: str) -> str:
    return (
        f"Next: copy {config}, put in your own broker, stream, queue and functions, leave out "
        f"`embedded`, and start it: {command} run FILE"
    )


def _rounded(latency_ms: float | None) -> float | None:
    return None if latency_ms is None else round(latency_ms, 1)
