"""How a node is told to stop: the first signal drains, the second stops at once, a third cannot be ignored.

Plain `signal.signal` handlers that hand over to the loop: they run even while the loop is busy in Python code, so the
last resort works on a node that is stuck.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING

from node.exits import ExitStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
ABORT_GRACE_S = 2.0
"""After the second signal: the time for closing connections before the process ends whatever it is doing."""


class StoppedWhileStartingError(Exception):
    """A drain was asked for before there was anything to drain."""


class Shutdown:
    """What the process was asked to do. The events are set from the loop's thread only."""

    def __init__(self) -> None:
        self.drain = asyncio.Event()  # stop reading, deliver, checkpoint, release
        self.abort = asyncio.Event()  # stop now; whatever is not released expires by itself
        self.reloads = 0  # how often SIGHUP asked for reading the configuration again
        self._reloaded = asyncio.Event()
        self._cut_short: set[asyncio.Timeout] = set()

    def request(self) -> None:
        """Take one more wish to stop: the first drains, any further aborts."""
        if not self.drain.is_set():
            self.drain.set()
            for scope in self._cut_short:
                scope.reschedule(asyncio.get_running_loop().time())
        else:
            self.abort.set()

    def request_reload(self) -> None:
        """Take a wish to read the configuration again."""
        self.reloads += 1
        self._reloaded.set()
        self._reloaded = asyncio.Event()

    async def reload_after(self, seen: int) -> int:
        """Wait until reloads were asked for since there were `seen`; return how many there are now."""
        while self.reloads == seen:
            await self._reloaded.wait()
        return self.reloads

    @contextlib.asynccontextmanager
    async def starting(self) -> AsyncIterator[None]:
        """Run the body until a drain is asked for; then cancel it and raise `StoppedWhileStartingError`.

        For start-up, which waits for servers and holds nothing yet.
        """
        if self.drain.is_set():
            raise StoppedWhileStartingError
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._cut_short.add(scope)
                try:
                    yield
                finally:
                    self._cut_short.discard(scope)
        except TimeoutError as error:
            if scope.expired():
                raise StoppedWhileStartingError from error
            raise


@contextlib.contextmanager
def handled(
    shutdown: Shutdown,
    loop: asyncio.AbstractEventLoop,
    *,
    grace_s: float = ABORT_GRACE_S,
    exit_now: Callable[[int], object] = os._exit,
) -> Iterator[None]:
    """Turn SIGTERM, SIGINT and SIGHUP into requests while the body runs. Main thread only.

    From the second stop signal on the process ends within `grace_s`, at the third immediately.
    """
    count = 0
    last_resort: threading.Timer | None = None

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal count, last_resort
        count += 1
        if count == 2:  # noqa: PLR2004 - the second signal
            last_resort = threading.Timer(grace_s, exit_now, args=(int(ExitStatus.FAILED),))
            last_resort.daemon = True
            last_resort.start()
        elif count > 2:  # noqa: PLR2004
            exit_now(ExitStatus.FAILED)
        with contextlib.suppress(RuntimeError):  # the loop has just been closed: we are stopping anyway
            loop.call_soon_threadsafe(shutdown.request)

    def reload(_number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(shutdown.request_reload)

    handlers = {**dict.fromkeys(STOP_SIGNALS, stop), signal.SIGHUP: reload}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if last_resort is not None:
            last_resort.cancel()
