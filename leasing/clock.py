"""The clock that trust is measured by."""

from __future__ import annotations

import time

# The event loop's time would not do. uvloop's is read once per turn, so a turn that takes ten seconds does not see them
# pass; and the usual monotonic clock stands still while the machine sleeps, while the store's goes on.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", None)


def trust_clock() -> float:
    """Read a clock that never goes back, never waits for the event loop, and goes on while the machine is suspended."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)
