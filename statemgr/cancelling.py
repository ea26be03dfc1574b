"""Keeps cancellations from getting lost inside libraries.

Before Python 3.12 `asyncio.wait_for` returns as if nothing had happened when it is cancelled in the moment in which
what it waits for is done. redis-py has it on the way of every command. A loop that is cancelled there
would go on for ever, and whoever waits for its end with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def cancellation_kept() -> Iterator[None]:
    """Raise CancelledError when the task was cancelled during the body and the body ended in another way.

    A deadline (`asyncio.timeout`) inside the body that expired there is no cancellation of the task; one around it is.
    """
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("not in a task")
    before = task.cancelling()
    try:
        yield
    except asyncio.CancelledError:
        raise
    except BaseException as exc:
        if task.cancelling() > before:
            raise asyncio.CancelledError from exc
        raise
    if task.cancelling() > before:
        raise asyncio.CancelledError
