"""Where the demo is seen: live in a terminal, as a line each second anywhere else. Always on standard error."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.live import Live

from node.demo import view

if TYPE_CHECKING:
    from collections.abc import Iterator

    from node.demo.snapshot import Snapshot
    from node.demo.view import Scene

_LINE_EVERY_S = 1.0


class Screen(Protocol):
    """Shows snapshots."""

    async def show(self, snapshot: Snapshot) -> None:
        """Show the present state. Raises OSError when nobody can see it any more."""


@contextlib.contextmanager
def opened(scene: Scene, console: Console | None = None) -> Iterator[Screen]:
    """Show the demo while the body runs."""
    console = console if console is not None else Console(stderr=True, highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        yield Lines(console, scene)
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        yield FullScreen(live, scene)


class FullScreen:
    """The whole terminal, on its alternate screen: what was there before comes back at the end."""

    def __init__(self, live: Live, scene: Scene) -> None:
        self._live = live
        self._scene = scene

    async def show(self, snapshot: Snapshot) -> None:
        """Draw, in a thread: a terminal that is held (Ctrl-S) must not hold the node."""
        width, height = self._live.console.size
        drawn = view.screen(snapshot, self._scene, width, height)
        await asyncio.to_thread(self._live.update, drawn, refresh=True)


class Lines:
    """Plain text for a file or a pipe."""

    def __init__(self, console: Console, scene: Scene) -> None:
        self._console = console
        self._scene = scene
        self._next_s = 0.0
        self._introduced = False

    async def show(self, snapshot: Snapshot) -> None:
        """Print a line, if the last one is a second old."""
        if not self._introduced:
            self._introduced = True
            scene = self._scene
            orders, clicks, mails = scene.rates
            self._print(
                f"esmd demo: {orders:,} order events/s, {clicks:,} clicks/s, {mails:,} mails/s; "
                f"config {scene.config}, log {scene.log}"
            )
            if scene.no_sandboxes is not None:
                self._print(f"esmd demo: {view.without_sandboxes(scene.no_sandboxes)}")
            for name, why in scene.missing.items():
                self._print(f"esmd demo: {view.does_not_run(name, why)}")
        if snapshot.elapsed_s >= self._next_s:
            self._next_s = snapshot.elapsed_s + _LINE_EVERY_S * 0.99
            self._print(view.line(snapshot))

    def _print(self, text: str) -> None:
        # Not through the console: it answers a broken pipe with SystemExit.
        self._console.file.write(f"{text}\n")
        self._console.file.flush()
