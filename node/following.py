"""Following what a node does for as long as its client listens: what it tells, shown on standard error as it comes."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any, Self

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import AbstractContextManager

_PLAIN_EVERY_S = 5.0
PATIENCE_S = 60.0
"""For the first word, and for each further one: the node says something every second."""


class Told:
    """What the node has told so far."""

    def __init__(self) -> None:
        self.begin: dict[str, Any] = {}
        self.last: dict[str, Any] = {}
        self.kept: list[dict[str, Any]] = []
        self.ended = False

    @property
    def whole(self) -> bool:
        """Whether it was gone through to its end."""
        return self.ended and not self.last.get("stopped")

    def document(self) -> dict[str, Any]:
        """Return the result as one document."""
        counts = {key: value for key, value in self.last.items() if key not in {"event", "done"}}
        stopped = counts.pop("stopped", True)
        begin = {key: self.begin.get(key) for key in ("mapping", "from", "dry_run")}
        return {**begin, **counts, "stopped": stopped, "kept": self.kept}

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


def have_done(
    url: str,
    mapping: str,
    what: str,
    asked: Mapping[str, Any],
    *,
    as_json: bool,
    summary: Callable[[Told], Iterable[str]],
    after_all: str = "",
) -> Told:
    """Have a node do something for a mapping as long as this listens; print what it came to, also when it is cut off.

    `asked` are the wishes, those that are None left out. `after_all` is said to whoever interrupts it. Raises what
    `node.client` raises.
    """
    from node.client import mapping_path, post_lines  # noqa: PLC0415 - not for `esmd --help`

    wishes = {key: value for key, value in asked.items() if value is not None}
    lines = post_lines(url, mapping_path(mapping, what), wishes, timeout_s=PATIENCE_S)
    told = Told()
    try:
        follow(lines, told, quiet=as_json)
    except KeyboardInterrupt:
        lines.close()  # and with it the connection
        click.echo(f"esmd: interrupted; the node ends the batch under way.{after_all}", err=True)
    finally:
        if told.begin:
            click.echo(json.dumps(told.document(), indent=2) if as_json else "\n".join(summary(told)))
    return told


def follow(lines: Iterable[dict[str, Any]], told: Told, *, quiet: bool) -> None:
    """Read what the node tells until its end, and show it on standard error."""
    from node.client import NodeUnreachableError  # noqa: PLC0415 - not for `esmd --help`

    with _show(quiet=quiet) as show:
        for line in lines:
            told.learn(line)
            show(line, told)
            if told.ended:
                return
    raise NodeUnreachableError("the node is gone in the middle of it: run it again to go on")


def _show(*, quiet: bool) -> AbstractContextManager[Any]:
    return Bar() if sys.stderr.isatty() and not quiet else _Plain(quiet=quiet)


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

    def __call__(self, line: dict[str, Any], told: Told) -> None:
        """Show a line if it is worth it."""
        if self._quiet:
            return
        if line["event"] == "begin":
            total = "" if line["total"] is None else f", {count(line['total'], line['unit'].removesuffix('s'))}"
            click.echo(f"from {clean(line['from'])}{total}", err=True)
        elif line["event"] == "waiting" and line["error"] != self._waits:
            self._waits = line["error"]
            click.echo(f"waiting: {clean(line['error'])}", err=True)
        elif line["event"] == "progress":
            self._waits = None
            if time.monotonic() >= self._next_at:
                self._next_at = time.monotonic() + _PLAIN_EVERY_S
                delivered = count(line["delivered_records"], "record")
                of = told.begin.get("total")
                click.echo(
                    f"{line['done']:,}{'' if of is None else f' of {of:,}'} done, {delivered} delivered", err=True
                )


class Bar:
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

    def __call__(self, line: dict[str, Any], _told: Told) -> None:
        """Show a line."""
        if line["event"] == "begin":
            what = f"{line['unit']} from {clean(line['from'])}"
            self._progress.update(self._task, description=what, total=line["total"])
        elif line["event"] == "waiting":
            self._progress.update(self._task, told=f"waiting: {clean(line['error'])[:60]}")
        elif line["event"] in {"progress", "end"}:
            told = count(line["delivered_records"], "record") + " delivered"
            self._progress.update(self._task, completed=line.get("done"), told=told)


def count(number: int, thing: str) -> str:
    """Return a number of things in words."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def clean(text: str) -> str:
    """Return text without what would act on a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))
