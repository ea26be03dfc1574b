"""`esmd redrive`: deliver failed records again, by asking a node; it stops when this command does."""

from __future__ import annotations

import json
import re
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

_AGO = re.compile(r"([0-9]+(?:\.[0-9]+)?)(s|min|m|h|d)")
_SECONDS = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PLAIN_EVERY_S = 5.0
_PATIENCE_S = 60.0  # for the first word, and for each further one: the node says something every second


def _since(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
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
    callback=_since,
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
    lines = post_lines(url, mapping_path(mapping, "redrive"), wishes, timeout_s=_PATIENCE_S)
    outcome = _Outcome()
    try:
        _follow(lines, outcome, quiet=as_json)
    except KeyboardInterrupt:
        lines.close()  # and with it the connection
        click.echo("esmd: interrupted; the node ends the batch under way. Run it again to go on.", err=True)
    finally:
        if outcome.begin:
            click.echo(json.dumps(outcome.document(), indent=2) if as_json else "\n".join(outcome.summary()))
    return outcome.status


class _Outcome:
    """What the node has told so far."""

    def __init__(self) -> None:
        self.begin: dict[str, Any] = {}
        self.last: dict[str, Any] = {}
        self.kept: list[dict[str, Any]] = []
        self.ended = False

    def learn(self, line: dict[str, Any]) -> None:
        """Take a line in. Raises what an error of the node means."""
        from node.client import NodeRefusedError, NodeUnreachableError  # noqa: PLC0415 - not for `esmd --help`

        match line["event"]:
            case "begin":
                self.begin = line
            case "progress":
                self.last = line
            case "kept":
                self.kept.append({key: line[key] for key in ("what", "records", "error")})
            case "end":
                self.last, self.ended = line, True
            case "error":
                raise (NodeUnreachableError if line["unreachable"] else NodeRefusedError)(line["message"])

    @property
    def status(self) -> int:
        """The exit status: 0 only when everything there was is delivered, or would be."""
        left = self.last.get("failed_records", 0) or self.last.get("gone_records", 0)
        whole = self.ended and not self.last.get("stopped") and not left
        return 0 if whole else 1

    def document(self) -> dict[str, Any]:
        """Return the result as one document."""
        counts = {key: value for key, value in self.last.items() if key not in {"event", "done"}}
        stopped = counts.pop("stopped", True)
        begin = {key: self.begin.get(key) for key in ("mapping", "from", "dry_run")}
        return {**begin, **counts, "stopped": stopped, "kept": self.kept}

    def summary(self) -> Iterator[str]:
        """Say what it came to."""
        for kept in self.kept:
            yield f"stays: {_clean(kept['what'])}, {_count(kept['records'], 'record')}: {_clean(kept['error'])}"
        for why, number in self.last.get("skipped", {}).items():
            yield f"left alone: {_count(number, 'document')}, {_clean(why)}"
        counts, dry = self.last, bool(self.begin.get("dry_run"))
        if not counts:
            yield "Stopped before the end: run it again to go on."
            return
        documents = f" of {_count(counts['documents'], 'document')}" if self.begin.get("unit") == "documents" else ""
        told = [f"{_count(counts['delivered_records'], 'record')}{documents} {'to be ' if dry else ''}delivered"]
        told += [
            f"{_count(counts[f'{what}_records'], 'record')} {text}"
            for what, text in (("failed", "failed again and stay"), ("gone", "not in the source any more"))
            if counts[f"{what}_records"]
        ]
        stopped = counts.get("stopped", True)
        yield ", ".join(told) + (". Stopped before the end: run it again to go on." if stopped else ".")


def _follow(lines: Iterable[dict[str, Any]], outcome: _Outcome, *, quiet: bool) -> None:
    """Read what the node tells until its end, and show it on standard error."""
    from node.client import NodeUnreachableError  # noqa: PLC0415 - not for `esmd --help`

    with _show(quiet=quiet) as show:
        for line in lines:
            outcome.learn(line)
            show(line, outcome)
            if outcome.ended:
                return
    raise NodeUnreachableError("the node is gone in the middle of it: run it again to go on, nothing is lost")


def _show(*, quiet: bool) -> AbstractContextManager[Any]:
    return _Bar() if sys.stderr.isatty() and not quiet else _Plain(quiet=quiet)


class _Plain:
    """Lines on standard error, seldom."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._next_at = 0.0
        self._waits: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to clear."""

    def __call__(self, line: dict[str, Any], outcome: _Outcome) -> None:
        """Show a line if it is worth it."""
        if self._quiet:
            return
        if line["event"] == "begin":
            total = "" if line["total"] is None else f", {_count(line['total'], line['unit'].removesuffix('s'))}"
            click.echo(f"from {_clean(line['from'])}{total}", err=True)
        elif line["event"] == "waiting" and line["error"] != self._waits:
            self._waits = line["error"]
            click.echo(f"waiting: {_clean(line['error'])}", err=True)
        elif line["event"] == "progress":
            self._waits = None
            if time.monotonic() >= self._next_at:
                self._next_at = time.monotonic() + _PLAIN_EVERY_S
                delivered = _count(line["delivered_records"], "record")
                of = outcome.begin.get("total")
                click.echo(
                    f"{line['done']:,}{'' if of is None else f' of {of:,}'} done, {delivered} delivered", err=True
                )


class _Bar:
    """A progress bar on standard error."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

        from node.printing import console  # noqa: PLC0415 - only on a terminal

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
            TimeElapsedColumn(),
            console=console(sys.stderr),
            transient=True,
        )
        self._task = self._progress.add_task("", total=None, told="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, line: dict[str, Any], _outcome: _Outcome) -> None:
        """Show a line."""
        if line["event"] == "begin":
            what = f"{line['unit']} from {_clean(line['from'])}"
            self._progress.update(self._task, description=what, total=line["total"])
        elif line["event"] == "waiting":
            self._progress.update(self._task, told=f"waiting: {_clean(line['error'])[:60]}")
        elif line["event"] in {"progress", "end"}:
            told = _count(line["delivered_records"], "record") + " delivered"
            self._progress.update(self._task, completed=line.get("done"), told=told)


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _clean(text: str) -> str:
    """Return text without what would act on a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))
