"""Judges what is promised about records of streams and topics: nothing lost, order, checkpoints (invariants 1 to 3).

A record is *owed* until it is done: taken by the function, handed to the destination, or filtered out by the mapping.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from model.ids import ShardId, ShardKey
from model.mapping import KafkaSource, KinesisSource, StartingPosition
from model.outcome import Delivered, FunctionFailed, PartlyFailed
from pollers.shard_state import StoredState
from pollers.sources.kinesis_user_records import PLACE_BITS
from tests.simulation.calls import Line
from tests.simulation.plan import FILTERED_KEY, LARGEST_BATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from model.ids import Position
    from model.lease import Lease
    from model.mapping import EventSourceMapping
    from model.progress import ProgressUpdate, ShardProgress
    from pollers.failure_document import Failure
    from pollers.positions import Ranges
    from tests.simulation.calls import Call, Entry, Written
    from tests.simulation.judge import Judge
    from tests.support.simulated_redis import SimulatedRedis


_LATEST_S = 3.0  # how exact the time of the first look is: clocks are compared to two seconds


@dataclass(slots=True)
class _Shard:
    """One shard: its records, and how much of them the store knows to be finished."""

    records: list[Written] = field(default_factory=list)
    sequences: list[int] = field(default_factory=list)
    checked: int = 0  # records before this place are behind the checkpoint, and were looked at
    parked: set[int] = field(default_factory=set)  # sequence numbers in the stored lot
    token: int = 0  # of the present holder
    begins: int = -1  # where that one began: everything up to here was saved
    ahead: Ranges = ()  # and this
    failures: tuple[tuple[int, int, int], ...] = ()  # first, last, count: attempts it was told of
    unsaved: dict[int, Written] = field(default_factory=dict)  # taken under its lease, and not saved
    lanes: int = 1
    begun: bool = False

    def known_failures(self, sequence: int) -> int:
        """Return what the present holder was told of a record's failures."""
        runs = [(first, last, count) for first, last, count in self.failures if first <= sequence <= last]
        if self.lanes > 1:  # lanes are spread differently in each process, so only the first of a run is surely of it
            runs = [run for run in runs if run[0] == sequence]
        return max(runs, default=(0, 0, 0))[2]


class StreamJudge:
    """`judge.RecordJudge` of the mapping of one stream or topic."""

    def __init__(self, judge: Judge, redis: SimulatedRedis, mapping: EventSourceMapping) -> None:
        self.lines: dict[str, Line] = {}
        self.shards: dict[str, _Shard] = {}
        self.taken: Counter[str] = Counter()  # what records ended as
        self.repeats = 0
        self.moved_back = False  # ever
        self.parents: Callable[[str], tuple[str, ...]] = lambda _shard: ()
        self._judge = judge
        self._redis = redis
        self._mapping = mapping
        self._latest = mapping.starting_position is StartingPosition.LATEST
        self._began_at: float | None = None
        self._filters = bool(mapping.filter_patterns)
        source = mapping.source
        consumes = isinstance(source, KinesisSource) and source.consumer_arn is not None
        self._place_bits = PLACE_BITS if consumes else 0  # behind the sequence numbers, in positions
        self._next = isinstance(source, KafkaSource)  # whether a checkpoint names the next record, not the last one
        self._lanes = mapping.extensions.parallelization_factor or mapping.parallelization_factor
        attempts = mapping.maximum_retry_attempts
        self._most_failures = None if attempts is None else attempts + 1
        self._batches = 2 * self._lanes + 1  # one more: from the parking lot

    # The world

    def shard(self, name: str) -> _Shard:
        """Return what is known of a shard."""
        found = self.shards.get(name)
        if found is None:
            found = self.shards[name] = _Shard(lanes=self._lanes)
        return found

    def wrote(self, key: str, shard: str, sequence: int, place: int) -> None:
        """Note a record that was written; `place` is that in an aggregate, or 0."""
        written = self.lines.setdefault(key, Line(key)).write()
        written.shard, written.sequence = shard, (sequence << self._place_bits) + place
        found = self.shard(shard)
        found.records.append(written)
        found.sequences.append(written.sequence)
        if self._filters and key == FILTERED_KEY:
            self._done(written, "filtered")
        elif self._latest and (self._began_at is None or self._judge.now < self._began_at + _LATEST_S):
            self._done(written, "before the start")

    def handed_over(self, failure: Failure) -> None:
        """Judge what the destination was given: only what had all of its attempts."""
        shard = self.shard(str(failure.shard.shard))
        for one in failure.records:
            record = shard.records[shard.sequences.index(one.position)]
            attempts = record.failures + record.cut_off  # a holder's death may count too: see `pollers.deaths`
            if self._most_failures is None or attempts < self._most_failures:
                self._judge.wrong(f"lost: {record} given up after {attempts} of {self._most_failures} failed attempts")
            self._done(record, "destination")

    @property
    def owed(self) -> list[Written]:
        """What is not done."""
        return [record for line in self.lines.values() for record in line.records[line.owed_from :] if not record.done]

    @property
    def written(self) -> int:
        """Count the records."""
        return sum(len(line.records) for line in self.lines.values())

    def unsaved(self) -> list[str]:
        """Return which wanted shards have records behind which there is no checkpoint."""
        missing = []
        for name, shard in self.shards.items():
            beyond = [record for record in shard.records[shard.checked :] if record.done != "before the start"]
            if beyond and ShardKey(self._mapping.id, ShardId(name)) in self._redis._wanted:
                missing.append(f"{len(beyond)} records of {name} are not behind its checkpoint")
        return missing

    def _end_of(self, checkpoint: Position | None) -> int:
        """Return the last position behind a checkpoint, which is a sequence number, or the next offset."""
        if checkpoint is None:
            return -1
        return ((int(checkpoint) + (not self._next)) << self._place_bits) - 1

    def _done(self, record: Written, how: str) -> None:
        if not record.done:
            record.done = how
            self.taken[how] += 1
            record.line.advance()

    # Calls

    def find(self, entry: Entry) -> Written:
        """Return what is known of a record."""
        key, number = entry.name
        return self.lines[key].records[number]

    def begins(self, call: Call) -> None:
        """Order: a record goes to the function when all before it of its key are done, and nobody else has the key."""
        other = self._judge.at_once(call)
        if other is not None:
            self._judge.wrong(
                f"order: {call.caller} calls with {_names(call.records)} under token {call.token}, while "
                f"{other.caller} waits for {_names(other.records)} under {other.token}"
            )
        reached = {record.line: record.line.owed_from for record in call.records}
        shard = self.shard(str(call.shard.shard))
        if not shard.begun:
            shard.begun = True
            for parent in self.parents(str(call.shard.shard)):
                owed = [record for record in self.shard(parent).records if not record.done]
                if owed:
                    self._judge.wrong(f"order: {call.shard} begins before its parent {parent} is done: {_names(owed)}")
        for record in call.records:
            line = record.line
            if record.number > reached[line]:
                self._judge.wrong(
                    f"order: {call.caller} calls with {record}, before {line.key}:{reached[line]} is done"
                )
            if record.done == "filtered":
                self._judge.wrong(f"filter: {call.caller} calls with {record}")
            reached[line] = line.first_owed(max(reached[line], record.number + 1))
            self.repeats += bool(record.done)
            if call.token == shard.token and self._was_saved(shard, record):
                self._judge.wrong(f"checkpoints: {call.caller} calls with {record} again, which was saved as finished")

    def _was_saved(self, shard: _Shard, record: Written) -> bool:
        at = record.sequence
        return at not in shard.parked and (
            at <= shard.begins or any(first <= at <= last for first, last in shard.ahead)
        )

    def carried_out(self, call: Call, taken: list[Written]) -> None:
        """Learn what the function took."""
        for record in taken:
            self._done(record, "delivered")

    def answered(self, call: Call) -> None:
        """Learn what the caller knows: it must save that, and count failures against the attempts."""
        shard = self.shard(str(call.shard.shard))
        match call.outcome:
            case Delivered() if self._mapping.report_batch_item_failures:
                pass  # what that means depends on the body
            case Delivered():
                if call.token == shard.token:
                    shard.unsaved.update((record.sequence, record) for record in call.records)
            case FunctionFailed() | PartlyFailed():
                self._count_failure(call, shard)
            case _:
                pass

    def _count_failure(self, call: Call, shard: _Shard) -> None:
        if len(call.records) > 1 and self._mapping.bisect_on_function_error:
            return  # a split is no attempt
        for record in call.records:
            record.failures += 1
            if record.holder != call.token:
                record.holder, record.failures_here = call.token, 0
            record.failures_here += 1
            known = shard.known_failures(record.sequence) if call.token == shard.token else 0
            if self._most_failures is not None and known + record.failures_here > self._most_failures:
                self._judge.wrong(
                    f"attempts: {call.caller} has had {record} fail {record.failures_here} times, after {known} before "
                    f"it, of {self._most_failures} allowed"
                )

    # The store

    def acquired(self, lease: Lease, progress: ShardProgress) -> None:
        """Note what a holder begins with; what the one before it had not saved is bounded."""
        shard = self.shard(str(lease.key.shard))
        if len(shard.unsaved) > self._batches * LARGEST_BATCH:
            self._judge.wrong(f"checkpoints: {len(shard.unsaved)} records of {lease.key} were taken and not saved")
        shard.unsaved.clear()
        stored = StoredState.decode(progress.state)
        shard.token = lease.token
        shard.begins = self._end_of(progress.position)
        shard.ahead = stored.ahead
        shard.failures = tuple((first, one.last, one.failures) for first, one in stored.attempts.items())

    def releasing(self, lease: Lease) -> None:
        """Whoever gives a shard away in order has saved all that it finished (invariant 9)."""
        shard = self.shard(str(lease.key.shard))
        if shard.unsaved and self._judge.is_newest(lease) and self._judge.in_order(lease.node):
            self._judge.wrong(
                f"hand-over: {lease.key} released by {lease.node} with {_names(shard.unsaved.values())} not saved"
            )

    def saved(self, update: ProgressUpdate) -> None:
        """Judge a checkpoint: it moves forward only, and past nothing that is owed (invariant 3)."""
        shard = self.shard(str(update.key.shard))
        position = self._end_of(self._redis.progress.stored[update.key].position)
        ahead = StoredState.decode(update.state).ahead
        self._look_at_lot(update, shard, position, ahead)
        reached = bisect_right(shard.sequences, position)
        if reached < shard.checked:
            self._judge.wrong(f"checkpoints: {update.key} went back to {update.position} under token {update.token}")
        for record in shard.records[shard.checked : reached]:
            if not record.done and record.sequence not in shard.parked:
                self._judge.wrong(f"lost: the checkpoint of {update.key} passes {record}, which is owed")
        shard.checked = max(reached, shard.checked)
        for first, last in ahead:
            for place in range(bisect_right(shard.sequences, first - 1), bisect_right(shard.sequences, last)):
                if shard.sequences[place] not in shard.parked:
                    self._must_be_done(shard.records[place], f"{update.key} is said to be finished ahead with it")
        if update.token == shard.token:
            still = (item for item in shard.unsaved.items() if item[0] > position and not _holds(ahead, item[0]))
            shard.unsaved = dict(still)

    def _look_at_lot(self, update: ProgressUpdate, shard: _Shard, position: int, ahead: Ranges) -> None:
        """Judge what leaves the parking lot: it is done, or will be read again."""
        if update.parked is None:
            return
        parked = {record.position for record in self._redis.progress.parked[update.key].records}
        for sequence in shard.parked - parked:
            if sequence <= position or _holds(ahead, sequence):
                record = shard.records[shard.sequences.index(sequence)]
                self._must_be_done(record, f"the parking lot of {update.key} is stored without it")
        shard.parked = parked

    def _must_be_done(self, record: Written, where: str) -> None:
        if not record.done:
            self._judge.wrong(f"lost: {where}: {record} is owed")

    def creating(self) -> None:
        """With LATEST, whoever began after the store was wiped can only begin anew (docs/leases.md)."""
        if self._latest and self._began_at is not None:
            self._began_at = None
            for record in self.owed:
                self._done(record, "before the start")

    def wanted(self) -> None:
        """Learn that the tracker has had its first look: with LATEST, what is written from now on is owed."""
        if self._began_at is None:
            self._began_at = self._judge.now

    def retired(self, shard: ShardKey) -> None:
        """Judge it: nothing of a shard that is forgotten is owed."""
        found = self.shards.get(str(shard.shard))
        for record in found.records if found else ():
            if not record.done:
                self._judge.wrong(f"lost: {shard} is forgotten, and {record} is owed")

    def moved(self, shard: ShardKey) -> None:
        """Have all of a shard owed once more; what was filtered out, or came before the start, need not come."""
        found = self.shard(str(shard.shard))
        for record in found.records:
            if record.done in {"delivered", "destination"}:
                record.was, record.done = record.done, ""
                record.failures = record.cut_off = record.failures_here = 0
                record.line.owed_from = min(record.line.owed_from, record.number)
        lot = self._redis.progress.parked.get(shard)
        found.parked = {record.position for record in lot.records} if lot else set()
        found.unsaved.clear()
        found.checked, found.begins, found.ahead, found.failures, found.begun = 0, -1, (), (), False
        self.moved_back = True

    def forgotten(self) -> None:
        """Go back to what the store has now."""
        for line in self.lines.values():
            for record in line.records:
                if record.was and not record.done:  # the move may be forgotten too
                    self._done(record, record.was)
        for name, shard in self.shards.items():
            key = ShardKey(self._mapping.id, ShardId(name))
            progress = self._redis.progress.stored.get(key)
            position = progress.position if progress is not None else None
            shard.checked = bisect_right(shard.sequences, self._end_of(position))
            lot = self._redis.progress.parked.get(key)
            shard.parked = {record.position for record in lot.records} if lot else set()
            shard.unsaved.clear()
            shard.begins, shard.ahead, shard.failures = -1, (), ()

    def mirrored(self, name: str, offset: int) -> None:
        """Judge what a topic's consumer group is told, which outlives the store: it passes nothing that is owed."""
        if self.moved_back:
            return  # a late commit of a former holder, which does not count any more
        shard = self.shard(name)
        for record in shard.records[: bisect_left(shard.sequences, offset)]:
            self._must_be_done(record, f"the consumer group is at {offset} of {name}")


def _names(records: Iterable[Written]) -> str:
    return " ".join(str(record) for record in records)


def _holds(ranges: Ranges, position: int) -> bool:
    return any(first <= position <= last for first, last in ranges)
