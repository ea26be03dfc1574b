"""What a firing of a schedule looks like: EventBridge's "Scheduled Event", or the mapping's `input`. Pure."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import msgspec

from model.mapping import ScheduleSource
from model.record import Records
from model.schedule import utc_text
from pollers.failure_document import timestamp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.ids import ShardId
    from model.mapping import EventSourceMapping
    from model.record import Places, Record

_EVENTS = uuid.UUID("7d0c1a57-3b55-5a0e-9a8f-0c2c7f5a3e44")
"""Namespace of the events' ids: one firing has the same id whenever it is delivered."""


class ScheduleEnvelope:
    """The envelope of one mapping. An event is one firing; `item_id` is the time it was for."""

    def __init__(self, mapping: EventSourceMapping, *, partition: str, region: str, account_id: str) -> None:
        if not isinstance(mapping.source, ScheduleSource):
            raise TypeError(f"{mapping.name} is no schedule")
        self._mapping = mapping.id
        self._input = mapping.source.input
        self.rule_arn = f"arn:{partition}:events:{region}:{account_id}:rule/{mapping.name}"
        self._region = region
        self._account_id = account_id

    def keys(self, raws: Sequence[Any]) -> list[None]:
        """Return no keys: firings are in order by themselves."""
        return [None] * len(raws)

    def encode(self, shard: ShardId, raws: Sequence[Any], places: Places) -> Records:  # noqa: ARG002 - there is one shard
        """Turn firings into records with their JSON made."""
        times = [utc_text(raw.at_s) for raw in raws]
        arrivals_ms = [int(raw.read_s * 1000) for raw in raws]
        text = b"[%b]" % b",".join([self._input or self._scheduled_event(time) for time in times])
        return Records(places, arrivals_ms, self.keys(raws), times, text)

    def _scheduled_event(self, time: str) -> bytes:
        return msgspec.json.encode(
            {
                "version": "0",
                "id": str(uuid.uuid5(_EVENTS, f"{self._mapping} {time}")),
                "detail-type": "Scheduled Event",
                "source": "aws.events",
                "account": self._account_id,
                "time": time,
                "region": self._region,
                "resources": [self.rule_arn],
                "detail": {},
            }
        )

    def event(self, records: Records) -> bytes:
        """Return the event of the one firing that a batch holds."""
        return records.fragments[0]

    def overhead(self) -> int:
        """Return -1: a batch has one record, and no comma."""
        return -1

    def parse_item_id(self, identifier: object) -> None:  # noqa: ARG002 - nothing can be named
        """Return None: there is nothing to report about part of a firing."""
        return


class ScheduleBatchInfo:
    """What an on-failure document says about a firing: `ScheduleInfo` (ours). `pollers.ports.BatchInfo`."""

    member = "ScheduleInfo"

    def __init__(self, source: ScheduleSource, rule_arn: str) -> None:
        self._source = source
        self._rule_arn = rule_arn

    def of_batch(self, shard: ShardId, records: Sequence[Record], event_bytes: int) -> dict[str, object]:  # noqa: ARG002 - neither says anything here
        """Describe a firing."""
        return {
            "ruleArn": self._rule_arn,
            "schedule": self._source.expression,
            "scheduledTime": records[0].item_id,
            "firedTime": timestamp(records[0].arrival_ms),
        }
