"""One node's way to one service in the same event loop: late, lost, or stuck messages, as a network makes them.

What a request does happens when it arrives, outside every machine, whether or not its sender still lives or waits.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, TypeVar

from tests.support.virtual_loop import OUTSIDE

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


class WireError(Exception):
    """The request came back without an answer."""


class RefusedByWireError(WireError):
    """Nothing was sent, or it arrived at a closed door."""


class NoAnswerError(WireError):
    """No answer came in time: the request may have arrived or not."""


def no_delay() -> float:
    """Take no time."""
    return 0.0


class Door:
    """Whether a service takes requests."""

    def __init__(self) -> None:
        self.refusing = False  # who knocks hears so
        self.hanging = False  # who knocks hears nothing

    def open(self) -> None:
        """Take them again."""
        self.refusing = self.hanging = False

    @property
    def is_open(self) -> bool:
        """Whether it takes them now."""
        return not (self.refusing or self.hanging)


class Wire:
    """The way. A request that was sent arrives, also when its sender has given up waiting."""

    def __init__(self, door: Door | None = None, *, timeout_s: float | None = None) -> None:
        self.door = door or Door()
        self.timeout_s = timeout_s  # how long the client waits for an answer
        self.refusing = False  # nothing is sent, the caller hears so at once
        self.mute = False  # requests arrive, answers do not
        self.request_s = no_delay
        self.reply_s = no_delay
        self.loses: Callable[[], bool] = lambda: False  # whether the connection breaks before the next answer comes
        self.calls: Counter[str] = Counter()
        self.on_call: Callable[[str, int], None] | None = None  # told of each call's name and number, once sent
        self._holds_only = ""
        self._held_up: deque[_Request] | None = None

    @property
    def passes(self) -> bool:
        """Whether messages pass in both directions."""
        return not (self.refusing or self.mute or self._held_up is not None)

    def hold_up(self, only: str = "") -> None:
        """Let requests queue on the way, as in front of a stopped process; perhaps only those of one name."""
        self._held_up = self._held_up or deque()
        self._holds_only = only

    def let_through(self) -> None:
        """Deliver what has queued up, in order."""
        queue, self._held_up = self._held_up or deque(), None
        for request in queue:
            OUTSIDE.copy().run(request.arrive)

    def holds_up(self, request: _Request) -> bool:
        """Keep a request on the way, if such are held up."""
        if self._held_up is None or self._holds_only not in ("", request.name):
            return False
        self._held_up.append(request)
        return True

    async def carry(
        self, name: str, serve: Callable[[Callable[[_T], None]], None], *, timeout_s: float | None = None
    ) -> _T:
        """Send a request and wait for its answer. `serve` is called when it arrives, with what answers it.

        Raises `WireError`, and what `serve` raises.
        """
        loop = asyncio.get_running_loop()
        self.calls[name] += 1
        number = self.calls.total()
        if self.refusing:
            await asyncio.sleep(0)
            raise RefusedByWireError("refused")
        request = _Request(self, name, serve)
        loop.call_later(self.request_s(), request.arrive, context=OUTSIDE)
        if self.on_call is not None:
            self.on_call(name, number)
        limit_s = self.timeout_s if timeout_s is None else timeout_s
        if limit_s is None:
            return await request.answer  # type: ignore[no-any-return]  # whatever `serve` answers with
        timer = loop.call_later(limit_s, request.reply, NoAnswerError(f"no answer within {limit_s:g} s"))
        try:
            return await request.answer  # type: ignore[no-any-return]  # whatever `serve` answers with
        finally:
            timer.cancel()


class _Request:
    """One request on its way, and its answer on the way back."""

    def __init__(self, wire: Wire, name: str, serve: Callable[[Callable[[Any], None]], None]) -> None:
        self.name = name
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._wire = wire
        self._serve = serve

    def arrive(self) -> None:
        """Have the service answer, unless something is in the way."""
        wire = self._wire
        if wire.holds_up(self):
            return
        if wire.door.refusing:
            self._send_back(RefusedByWireError("the service refuses"))
        elif not wire.door.hanging:
            try:
                self._serve(lambda value: self._send_back(None, value))
            except Exception as exc:  # noqa: BLE001 - the service's answer
                self._send_back(exc)

    def _send_back(self, error: Exception | None, value: Any = None) -> None:
        wire = self._wire
        if not wire.mute and not wire.loses():
            loop = asyncio.get_running_loop()
            loop.call_later(wire.reply_s(), self.reply, error, value, context=OUTSIDE)

    def reply(self, error: Exception | None, value: Any = None) -> None:
        """Bring an answer to whoever still waits for it."""
        if self.answer.done():
            return
        if error is not None:
            self.answer.set_exception(error)
        else:
            self.answer.set_result(value)
