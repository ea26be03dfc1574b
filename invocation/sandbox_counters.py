"""Plain counters of a function's sandboxes; a scrape reads them. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, assert_never

from invocation.function_errors import Exited, NotStarted, OutOfMemory, TimedOut

if TYPE_CHECKING:
    from invocation.function_errors import Ending


@dataclass(slots=True)
class SandboxCounters:
    """What has happened to the environments of one function since the node started."""

    cold_starts: int = 0
    failed_inits: int = 0
    inits: int = 0
    init_total_s: float = 0.0
    throttles: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    """Runtimes that came to an end before their time, by reason."""

    def initialised(self, took_s: float) -> None:
        """Count a successful initialisation."""
        self.inits += 1
        self.init_total_s += took_s

    def ended(self, ending: Ending) -> None:
        """Count an ending without an answer."""
        match ending:
            case TimedOut():
                self.kills["timeout"] += 1
            case OutOfMemory():
                self.kills["memory"] += 1
            case Exited():
                self.kills["exit"] += 1
            case NotStarted():
                self.kills["not_started"] += 1
            case _:
                assert_never(ending)
