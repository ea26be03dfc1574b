"""`esmd redrive`: deliver failed records again, by asking a node; it stops when this command does."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import click

from node.following import clean, count, have_done

if TYPE_CHECKING:
    from collections.abc import Iterator

    from node.following import Told

_AGO = re.compile(r"([0-9]+(?:\.[0-9]+)?)(s|min|m|h|d)")
_TIMES = "an ISO 8601 time from 1970 on such as 2026-05-01T10:00Z, epoch seconds, or so long ago: 90s, 30min, 2h, 7d"
_SECONDS = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def moment(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """Return epoch milliseconds of an ISO 8601 time, of epoch seconds, or of so long ago."""
    if value is None:
        return None
    ago = _AGO.fullmatch(value.strip())
    if ago is not None:
        since_s = time.time() - float(ago[1]) * _SECONDS[ago[2]]
        if since_s < 0:
            raise click.BadParameter(_TIMES)
        return round(since_s * 1000, 0)
    from model.rules.checking import read_timestamp  # noqa: PLC0415 - not for `esmd --help`

    when = read_timestamp(value.strip())
    if when is None:
        raise click.BadParameter(_TIMES)
    return when.timestamp() * 1000


@click.command("redrive")
@click.argument("mapping")
@click.option(
    "--from",
    "source",
    metavar="DESTINATION",
    help="ARN of an SQS queue or S3 bucket, kafka://TOPIC, or `parked`.  [the mapping's own destination]",
)
@click.option(
    "--since",
    "since_ms",
    callback=moment,
    metavar="T",
    help="Only what failed since: 2026-05-01T10:00Z (UTC), epoch seconds, or 2h ago.",
)
@click.option("--rate", type=click.FloatRange(min=0.000_001), metavar="N", help="At most so many records a second.")
@click.option("--dry-run", is_flag=True, help="Say what would be delivered, and touch nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document at the end.")
@click.option(
    "--url", envvar="ESMD_URL", default="http://127.0.0.1:9001", show_default=True, help="The node that does it."
)
def redrive_command(
    mapping: str,
    *,
    source: str | None,
    since_ms: float | None,
    rate: float | None,
    dry_run: bool,
    as_json: bool,
    url: str,
) -> int:
    """Deliver the failed records of MAPPING, a name or an id, again.

    They are read from the on-failure destination, or are those in the parking lots, and leave it once the function took
    them. What fails again stays. Ctrl-C stops it at any time without losing anything; run it again to go on.
    """
    asked = {"from": source, "since_ms": since_ms, "rate": rate, "dry_run": dry_run}
    told = have_done(
        url, mapping, "redrive", asked, as_json=as_json, summary=_summary, after_all=" Run it again to go on."
    )
    return _status(told)


def _status(told: Told) -> int:
    """Return the exit status: 0 only when everything there was is delivered, or would be."""
    left = told.last.get("failed_records", 0) or told.last.get("gone_records", 0)
    return 0 if told.whole and not left else 1


def _summary(told: Told) -> Iterator[str]:
    """Say what it came to."""
    for kept in told.kept:
        yield f"stays: {clean(kept['what'])}, {count(kept['records'], 'record')}: {clean(kept['error'])}"
    for why, number in told.last.get("skipped", {}).items():
        yield f"left alone: {count(number, 'document')}, {clean(why)}"
    counts, dry = told.last, bool(told.begin.get("dry_run"))
    if not counts:
        yield "Stopped before the end: run it again to go on."
        return
    documents = f" of {count(counts['documents'], 'document')}" if told.begin.get("unit") == "documents" else ""
    said = [f"{count(counts['delivered_records'], 'record')}{documents} {'to be ' if dry else ''}delivered"]
    said += [
        f"{count(counts[f'{what}_records'], 'record')} {text}"
        for what, text in (("failed", "failed again and stay"), ("gone", "not in the source any more"))
        if counts[f"{what}_records"]
    ]
    stopped = counts.get("stopped", True)
    yield ", ".join(said) + (". Stopped before the end: run it again to go on." if stopped else ".")
