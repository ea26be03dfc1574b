"""What a command that owns the terminal needs: its keys, and documents fetched while it waits for them."""

from __future__ import annotations

import os
import queue
import select
import sys
import termios
import threading
import tty
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from model.errors import EsmdError
from node.client import get_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SEQUENCES = {b"\x1b[A": "up", b"\x1b[B": "down", b"\x1bOA": "up", b"\x1bOB": "down"}
_CONTROLS = {"\r": "enter", "\n": "enter", "\x7f": "backspace", "\x08": "backspace", "\x1b": "escape", "\x04": "q"}
_MOST_BYTES = 1024


def decode_keys(typed: bytes) -> list[str]:
    """Return the keys of what a terminal sent: characters, or names. Sequences that mean nothing here are left out."""
    keys: list[str] = []
    while typed:
        known = next((sequence for sequence in _SEQUENCES if typed.startswith(sequence)), None)
        if known is not None:
            keys.append(_SEQUENCES[known])
            typed = typed[len(known) :]
        elif typed.startswith((b"\x1b[", b"\x1bO")) and len(typed) > 2:  # noqa: PLR2004 - more than its introducer
            end = next((place for place, byte in enumerate(typed[2:], 2) if 0x40 <= byte <= 0x7E), len(typed) - 1)  # noqa: PLR2004 - ECMA-48's final bytes
            typed = typed[end + 1 :]
        else:
            cut = next((place for place, byte in enumerate(typed) if byte == 0x1B and place), len(typed))  # noqa: PLR2004 - escape
            keys += [_CONTROLS.get(char, char) for char in typed[:cut].decode(errors="ignore")]
            typed = typed[cut:]
    return keys


@contextmanager
def keys(wait_s: float) -> Iterator[Callable[[], list[str]]]:
    """Take the terminal's keys one by one, unseen; yield what waits for some, for at most `wait_s`."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)

    def pressed() -> list[str]:
        ready, _, _ = select.select([fd], [], [], wait_s)
        if not ready:
            return []
        typed = os.read(fd, _MOST_BYTES)
        return decode_keys(typed) if typed else ["q"]  # the terminal is gone

    try:
        tty.setcbreak(fd)
        yield pressed
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextmanager
def documents(url: str, path: str, every_s: float) -> Iterator[Callable[[], dict[str, Any] | str | None]]:
    """Fetch a node's document again and again beside the terminal; yield what returns the newest one.

    It returns the reason when the node did not answer, and None when there is nothing new.
    """
    stop = threading.Event()
    news: queue.SimpleQueue[dict[str, Any] | str] = queue.SimpleQueue()

    def fetch() -> None:
        while not stop.wait(every_s):
            try:
                news.put(get_json(url, path))
            except EsmdError as error:
                news.put(str(error))

    def newest() -> dict[str, Any] | str | None:
        latest = None
        while not news.empty():
            latest = news.get()
        return latest

    threading.Thread(target=fetch, name="status", daemon=True).start()  # a daemon: a node that hangs holds nobody
    try:
        yield newest
    finally:
        stop.set()
