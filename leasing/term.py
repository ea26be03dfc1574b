"""How long a node may trust its membership: the trust window. Pure: values in, values out, no clock of its own.

A membership is a session: while it lives in the store, all its leases do. The store counts `ttl_s` from when a
heartbeat arrives there, which is after the node asked. So a node that counts from *before* it asked, and stops a margin
earlier, has stopped before anyone else can have been given its shards.

Times are readings of one monotonic clock (`leasing.clock`), in seconds.
"""

from __future__ import annotations

import math

MIN_TTL_S = 3.0


def default_margin_s(ttl_s: float) -> float:
    """Choose the part of a term in which its holder no longer works: a fifth, but at least a second.

    The margin pays for what happens after the last look at the clock: an event loop that comes late to the timer, the
    cancelling of requests under way, and two clocks that do not run equally fast (at most 0.05 % in practice, 5 ms in
    10 s). A second is far above the lag of a loop that still works. A fifth, for longer terms, leaves room for larger
    faults (a paused machine, a stepped clock of the store), and still leaves time for more than one heartbeat, every
    third of a term, to fail and be repeated.
    """
    return max(1.0, ttl_s / 5)


class Term:
    """One membership's trust window. It moves only forward, and once ended never comes back."""

    __slots__ = ("_ended", "margin_s", "trusted_until", "ttl_s")

    def __init__(self, ttl_s: float, margin_s: float) -> None:
        if not 0 < margin_s < ttl_s:
            raise ValueError(f"a term of {ttl_s} s cannot have a margin of {margin_s} s")
        self.ttl_s = ttl_s
        self.margin_s = margin_s
        self.trusted_until = -math.inf
        self._ended = False

    def renewed(self, asked_at: float) -> None:
        """Note that the store granted a heartbeat which left here at `asked_at` or later."""
        if not self._ended:
            self.trusted_until = max(self.trusted_until, asked_at + self.ttl_s - self.margin_s)

    def trusted(self, now: float) -> bool:
        """Tell whether work under this term is still allowed."""
        return now < self.trusted_until

    def end(self) -> None:
        """Stop trusting it, for good."""
        self._ended = True
        self.trusted_until = -math.inf
