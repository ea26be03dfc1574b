"""What records are suspected of when the node that had given them to a function died. Pure.

A record may kill its node every time: a handler in its sandbox uses up the machine's memory, an answer upsets the
process. Nobody is left then to count the attempt, so it is counted by the next holder. It finds in the stored state
which runs of records were with the function (`pollers.caution` had that saved before it invoked) and counts a death for
them. Most deaths have nothing to do with the records, so suspicion costs nothing at first:

- A run that was with the function at a death is a *suspect*. Suspects are invoked with one at a time on a node.
- A suspect that was alone when its holder died is *deadly*. Its records are told apart: the run goes on in pieces.
- Of a single record each such death counts as a function error, against MaximumRetryAttempts.

Whenever the function answers, the suspicion is over. A drain that runs out of time is no death, nor is a throttle an
answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from pollers.attempts import Flight

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pollers.attempts import Attempts


def inherited(stored: Mapping[int, Attempts], *, drained: bool) -> dict[int, Attempts]:
    """Return what runs of records have been through by the time another holder has them; by their first positions.

    `drained`: the holder that saved this ended by itself, or was ended while it was draining.
    """
    return {first: _inherited(first, attempts, drained=drained) for first, attempts in stored.items()}


def _inherited(first: int, attempts: Attempts, *, drained: bool) -> Attempts:
    if attempts.flight in (Flight.NONE, Flight.DEADLY):
        return attempts
    if drained:
        return replace(attempts, flight=Flight.NONE)
    called = replace(attempts, invocations=attempts.invocations + 1, flight=Flight.NONE)
    if attempts.flight is Flight.AMONG_OTHERS:
        return replace(called, deaths=max(1, attempts.deaths))  # more would blame it for what others did
    if first != attempts.last:
        return replace(called, deaths=attempts.deaths + 1, flight=Flight.DEADLY)
    return replace(
        called,
        deaths=attempts.deaths + 1,
        failures=attempts.failures + 1,
        status=200,
        executed_version=None,
        function_error="Unhandled",
    )
