"""`esmd redrive`: deliver failed records again, by asking a node; it stops when this command does."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from node.following import PATIENCE_S, Told, clean, count, follow

if TYPE_CHECKING:
    from collections.abc import Iterator

_AGO = re.compile(r"([0-9]+(?:\.[0-9]+)?)(s|min|m|h|d)")
_SECONDS = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def moment(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """Return epoch milliseconds of an ISO 8601 time, or of so long ago."""
    if value is None:
        return None
    ago = _AGO.fullmatch(value.strip())
    if ago is not None:
        return round((time.time() - float(ago[1]) * _SECONDS[ago[2]]) * 1000, 0)
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError as error:
        raise click.BadParameter(
            "an ISO 8601 time such as 2026-05-01T10:00Z, or so long ago: 90s, 30min, 2h, 7d"
        ) from error
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp() * 1000


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
    help="Only what failed since: 2026-05-01T10:00Z (UTC), or 2h ago.",
)
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), metavar="N", help="At most so many records a second."
)
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
    from node.client import mapping_path, post_lines  # noqa: PLC0415 - not for `esmd --help`

    asked = {"from": source, "since_ms": since_ms, "rate": rate, "dry_run": dry_run}
    wishes = {key: value for key, value in asked.items() if value is not None}
    lines = post_lines(url, mapping_path(mapping, "redrive"), wishes, timeout_s=PATIENCE_S)
    told = Told()
    try:
        follow(lines, told, quiet=as_json)
    except KeyboardInterrupt:
        lines.close()  # and with it the connection
        click.echo("esmd: interrupted; the node ends the batch under way. Run it again to go on.", err=True)
    finally:
        if told.begin:
            click.echo(json.dumps(told.document(), indent=2) if as_json else "\n".join(_summary(told)))
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
