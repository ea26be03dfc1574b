"""On-failure documents: what a destination is told about records that were given up (spec section 4.4). Pure.

What a document says about the records themselves comes from their source (`pollers.ports.BatchInfo`); which document
goes where, and how, is the destinations' business (`pollers.destinations`).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from model.outcome import FunctionFailed, Outcome, PartlyFailed
from pollers.retrying import Condition

if TYPE_CHECKING:
    from model.ids import ShardKey
    from model.record import Records
    from pollers.ports import BatchInfo, Envelope, RecordInfo
    from pollers.retrying import Discard

LATEST = "$LATEST"

_VERSION = "1.0"
_TOPIC_CONDITIONS = {Condition.RETRY_ATTEMPTS_EXHAUSTED: "RetriesExhausted"}  # AWS spells it so in Kafka topics only
_REQUESTS = uuid.UUID("0d6a3c8e-52f7-5a39-8f0b-9d5b7f3f2a61")  # namespace of request ids
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FUNCTION_ARN_PARTS = 7  # of an ARN without qualifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Records given up, and all that a document says about it: fixed once, so that every attempt tells the same."""

    shard: ShardKey
    records: Records
    condition: Condition
    invocations: int
    outcome: Outcome | None  # the last one
    at_ms: float  # epoch, when the records were given up
    id: uuid.UUID  # random: no other object in a bucket has this name

    @classmethod
    def of(cls, shard: ShardKey, discard: Discard, *, at_ms: float) -> Failure:
        """Make one of what the retry rules decided."""
        return cls(
            shard=shard,
            records=discard.records,
            condition=discard.condition,
            invocations=discard.work.invocations,
            outcome=discard.work.last,
            at_ms=at_ms,
            id=uuid.uuid4(),
        )

    @property
    def request_id(self) -> str:
        """A UUID that is the same whenever the same records are handed over, so that consumers can deduplicate."""
        records = self.records
        return str(uuid.uuid5(_REQUESTS, f"{self.shard}:{records.span}@{records.arrivals_ms[0]}"))


class TopicMessage(NamedTuple):
    """What becomes of one failed record in a Kafka topic."""

    key: bytes | None
    value: bytes
    without_payload: bytes  # for a topic that takes no message as large as `value`


class FailureDocuments:
    """The documents of one mapping. `function_arn` has a qualifier only if the mapping has one."""

    def __init__(self, *, function_arn: str, envelope: Envelope, batch_info: BatchInfo) -> None:
        self._function_arn = function_arn
        self._envelope = envelope
        self._batch_info = batch_info

    def message(self, failure: Failure) -> bytes:
        """Return the document for a queue, or a topic of SNS: it names the records, and does not hold them."""
        return self._encode(failure, self._envelope.event(failure.records))

    def message_with_payload(self, failure: Failure, *, max_bytes: int) -> bytes | None:
        """Return the same with the event in it, as for a bucket (ours); None when that has more than `max_bytes`."""
        if failure.records.size > max_bytes:
            return None
        whole = self.object_body(failure)
        return whole if len(whole) <= max_bytes else None

    def object_body(self, failure: Failure) -> bytes:
        """Return the document for a bucket: the same, and the complete event as a JSON text."""
        event = self._envelope.event(failure.records)
        return self._encode(failure, event, payload=event.decode())

    def object_key(self, failure: Failure) -> str:
        """Return the name of the object in the bucket."""
        at, (mapping, shard) = moment(failure.at_ms), failure.shard
        return f"aws/lambda/{mapping}/{shard}/{at:%Y/%m/%d}/{at:%Y-%m-%dT%H.%M.%S}-{failure.id}"

    def _encode(self, failure: Failure, event: bytes, **more: object) -> bytes:
        batch = self._batch_info.of_batch(failure.shard.shard, failure.records, len(event))
        document = {**_head(failure, self._function_arn, failure.condition), self._batch_info.member: batch, **more}
        return encoded(document)


class TopicDocuments:
    """The messages of one mapping for a Kafka topic: one per failed record, each with the record in a whole event."""

    def __init__(self, *, function_arn: str, envelope: Envelope, record_info: RecordInfo) -> None:
        qualified = function_arn.count(":") >= _FUNCTION_ARN_PARTS
        self._function_arn = function_arn if qualified else f"{function_arn}:{LATEST}"
        self._envelope = envelope
        self._record_info = record_info

    def messages(self, failure: Failure) -> list[TopicMessage]:
        """Return the messages in the order of the records, under the records' own keys."""
        condition = _TOPIC_CONDITIONS.get(failure.condition, failure.condition)
        head = _head(failure, self._function_arn, condition)
        return [self._message(head, failure, failure.records[at : at + 1]) for at in range(len(failure.records))]

    def _message(self, head: dict[str, object], failure: Failure, single: Records) -> TopicMessage:
        info, event = self._record_info, self._envelope.event(single)
        (record,) = single
        described = info.of_record(record, len(event))
        # Without the event around it, the record's place must be told in another way.
        placed = info.of_batch(failure.shard.shard, single, len(event)) | described
        return TopicMessage(
            key=record.key.encode() if isinstance(record.key, str) else record.key,
            value=encoded({**head, info.member: described, "payload": msgspec.Raw(event)}),
            without_payload=encoded({**head, info.member: placed, "payload": None}),
        )


def _head(failure: Failure, function_arn: str, condition: str) -> dict[str, object]:
    head: dict[str, object] = {
        "requestContext": {
            "requestId": failure.request_id,
            "functionArn": function_arn,
            "condition": condition,
            # 1 also for records that grew too old before the function was ever called
            "approximateInvokeCount": max(1, failure.invocations),
        }
    }
    if failure.condition is not Condition.RECORD_AGE_EXCEEDED:
        head["responseContext"] = _response(failure)
    head["version"] = _VERSION
    head["timestamp"] = timestamp(failure.at_ms)
    return head


def _response(failure: Failure) -> dict[str, object] | None:
    outcome = failure.outcome
    if failure.condition is Condition.MAXIMUM_PAYLOAD_SIZE_EXCEEDED:
        return None
    if not isinstance(outcome, FunctionFailed | PartlyFailed):
        return None  # no answer of the function is known
    return {
        "statusCode": outcome.status,
        "executedVersion": outcome.executed_version or LATEST,
        # A partial response is no function error, not even an invalid one.
        "functionError": outcome.function_error if isinstance(outcome, FunctionFailed) else None,
    }


def timestamp(at_ms: float) -> str:
    """Return epoch milliseconds as the documents write times."""
    return moment(at_ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment(at_ms: float) -> datetime:
    """Return the moment, or the nearest there is: producers may write any 64-bit number."""
    try:
        return _EPOCH + timedelta(milliseconds=int(at_ms))
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if at_ms > 0 else datetime.min.replace(tzinfo=UTC)


def encoded(document: dict[str, object]) -> bytes:
    """Return the JSON, without the two characters that SQS and SNS refuse: escaped, they say the same."""
    encoded = msgspec.json.encode(document)
    return encoded.replace(b"\xef\xbf\xbe", b"\\ufffe").replace(b"\xef\xbf\xbf", b"\\uffff")
