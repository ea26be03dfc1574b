"""What a node offers to run for others in its sandboxes, as it stands in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model.ids import NodeId


class Capacity(msgspec.Struct, frozen=True):
    """How many execution environments there may be, and how much memory they may have together."""

    environments: int
    memory_mb: int

    def fits(self, memory_mb: int) -> bool:
        """Whether there is room for one of so much memory."""
        return self.environments >= 1 and self.memory_mb >= memory_mb

    def less(self, memory_mb: int) -> Capacity:
        """Return what is left beside one more of so much memory; never less than nothing."""
        return Capacity(max(0, self.environments - 1), max(0, self.memory_mb - memory_mb))

    def plus(self, other: Capacity) -> Capacity:
        """Return both together."""
        return Capacity(self.environments + other.environments, self.memory_mb + other.memory_mb)


class Offer(msgspec.Struct, frozen=True):
    """What one node offers. `marks` holds for each function a hash of its definition and code."""

    address: str  # HOST:PORT of its HTTP surface
    host: str  # the network that alone reaches it, by its identity; empty: every node may try
    tls: bool
    guarded: bool  # wants the fleet's secret
    environments: int  # there are, whatever they do
    free: Capacity
    idle: Capacity  # held by idle environments, which end when the room is needed
    marks: dict[str, str]
    warm: dict[str, int]  # idle environments by function
    running: dict[str, dict[str, int]] = {}  # busy ones that run for another node, by its id and function

    def encode(self) -> bytes:
        """Return what `decode_offers` reads."""
        return msgspec.json.encode(self)


_decode = msgspec.json.Decoder(Offer).decode


def decode_offers(documents: Mapping[NodeId, bytes]) -> dict[NodeId, Offer]:
    """Return the offers that this version understands."""
    found = {}
    for node, document in documents.items():
        try:
            found[node] = _decode(document)
        except msgspec.DecodeError:  # of another version: nothing is forwarded there
            continue
    return found
