"""The opaque part of a shard's stored progress: what a restart must know besides the checkpoint."""

from __future__ import annotations

import msgspec

from pollers.positions import Ranges  # noqa: TC001 - msgspec reads the annotation at run time


class StoredState(msgspec.Struct, omit_defaults=True, frozen=True):
    """Function errors counted so far by first position of the batch, and what is finished beyond the checkpoint.

    Unknown fields of a later version are ignored, missing ones take their defaults, so versions can be mixed in a
    fleet.
    """

    failures: dict[int, int] = {}
    ahead: Ranges = ()

    def encode(self) -> bytes:
        """Return the stored form; empty when there is nothing to know."""
        if not self.failures and not self.ahead:
            return b""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, stored: bytes) -> StoredState:
        """Read the stored form. Raises `msgspec.DecodeError` when it is none."""
        return msgspec.json.decode(stored, type=cls) if stored else cls()
