"""The opaque part of a shard's stored progress: what a restart must know besides the checkpoint."""

from __future__ import annotations

import msgspec

from pollers.positions import Ranges  # noqa: TC001 - msgspec reads the annotation at run time
from pollers.windows import StoredWindow  # noqa: TC001 - same


class StoredState(msgspec.Struct, omit_defaults=True, frozen=True):
    """What belongs to the checkpoint it is saved with.

    Function errors counted so far by first position of the batch, what is finished beyond the checkpoint, and the
    tumbling window with its state.

    Unknown fields of a later version are ignored, missing ones take their defaults, so versions can be mixed in a
    fleet.
    """

    failures: dict[int, int] = {}
    ahead: Ranges = ()
    window: StoredWindow | None = None

    def encode(self) -> bytes:
        """Return the stored form; empty when there is nothing to know."""
        if not self.failures and not self.ahead and self.window is None:
            return b""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, stored: bytes) -> StoredState:
        """Read the stored form. Raises `msgspec.DecodeError` when it is none."""
        return msgspec.json.decode(stored, type=cls) if stored else cls()
