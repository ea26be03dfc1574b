"""The opaque part of a shard's stored progress: what a restart must know besides the checkpoint.

Positions are stored as decimal strings: sequence numbers are far beyond what JSON readers take as a number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from pollers.attempts import Attempts  # noqa: TC001 - msgspec reads the annotation at run time
from pollers.windows import StoredWindow  # noqa: TC001 - same

if TYPE_CHECKING:
    from pollers.positions import Ranges


class _Stored(msgspec.Struct, omit_defaults=True, frozen=True):
    """The stored form. Unknown fields of a later version are ignored, missing ones take their defaults."""

    attempts: dict[str, Attempts] = {}
    ahead: list[tuple[str, str]] = []
    window: StoredWindow | None = None
    parked: bool | int = 0  # former versions wrote only whether there is something


_decode = msgspec.json.Decoder(_Stored).decode


class StoredState(msgspec.Struct, frozen=True):
    """What belongs to the checkpoint it is saved with.

    What unfinished records have been through, by the first position of each run, what is finished beyond the
    checkpoint, the tumbling window with its state, and the revision of the shard's parking lot, 0 when it is empty.
    """

    attempts: dict[int, Attempts] = {}
    ahead: Ranges = ()
    window: StoredWindow | None = None
    parked: bool | int = 0  # True: there is something, of a revision that was not noted

    def encode(self) -> bytes:
        """Return the stored form; empty when there is nothing to know."""
        if not self.attempts and not self.ahead and self.window is None and not self.parked:
            return b""
        attempts = {str(position): one for position, one in self.attempts.items()}
        ahead = [(str(first), str(last)) for first, last in self.ahead]
        return msgspec.json.encode(_Stored(attempts, ahead, self.window, self.parked))

    @classmethod
    def decode(cls, stored: bytes) -> StoredState:
        """Read the stored form. Raises `msgspec.DecodeError` when it is none."""
        if not stored:
            return cls()
        try:
            found = _decode(stored)
            attempts = {int(position): one for position, one in found.attempts.items()}
            ahead = tuple((int(first), int(last)) for first, last in found.ahead)
        except ValueError as exc:
            raise msgspec.DecodeError(str(exc)) from exc
        return cls(attempts, ahead, found.window, found.parked)
