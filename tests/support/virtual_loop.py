"""An event loop in virtual time for many machines at once: each has its own clocks, and can be stopped and go on.

A task belongs to the machine in whose context it was started (`Machine.context`), and so do all tasks and timers that
come of it. What belongs to no machine is the world outside, whose clock is the true time. Nothing comes from outside
the process, so time jumps to the next timer as soon as nobody has anything to do.

Runs are repeatable: tasks hash by the order in which they were made, so that sets of them are gone through alike.
(`looptime` moves time the same way, but for one machine only.)
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Coroutine

_here: ContextVar[Machine | None] = ContextVar("the machine whose code runs", default=None)

OUTSIDE = contextvars.Context()
"""The context of what happens on no machine: the network, servers, the hand of fate."""


def machine_here() -> Machine | None:
    """Return the machine whose code runs now; None outside."""
    return _here.get()


def true_time() -> float:
    """Return the time of the world outside every machine; on any other kind of loop its only time."""
    loop = asyncio.get_running_loop()
    return loop.now if isinstance(loop, VirtualLoop) else loop.time()


class Machine:
    """A computer: its clocks, each a function of true time, and whether its processes run.

    `rate` is how fast its oscillator runs. The monotonic clock is the event loop's; `boot_s` is like it but counts the
    time in which the machine slept; `wall_s` is seconds ahead of the true wall clock.
    """

    def __init__(self, name: str, *, rate: float = 1.0, up_s: float = 0.0, wall_ahead_s: float = 0.0) -> None:
        self.name = name
        self.rate = rate
        self.up_s = up_s  # how long it had been up at true time 0
        self.slept_s = 0.0
        self.wall_ahead_s = wall_ahead_s
        self.stopped = False
        self.context = contextvars.Context()
        self.context.run(_here.set, self)

    def __repr__(self) -> str:
        return f"<Machine {self.name}{' stopped' if self.stopped else ''}>"

    def boot_s(self, true: float) -> float:
        """Read the clock that counts from boot."""
        return true * self.rate + self.up_s

    def monotonic_s(self, true: float) -> float:
        """Read the clock of the event loop."""
        return self.boot_s(true) - self.slept_s

    def true_s(self, boot_s: float) -> float:
        """Return the true time at which the clock from boot shows so much."""
        return (boot_s - self.up_s) / self.rate

    def fire_at(self, monotonic_s: float) -> float:
        """Return the true time at which a timer fires, unless the machine sleeps before."""
        return self.true_s(monotonic_s + self.slept_s)


class _Task(asyncio.Task[Any]):
    """A task that hashes by its number."""

    def __init__(self, coro: Coroutine[Any, Any, Any], *, number: int, **kwargs: Any) -> None:
        self._number = number
        super().__init__(coro, **kwargs)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop. `now` is the true time, from 0."""

    _ready: deque[asyncio.Handle]  # asyncio's own

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = itertools.count()
        self._stopped: dict[Machine, tuple[float, list[asyncio.Handle], list[tuple[float, asyncio.TimerHandle]]]] = {}
        self.set_task_factory(self._make_task)

    def _make_task(self, _loop: object, coro: Any, **kwargs: Any) -> _Task:
        return _Task(coro, number=next(self._numbers), loop=self, **kwargs)

    # Time

    def time(self) -> float:
        """Read the monotonic clock of the machine whose code runs; outside, the true time."""
        machine = _here.get()
        return self.now if machine is None else machine.monotonic_s(self.now)

    def call_later(  # type: ignore[override]  # without the types of the arguments
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Call after `delay` seconds by the clock of the machine that the callback belongs to."""
        machine = _here.get() if context is None else context.get(_here)
        fire_at = self.now + (delay if machine is None else delay / machine.rate)
        return self._set_timer(fire_at, self.time() + delay, callback, args, context)

    def call_at(  # type: ignore[override]  # same
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Call at a time by the clock of the machine whose code runs."""
        machine = _here.get()
        return self._set_timer(when if machine is None else machine.fire_at(when), when, callback, args, context)

    def _set_timer(
        self, fire_at: float, when: float, callback: Callable[..., object], args: Any, context: Any
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (fire_at, next(self._numbers), handle))
        return handle

    def call_soon(  # type: ignore[override]  # same
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """As every loop's, without the checks."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Do nothing: a cancelled timer is passed over when its time comes."""

    def _run_once(self) -> None:
        ready, timers = self._ready, self._timers
        while timers and (timers[0][2].cancelled() or (timers[0][0] <= self.now or not ready)):
            fire_at, _, timer = heapq.heappop(timers)
            if timer.cancelled():
                continue
            self.now = max(self.now, fire_at)
            ready.append(timer)
        if not ready:
            raise RuntimeError("everybody waits, and no timer is set")
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle.cancelled():
                continue
            if self._stopped:
                machine = handle._context.get(_here)  # type: ignore[attr-defined]  # asyncio's own
                if machine in self._stopped:
                    self._keep(machine, handle)
                    continue
            handle._run()

    # Stopping a machine

    def stop_machine(self, machine: Machine) -> None:
        """Let nothing run on it, until it goes on."""
        machine.stopped = True
        self._stopped.setdefault(machine, (self.now, [], []))

    def _keep(self, machine: Machine, handle: asyncio.Handle) -> None:
        _, soon, late = self._stopped[machine]
        if isinstance(handle, asyncio.TimerHandle):
            late.append((self.now, handle))
        else:
            soon.append(handle)

    def go_on(self, machine: Machine, *, slept: bool = False, timers_first: bool = False) -> None:
        """Let it go on as if nothing had been; nothing happens if it was not stopped.

        `slept`: the whole machine was suspended, so its monotonic clock stood still and its timers fire later;
        otherwise only its processes were stopped, and timers that came due fire now: as asyncio does it, after what the
        network brought meanwhile, or before it.
        """
        if machine not in self._stopped:
            return
        machine.stopped = False
        since, soon, late = self._stopped.pop(machine)
        if slept:
            gone_s = self.now - since
            machine.slept_s += gone_s * machine.rate
            self._ready.extend(soon)
            self._timers = [
                (fire_at + gone_s, number, timer) if timer._context.get(_here) is machine else (fire_at, number, timer)  # type: ignore[attr-defined]  # asyncio's own
                for fire_at, number, timer in self._timers
            ]
            self._timers += [(fire_at + gone_s, next(self._numbers), timer) for fire_at, timer in late]
            heapq.heapify(self._timers)
            return
        due = [timer for _, timer in late]
        self._ready.extend([*due, *soon] if timers_first else [*soon, *due])

    # What there is not

    def _write_to_self(self) -> NoReturn:
        raise RuntimeError("a simulation has no threads: their pace would not be repeatable")

    def run_in_executor(self, *_args: Any) -> NoReturn:  # type: ignore[override]  # whatever is asked for
        """Refuse."""
        self._write_to_self()
