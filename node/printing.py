"""How client commands show things to people: text that cannot act on the terminal, durations, states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from controlplane.plain_words import span

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

STATE_STYLES = {"reading": "green", "retrying": "yellow", "waiting": "yellow", "failed": "red", "unowned": "red"}

ago = span

_PIPE_WIDTH = 200
_BARS = "▁▂▃▄▅▆▇█"


def console(file: TextIO | None = None) -> Console:
    """Return a console on standard output, or a file."""
    made = Console(highlight=False, file=file)
    if not made.is_terminal:
        made.width = _PIPE_WIDTH  # a pipe has no width; cut lines would be of no use to what reads it
    return made


def printable(value: str | None, style: str = "") -> Text:
    """Return text that is neither markup nor terminal control, wherever it came from."""
    return Text(
        "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in value or "-"), style
    )


def the_circuit(circuit: dict[str, Any] | None) -> str:
    """Say what keeps the function from being called as usual; nothing if nothing does."""
    if circuit is None:
        return ""
    if circuit["state"] != "closed":
        state, since_s, retry_in_s = circuit["state"].replace("_", "-"), circuit["since_s"], circuit["retry_in_s"]
        return f"the circuit is {state} for {since_s:,.0f} s, next try in {retry_in_s:.0f} s: {circuit['last_error']}"
    if circuit["limit"] is not None:
        return f"the function is given {circuit['limit']} batches at once from a node"
    return ""


def sparkline(values: Sequence[float], cells: int = 20) -> str:
    """Return the last values as bars, the highest one full."""
    shown = values[-cells:]
    top = max(shown, default=0)
    if top <= 0:
        return _BARS[0] * len(shown)
    return "".join(_BARS[round(max(value, 0) / top * (len(_BARS) - 1))] for value in shown)
