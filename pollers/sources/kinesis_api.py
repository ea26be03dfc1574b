"""The calls of Kinesis Data Streams that a poller makes, for one stream. The adapter: bytes and errors end here.

Requests are signed and sent by `invocation.aws_json`; answers are parsed into structs. A record's data stays what it is
in the answer, base64 inside quotes: it goes into the event as it came, and is decoded only for a filter. When to call,
and from where, is `kinesis_reader`'s business.
"""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import msgspec

from invocation.aws_json import aws_error
from invocation.classify import Answer, Failure
from model.errors import RefusedError, SourceRefusedError, SourceUnavailableError, UnavailableError

if TYPE_CHECKING:
    from model.ids import Position, ShardId, ShardOrigin

from model.shard import BEGINNING, origin_ms

_T = TypeVar("_T")
VERSION = "Kinesis_20131202"
_ASK_S = 10.0
_READ_S = 30.0  # an answer may have 14 MB
_ASK_MAX_BYTES = 8 * 1024 * 1024
_READ_MAX_BYTES = 32 * 1024 * 1024
_MAX_PAGES = 1000
_SKEW_S = 2.0
MAX_RECORDS: Final = 10_000
"""What GetRecords gives at most."""


class ThrottledError(SourceUnavailableError):
    """Too many calls, or too many bytes, on a shard or a stream: other consumers may have had them."""


class IteratorExpiredError(SourceUnavailableError):
    """A shard iterator is good for five minutes."""


class NotInStreamError(SourceRefusedError):
    """There is no such stream or shard, or the sequence number did not come from it."""


class _TokenExpiredError(SourceUnavailableError):
    """A page's token is good for five minutes."""


class KinesisRecord(msgspec.Struct, gc=False):
    """One record."""

    SequenceNumber: str
    Data: msgspec.Raw
    PartitionKey: str
    ApproximateArrivalTimestamp: float = 0.0  # epoch seconds
    EncryptionType: str | None = None


class Page(msgspec.Struct):
    """What GetRecords answers. Without `NextShardIterator` the shard is closed and was read to its end."""

    Records: list[KinesisRecord]
    NextShardIterator: str | None = None
    MillisBehindLatest: int | None = None
    size: int = 0  # bytes of the answer


class Range(msgspec.Struct):
    """A shard's sequence numbers; an open shard has no end."""

    StartingSequenceNumber: str
    EndingSequenceNumber: str | None = None


class HashRange(msgspec.Struct):
    """The part of the key space that a shard takes, both ends included; decimal."""

    StartingHashKey: str
    EndingHashKey: str


class Shard(msgspec.Struct):
    """A shard as ListShards has it."""

    ShardId: str
    SequenceNumberRange: Range
    HashKeyRange: HashRange | None = None
    ParentShardId: str | None = None
    AdjacentParentShardId: str | None = None


class _Shards(msgspec.Struct):
    Shards: list[Shard]
    NextToken: str | None = None


class _Iterator(msgspec.Struct):
    ShardIterator: str


class _Summary(msgspec.Struct):
    RetentionPeriodHours: int


class _Described(msgspec.Struct):
    StreamDescriptionSummary: _Summary


class Caller(Protocol):
    """`invocation.aws_json.AwsJson` of Kinesis."""

    async def call(
        self, region: str, operation: str, body: bytes, *, timeout_s: float, max_answer_bytes: int
    ) -> Answer | Failure:
        """Make one call. Raises `RefusedError` and `UnavailableError` when it cannot be signed."""


class KinesisApi:
    """The calls, for one stream. Each raises `SourceUnavailableError` or `SourceRefusedError`."""

    def __init__(self, stream_arn: str, caller: Caller) -> None:
        self.stream_arn = stream_arn
        self._what = f"Kinesis stream {stream_arn.rpartition('/')[2]}"
        self._region = stream_arn.split(":")[3]
        self._caller = caller
        self._skewed_s = 0.0

    async def get_records(self, iterator: str, *, limit: int) -> Page:
        """Read on from an iterator. Raises `IteratorExpiredError` and `ThrottledError` too."""
        body = msgspec.json.encode({"ShardIterator": iterator, "Limit": limit, "StreamARN": self.stream_arn})
        answer = await self._call("GetRecords", body, timeout_s=_READ_S, max_answer_bytes=_READ_MAX_BYTES)
        page = self._parse(answer, _read_page)
        page.size = len(answer.body)
        return page

    async def iterator(self, shard: ShardId, after: Position | None, origin: ShardOrigin) -> str:
        """Return an iterator after a sequence number, or at an origin without one."""
        request: dict[str, Any] = {"StreamARN": self.stream_arn, "ShardId": shard}
        at_ms = origin_ms(origin)
        if after is not None:
            request |= {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": after}
        elif at_ms is not None:
            request |= {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": at_ms / 1000}
        elif origin == BEGINNING:
            request |= {"ShardIteratorType": "TRIM_HORIZON"}
        else:
            raise SourceRefusedError(f"{self._what}: nothing of {shard} is to be read")
        return self._parse(await self._ask("GetShardIterator", request), _read_iterator).ShardIterator

    async def iterator_at(self, shard: ShardId, sequence_number: str) -> str:
        """Return an iterator at a record. Where that is not kept any more, it is at the oldest one that is.

        Raises `NotInStreamError` too.
        """
        request = {
            "StreamARN": self.stream_arn,
            "ShardId": shard,
            "ShardIteratorType": "AT_SEQUENCE_NUMBER",
            "StartingSequenceNumber": sequence_number,
        }
        return self._parse(await self._ask("GetShardIterator", request), _read_iterator).ShardIterator

    async def list_shards(self, filtered: dict[str, Any]) -> list[Shard]:
        """List the shards that a ShardFilter lets through, page by page."""
        for _ in range(3):
            try:
                return await self._list_shards(filtered)
            except _TokenExpiredError:
                continue  # the listing took minutes: begin it anew
        raise SourceUnavailableError(f"{self._what}: listing its shards takes too long")

    async def _list_shards(self, filtered: dict[str, Any]) -> list[Shard]:
        shards: list[Shard] = []
        request: dict[str, Any] = {"StreamARN": self.stream_arn, "ShardFilter": filtered}
        for _ in range(_MAX_PAGES):
            page = self._parse(await self._ask("ListShards", request), _read_shards)
            shards += page.Shards
            if not page.NextToken:
                return shards
            request = {"NextToken": page.NextToken}
        raise SourceUnavailableError(f"{self._what}: the list of its shards has no end")

    async def retention_s(self) -> float:
        """Return how long the stream keeps a record."""
        answer = await self._ask("DescribeStreamSummary", {"StreamARN": self.stream_arn})
        return self._parse(answer, _read_described).StreamDescriptionSummary.RetentionPeriodHours * 3600.0

    def now_s(self) -> float:
        """Return the epoch seconds by this node's clock, or by Kinesis's when the last answer showed them far apart."""
        return time.time() - self._skewed_s

    async def _ask(self, operation: str, request: dict[str, Any]) -> Answer:
        body = msgspec.json.encode(request)
        answer = await self._call(operation, body, timeout_s=_ASK_S, max_answer_bytes=_ASK_MAX_BYTES)
        self._compare_clocks(answer)
        return answer

    async def _call(self, operation: str, body: bytes, *, timeout_s: float, max_answer_bytes: int) -> Answer:
        try:
            came = await self._caller.call(
                self._region, f"{VERSION}.{operation}", body, timeout_s=timeout_s, max_answer_bytes=max_answer_bytes
            )
        except UnavailableError as exc:
            raise SourceUnavailableError(f"{self._what}: {exc}") from exc
        except RefusedError as exc:
            raise SourceRefusedError(f"{self._what}: {exc}") from exc
        if isinstance(came, Failure):
            detail = f" ({came.detail})" if came.detail else ""
            raise SourceUnavailableError(f"{self._what}: {operation}: {came.kind}{detail}")
        if came.status != 200:  # noqa: PLR2004 the only status of success in this protocol
            raise translated(f"{self._what}: {operation}", came)
        return came

    def _parse(self, answer: Answer, read: msgspec.json.Decoder[_T]) -> _T:
        try:
            return read.decode(answer.body)
        except msgspec.DecodeError as exc:
            raise SourceUnavailableError(f"{self._what}: an answer that cannot be read") from exc

    def _compare_clocks(self, answer: Answer) -> None:
        try:
            theirs_s = parsedate_to_datetime(answer.headers.get("Date", "")).timestamp()
        except ValueError:
            return
        ahead_s = time.time() - theirs_s
        self._skewed_s = 0.0 if 0 <= ahead_s <= _SKEW_S else ahead_s


_read_page = msgspec.json.Decoder(Page)
_read_shards = msgspec.json.Decoder(_Shards)
_read_iterator = msgspec.json.Decoder(_Iterator)
_read_described = msgspec.json.Decoder(_Described)

_THROTTLED = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "LimitExceededException",
        "KMSThrottlingException",
        "ThrottlingException",
        "Throttling",
        "TooManyRequestsException",
        "RequestLimitExceeded",
        "SlowDown",
    }
)
_NOT_IN_STREAM = frozenset({"ResourceNotFoundException", "InvalidArgumentException"})
_LATER = frozenset(
    {
        "ResourceInUseException",  # being made or changed
        "ExpiredTokenException",  # credentials: fresh ones are on their way
        "RequestTimeoutException",
        "InternalFailure",
        "InternalFailureException",
        "ServiceUnavailable",
    }
)


def translated(what: str, answer: Answer) -> SourceUnavailableError | SourceRefusedError:
    """Turn an error answer into what the caller should do."""
    error = aws_error(answer)
    text = f"{what}: {error.code}: {error.message}" if error.message else f"{what}: {error.code}"
    if error.code == "ExpiredIteratorException":
        return IteratorExpiredError(text)
    if error.code == "ExpiredNextTokenException":
        return _TokenExpiredError(text)
    if error.code in _THROTTLED or answer.status == 429:  # noqa: PLR2004 Too Many Requests
        return ThrottledError(text)
    if error.code in _LATER or answer.status >= 500:  # noqa: PLR2004 the server's own faults
        return SourceUnavailableError(text)
    return NotInStreamError(text) if error.code in _NOT_IN_STREAM else SourceRefusedError(text)
