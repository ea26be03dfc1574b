"""A wish to move a mapping's position, as it stands in the mapping's record until the mapping's tracker has met it.

Whoever asks has looked up in the source what the wish comes to, shard by shard; here are only definite places, so that
carrying it out twice comes to the same.
"""

from __future__ import annotations

import msgspec


class Move(msgspec.Struct, frozen=True, omit_defaults=True):
    """What becomes of one shard."""

    shard: str
    position: str | None  # the checkpoint from now on; None: there is none, and reading begins at `origin`
    origin: str
    begins: str | None = (
        None  # position of the first record that is read from now on; None: all of them are yet to come
    )
    forward: bool = False  # it passes records over: a checkpoint that has come further by itself stays


class SeekWish(msgspec.Struct, frozen=True):
    """The moves, and who asked for them."""

    moves: tuple[Move, ...]
    by: str = ""

    def encode(self) -> str:
        """Return the stored form."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def decode(cls, stored: str) -> SeekWish:
        """Read the stored form. Raises `msgspec.DecodeError` when it is none."""
        return _decode(stored)


_decode = msgspec.json.Decoder(SeekWish).decode
