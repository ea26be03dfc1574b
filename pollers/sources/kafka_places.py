"""Find a place in a partition: which offset it is, and what lies between it and where the partition is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.errors import SourceRefusedError
from model.ids import Position
from model.shard import PUT
from pollers.seeking import AtPosition, AtTime, Beginning, End, Found
from pollers.shard_state import StoredState

if TYPE_CHECKING:
    from model.progress import ShardProgress
    from pollers.positions import Ranges
    from pollers.seeking import Place
    from pollers.sources.kafka_client import PartitionConsumer, TopicPartition


async def find_place(
    consumer: PartitionConsumer, partition: TopicPartition, place: Place, *, standing: int, before: ShardProgress
) -> Found:
    """Return a place in a partition that is read from `standing` on. Raises what aiokafka raises, and refusals."""
    first = int((await consumer.beginning_offsets([partition]))[partition])
    end = int((await consumer.end_offsets([partition]))[partition])
    match place:
        case Beginning():
            offset = first
        case End():
            offset = end
        case AtTime(ms):
            at = (await consumer.offsets_for_times({partition: ms}))[partition]
            offset = end if at is None else int(at.offset)
        case AtPosition(position):
            offset = int(position)
            if not first <= offset <= end:
                raise SourceRefusedError(
                    f"{partition.topic}-{partition.partition} has the offsets {first} to {end}, not {offset}"
                )
    skips = unread(max(standing, first), offset, StoredState.decode(before.state).ahead)
    return Found(Position(str(offset)), PUT, offset, skips, stays=offset == standing)


def unread(standing: int, offset: int, ahead: Ranges) -> int:
    """Count the offsets passed over that were not finished out of turn: at most so many records. Pure."""
    if offset <= standing:
        return 0
    finished = sum(max(0, min(last + 1, offset) - max(begin, standing)) for begin, last in ahead)
    return offset - standing - finished
