"""What holders have stored of their shards, inside one process, and whose writes are taken. No I/O.

Every write on a shard's behalf is judged by the shard's newest fencing token. Who is given a token, and which shards
there are, is `statemgr.memory_store`'s.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from model.ids import FencingToken, ShardKey
from model.progress import ParkedRecords, SaveResult, ShardProgress
from statemgr.memory_tables import changed_lot, copy_of, drop, goes_back, written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from model.ids import MappingId, ShardId, ShardOrigin
    from model.progress import ProgressUpdate


class MemoryProgress:
    """Progress, parking lots and newest tokens by shard. `clock` is the store's."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.wipe()

    def wipe(self) -> None:
        """Forget everything."""
        self.highest_token = 0  # ever given out or seen, over all shards
        self.tokens: dict[ShardKey, int] = {}
        self.stored: dict[ShardKey, ShardProgress] = {}
        self.parked: dict[ShardKey, ParkedRecords] = {}
        self._removed: dict[MappingId, int] = {}  # every token below is stale: late writers cannot bring it back

    # The fence

    def newest_token(self, key: ShardKey) -> int:
        """Return the token below which a write on the shard's behalf is stale; 0: there was none."""
        return self.tokens.get(key) or self._removed.get(key.mapping, 0)

    def new_token(self, key: ShardKey, floor: FencingToken) -> FencingToken:
        """Give a shard a token above `floor` and all there ever were, across a wipe too, since it comes from time."""
        token = self.tokens[key] = self._next_token(floor)
        return token

    def note_token(self, key: ShardKey, token: FencingToken) -> None:
        """Learn of a token under which something was written: after a wipe nobody knows it."""
        self.tokens[key] = token
        self.highest_token = max(self.highest_token, token)

    def _next_token(self, floor: FencingToken) -> FencingToken:
        self.highest_token = max(self.highest_token + 1, floor + 1, int(self._clock() * 1_000_000))
        return FencingToken(self.highest_token)

    # Reading

    def of(self, key: ShardKey) -> ShardProgress:
        """Return how far a shard got; of one that nobody knows, the beginning."""
        return copy_of(self.stored.get(key, ShardProgress()))

    def of_shards(self, keys: Sequence[ShardKey]) -> dict[ShardKey, ShardProgress]:
        """See `ProgressStore.load`."""
        return {key: self.of(key) for key in keys if key in self.stored}

    def of_mapping(self, mapping: MappingId) -> dict[ShardKey, ShardProgress]:
        """See `ProgressStore.load_mapping`."""
        return {key: self.of(key) for key in self.stored if key.mapping == mapping}

    def parked_of(self, key: ShardKey) -> ParkedRecords:
        """See `ProgressStore.load_parked`."""
        return self.parked.get(key, ParkedRecords())

    # Writing

    def save(self, update: ProgressUpdate) -> SaveResult:
        """Do what `ProgressStore.save` does, for one shard."""
        newest = self.newest_token(update.key)
        if newest > update.token:
            return SaveResult.STALE
        before = self.stored.get(update.key, ShardProgress())
        if newest == update.token and goes_back(update, before):
            return SaveResult.BACKWARD
        lot = changed_lot(self.parked.get(update.key), update.parked)
        if lot is None:
            return SaveResult.INCOMPLETE
        if update.parked is not None:
            self.parked[update.key] = lot
        self.note_token(update.key, update.token)
        self.stored[update.key] = written(update, update.position or before.position, before.origin or update.origin)
        return SaveResult.SAVED

    def note_origins(self, mapping: MappingId, origins: Mapping[ShardId, ShardOrigin]) -> None:
        """Note where shards begin; what is noted already stands."""
        for shard, origin in origins.items():
            key = ShardKey(mapping, shard)
            before = self.stored.get(key, ShardProgress())
            if before.origin is None:
                self.stored[key] = replace(before, origin=origin)

    def move(self, updates: Sequence[ProgressUpdate]) -> SaveResult:
        """Put shards where they are to be, all or none (INCOMPLETE), so that all writers from before are stale."""
        lots = {update.key: changed_lot(self.parked.get(update.key), update.parked) for update in updates}
        if None in lots.values():
            return SaveResult.INCOMPLETE
        fence = self._next_token(FencingToken(0))
        for update in updates:
            self.tokens[update.key] = fence
            self.stored[update.key] = written(update, update.position, update.origin)
            if update.parked is not None:
                self.parked[update.key] = lots[update.key] or ParkedRecords()
        return SaveResult.SAVED

    def retire(self, mapping: MappingId, shards: Iterable[ShardId]) -> None:
        """Forget shards of a mapping."""
        for shard in shards:
            for table in (self.tokens, self.stored, self.parked):
                table.pop(ShardKey(mapping, shard), None)
        self._outdate_forgotten(mapping)

    def remove(self, mapping: MappingId) -> None:
        """Forget all shards of a mapping."""
        drop(mapping, self.tokens, self.stored, self.parked)
        self._outdate_forgotten(mapping)

    def _outdate_forgotten(self, mapping: MappingId) -> None:
        """Have every token stale that a shard of the mapping without a token of its own ever had."""
        self.highest_token += 1
        self._removed[mapping] = self.highest_token
