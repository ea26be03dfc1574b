"""A sink's log of what arrived, read while it is being written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from benchmarks.sink import Arrival

if TYPE_CHECKING:
    from pathlib import Path


class ArrivalLog:
    """Reads a log on from where it was read before; a last line that is still being written is left for later."""

    def __init__(self, log: Path | None) -> None:
        if log is None:
            raise ValueError("the sink keeps no log")
        self._log = log
        self._read = 0  # bytes
        self._arrivals: list[Arrival] = []

    def new(self) -> list[Arrival]:
        """Return what has come since the log was read last."""
        with self._log.open("rb") as log:
            log.seek(self._read)
            lines = log.read().split(b"\n")[:-1]
        self._read += sum(len(line) + 1 for line in lines)
        arrivals = [msgspec.json.decode(line, type=Arrival) for line in lines]
        self._arrivals += arrivals
        return arrivals

    def all(self) -> list[Arrival]:
        """Return everything up to now."""
        self.new()
        return self._arrivals
