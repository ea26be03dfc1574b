"""`esmd replay`: deliver a range of records again, by asking a node; it stops when this command does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from node.commands.redrive import moment
from node.following import clean, count, have_done

if TYPE_CHECKING:
    from collections.abc import Iterator

    from node.following import Told


@click.command("replay")
@click.argument("mapping")
@click.option(
    "--from",
    "from_ms",
    required=True,
    callback=moment,
    metavar="T1",
    help="What arrived from then on: 2026-05-01T10:00Z (UTC), epoch seconds, or 2h ago.",
)
@click.option("--to", "to_ms", callback=moment, metavar="T2", help="What arrived before then.  [now]")
@click.option("--function", metavar="OTHER", help="Instead of the mapping's own function.")
@click.option("--rate", type=click.FloatRange(min=0.000_001), metavar="N", help="At most so many records a second.")
@click.option("--dry-run", is_flag=True, help="Count what would be delivered, and deliver nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document at the end.")
@click.option(
    "--url", envvar="ESMD_URL", default="http://127.0.0.1:9001", show_default=True, help="The node that does it."
)
def replay_command(
    mapping: str,
    *,
    from_ms: float,
    to_ms: float | None,
    function: str | None,
    rate: float | None,
    dry_run: bool,
    as_json: bool,
    url: str,
) -> int:
    """Deliver what MAPPING, a name or an id, had in a range of time once more, beside its live position.

    Through the mapping's filter and batch settings, one batch at a time; what the function fails on is told and passed.
    Its own function gets only what it had before, another one all of the range. Ctrl-C stops it at any time.
    """
    asked = {"from_ms": from_ms, "to_ms": to_ms, "function": function, "rate": rate, "dry_run": dry_run}
    told = have_done(url, mapping, "replay", asked, as_json=as_json, summary=_summary)
    return 0 if told.whole and not told.last["failed_records"] else 1


def _summary(told: Told) -> Iterator[str]:
    """Say what it came to."""
    for kept in told.kept:
        yield f"failed: {clean(kept['what'])}: {clean(kept['error'])}"
    counts = told.last
    if not counts:
        yield "Stopped before anything was delivered."
        return
    said = [f"{count(counts['delivered_records'], 'record')} {'to be ' if told.begin['dry_run'] else ''}delivered"]
    said += [
        f"{count(counts[f'{what}_records'], 'record')} {text}"
        for what, text in (("filtered", "filtered out"), ("failed", "failed"), ("left", "read and not tried"))
        if counts[f"{what}_records"]
    ]
    yield ", ".join(said) + ("." if told.whole else ". Stopped before the end.")
