"""What an on-failure document says about Kafka records: `KafkaBatchInfo` (spec section 4.4). Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pollers.failure_document import timestamp
from pollers.sources.kafka_envelope import partition_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.ids import ShardId
    from model.mapping import KafkaSource
    from model.record import Record


class KafkaBatchInfo:
    """`pollers.ports.BatchInfo` and `RecordInfo` of one mapping. A self-managed cluster has no ARN to show."""

    member = "KafkaBatchInfo"

    def __init__(self, source: KafkaSource) -> None:
        self._topic = source.topic
        arn = {"eventSourceArn": source.arn} if source.arn else {}
        self._cluster = {**arn, "bootstrapServers": ",".join(source.bootstrap_servers)}

    def of_batch(self, shard: ShardId, records: Sequence[Record], event_bytes: int) -> dict[str, object]:  # noqa: ARG002 - an event may hold several partitions
        """Describe records by their partitions."""
        partitions: dict[int, list[Record]] = {}
        for record in records:
            partitions.setdefault(partition_of(record.item_id), []).append(record)
        infos = {f"{self._topic}-{partition}": _range(found) for partition, found in partitions.items()}
        return self._info(len(records), event_bytes, recordsInfo=infos)

    def of_record(self, record: Record, event_bytes: int) -> dict[str, object]:
        """Describe one record, for a message in a topic."""
        info = {"offset": str(record.position), "timestamp": timestamp(record.arrival_ms)}
        return self._info(1, event_bytes, recordInfo=info)

    def _info(self, count: int, event_bytes: int, **records: object) -> dict[str, object]:
        return {"batchSize": count, **self._cluster, "payloadSize": event_bytes, **records}


def _range(records: Sequence[Record]) -> dict[str, str]:
    first, last = records[0], records[-1]
    return {
        "firstRecordOffset": str(first.position),
        "lastRecordOffset": str(last.position),
        "firstRecordTimestamp": timestamp(first.arrival_ms),
        "lastRecordTimestamp": timestamp(last.arrival_ms),
    }
