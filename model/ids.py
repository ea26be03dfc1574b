"""Identifiers, as distinct types so that one cannot stand in for another."""

from __future__ import annotations

from typing import NamedTuple, NewType

MappingId = NewType("MappingId", str)
"""UUID of an event source mapping, lower case with hyphens."""

ShardId = NewType("ShardId", str)
"""A shard's name inside its mapping: `orders-3` (Kafka), `shardId-000000000000` (Kinesis), `tracker`."""

NodeId = NewType("NodeId", str)
"""One uninterrupted membership of one process in the fleet. Who lost its membership comes back under a new id."""

FencingToken = NewType("FencingToken", int)
"""Grows with every change of a shard's owner, also across a wiped store. Fits 53 bits."""

Position = NewType("Position", str)
"""A place in a shard as a decimal string of up to 128 digits without leading zeros.

Kinesis: the sequence number of the last finished record. Kafka: the offset of the next record to read, as Kafka
commits it. Compare with `position_key`, never as text.
"""

ShardOrigin = NewType("ShardOrigin", str)
"""Where one shard begins as long as it has no checkpoint: see `model.shard`."""

TRACKER = ShardId("tracker")
"""The shard every mapping has from its creation: its holder discovers the others and moves the mapping's state."""


class ShardKey(NamedTuple):
    """A shard's full name: unique across all mappings of a fleet."""

    mapping: MappingId
    shard: ShardId

    def __str__(self) -> str:
        """Return `MAPPING/SHARD`, the form used as a field in the store and in `X-Esmd-Shard`."""
        return f"{self.mapping}/{self.shard}"

    @classmethod
    def parse(cls, text: str) -> ShardKey:
        """Read what `str()` wrote. Raises ValueError when there is no slash."""
        mapping, slash, shard = text.partition("/")
        if not slash:
            raise ValueError(f"not a shard key: {text!r}")
        return cls(MappingId(mapping), ShardId(shard))


def position_key(position: Position) -> tuple[int, str]:
    """Order positions by value without turning 128 digits into an integer."""
    return (len(position), position)
