"""What an on-failure document says about Kinesis records: `KinesisBatchInfo` (spec section 4.4). Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pollers.failure_document import timestamp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.ids import ShardId
    from model.mapping import KinesisSource
    from model.record import Record


class KinesisBatchInfo:
    """`pollers.ports.BatchInfo` of one mapping: the stream's ARN, also where a consumer of it is read."""

    member = "KinesisBatchInfo"

    def __init__(self, source: KinesisSource) -> None:
        self._stream_arn = source.arn

    def of_batch(self, shard: ShardId, records: Sequence[Record], event_bytes: int) -> dict[str, object]:  # noqa: ARG002 - Kinesis does not tell sizes
        """Describe records of one shard."""
        first, last = records[0], records[-1]
        return {
            "shardId": shard,
            "startSequenceNumber": first.shown,
            "endSequenceNumber": last.shown,
            "approximateArrivalOfFirstRecord": timestamp(first.arrival_ms),
            "approximateArrivalOfLastRecord": timestamp(last.arrival_ms),
            "batchSize": len(records),
            "streamArn": self._stream_arn,
        }
