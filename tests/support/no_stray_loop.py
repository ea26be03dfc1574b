"""Keeps looptime's plugin from making an event loop for a sync test, which nobody would close.

Before each test function the plugin asks the policy for the current loop. If none was ever set, the policy makes one;
it is collected later as an unclosed resource, in the middle of some other test, where warnings are errors.
"""

from __future__ import annotations

import asyncio


def pytest_sessionstart() -> None:
    """Set no loop on purpose: from then on the policy makes none unasked."""
    asyncio.set_event_loop(None)
