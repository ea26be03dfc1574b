"""`esmd demo` from the command line to its last line: directory, log, event loop, summary."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

import config
from config.load import load
from node import logs
from node.daemon import run_until_stopped
from node.demo.play import CONFIG, Ended, Wishes, play, process_started_time_s
from node.demo.summary import document, summary
from node.demo.view import does_not_run, without_sandboxes
from node.exits import ExitStatus
from node.signals import Shutdown, StoppedWhileStartingError

if TYPE_CHECKING:
    from collections.abc import Sequence

SHIPPED = Path(config.__file__).parent / CONFIG
_PIPE_WIDTH = 120


def run_demo(
    *, seconds: float | None, as_json: bool, rate: int, debug: bool, functions: Path | None = None
) -> ExitStatus:
    """Run the demo; results go to standard output, everything else to standard error.

    Raises `InvalidConfigurationError` for what is wrong with the file of `functions`.
    """
    started_time_s = process_started_time_s()
    settings = load([SHIPPED] if functions is None else [SHIPPED, functions], environ={})
    wishes = Wishes(SHIPPED, settings, rate, seconds, _command(), functions=functions)
    data_dir = Path(tempfile.mkdtemp(prefix="esmd-demo-"))
    log = data_dir / "esmd.log"
    shutdown = Shutdown()
    ends: list[Ended] = []

    async def main() -> ExitStatus:
        try:
            ended = await play(wishes, data_dir, shutdown, started_time_s=started_time_s)
        except StoppedWhileStartingError:
            ended = None
        if ended is not None:
            ends.append(ended)
        return ExitStatus.DONE if ended is None or ended.settled else ExitStatus.FAILED

    try:
        with log.open("a", encoding="utf-8", buffering=1) as stream:
            logs.configure("console", debug=debug, stream=stream)
            status = run_until_stopped(main, shutdown)
    except Exception:
        click.echo(f"esmd demo: what happened before is in {log}", err=True)
        raise
    shutil.rmtree(data_dir, ignore_errors=True)
    _tell(ends, as_json=as_json)
    return status


def _tell(ends: Sequence[Ended], *, as_json: bool) -> None:
    if not ends:
        click.echo("esmd demo: stopped before events flowed", err=True)
        return
    ended = ends[0]
    told = document(ended.status, ended.report, ended.seconds, ended.added)
    if not ended.settled:
        click.echo("esmd demo: not everything was delivered in the time allowed at the end", err=True)
    if as_json:
        if ended.first_after_s is not None:
            click.echo(f"esmd demo: first event delivered after {ended.first_after_s:.2f} s", err=True)
        click.echo(json.dumps(told, indent=2))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    console.print(
        summary(
            told,
            ended.report,
            produced=ended.produced,
            first_after_s=ended.first_after_s,
            added=ended.added,
            config=str(SHIPPED),
            command=_command(),
        )
    )
    if ended.no_sandboxes is not None:
        console.print(f"Note: {without_sandboxes(ended.no_sandboxes)}.", markup=False)
    for view in ended.added:
        if view.function.missing is not None:
            console.print(f"Note: {does_not_run(view.function.name, view.function.missing)}.", markup=False)


def _command() -> str:
    """Return how esmd is called here: it need not be on PATH."""
    called = Path(sys.argv[0])
    if called.stem != "esmd":
        return "python -m node"
    return "esmd" if shutil.which("esmd") else str(called)
