"""An SQS queue as pollers need it: five operations of its JSON protocol, signed by the SDK, read by msgspec.

The SDK's own client spends most of its time on parsing; here a receive of ten messages is one decode. Retries, what to
receive and when, and what an entry's failure means for a message are others' business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from invocation.aws_json import aws_error
from invocation.classify import Answer
from model.errors import RefusedError, SourceRefusedError, SourceUnavailableError, UnavailableError
from pollers.queue_ports import Entry, QueueFacts, Received

if TYPE_CHECKING:
    from collections.abc import Sequence

    from invocation.classify import Failure
    from model.mapping import SqsSource

_T = TypeVar("_T")

MAX_ENTRIES = 10
"""Of one receive, and of one batch call."""

_CALL_S = 10.0
_OK = 200
_MAX_ANSWER_BYTES = 16 * 1024 * 1024  # ten messages with every character escaped
_NOT_FOUND = ("QueueDoesNotExist", "NonExistentQueue", "AWS.SimpleQueueService.NonExistentQueue")
_NOT_FOUND_RESULT = (
    "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. "
    "SQS Error Message: The specified queue does not exist."
)
_PASSING = frozenset({
    "AccessDenied.Throttled", "OverLimit", "AWS.SimpleQueueService.OverLimit", "RequestThrottled", "Throttling",
    "ThrottlingException", "KmsThrottled", "InternalError", "InternalFailure", "ServiceUnavailable", "RequestExpired",
    "RequestTimeout", "RequestTimeTooSkewed", "ExpiredToken", "ExpiredTokenException",
})  # fmt: skip
_SERVER_ERROR = 500
_TOO_MANY = 429


class Call(Protocol):
    """`invocation.aws_json.AwsJson`, as far as it is needed here."""

    async def call(
        self, region: str, operation: str, body: bytes, *, timeout_s: float, max_answer_bytes: int
    ) -> Answer | Failure:
        """Make one call."""


class Attribute(msgspec.Struct, omit_defaults=True):
    """One message attribute as SQS writes it. Binary values stay base64, as the event has them."""

    DataType: str = ""
    StringValue: str | None = None
    BinaryValue: str | None = None


class SqsMessage(msgspec.Struct):
    """One message as SQS writes it. The body stays as it came: JSON text of a string."""

    MessageId: str
    ReceiptHandle: str
    Body: msgspec.Raw
    MD5OfBody: str = ""
    Attributes: dict[str, str] = {}
    MessageAttributes: dict[str, Attribute] = {}
    MD5OfMessageAttributes: str | None = None


class _Received(msgspec.Struct):
    Messages: list[SqsMessage] | None = None


class _Failed(msgspec.Struct):
    Id: str
    Code: str = ""
    SenderFault: bool = False
    Message: str | None = None


class _Entries(msgspec.Struct):
    Failed: list[_Failed] | None = None


class _Url(msgspec.Struct):
    QueueUrl: str


class _Attributes(msgspec.Struct):
    Attributes: dict[str, str] = {}


_receive_decoder = msgspec.json.Decoder(_Received)
_attributes_decoder = msgspec.json.Decoder(_Attributes)
_entries_decoder = msgspec.json.Decoder(_Entries)


class SqsQueue:
    """One queue. Implements `pollers.queue_ports.Queue`."""

    def __init__(self, source: SqsSource, call: Call) -> None:
        _, _, _, self._region, self._account, self._name = source.arn.split(":", 5)
        self._call = call
        self._url: str | None = None

    def __repr__(self) -> str:
        return f"<SqsQueue {self._name}>"

    async def facts(self) -> QueueFacts:
        """See `Queue`."""
        names = [
            "VisibilityTimeout",
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        ]
        body = await self._ask("GetQueueAttributes", {"AttributeNames": names})
        found = self._read(_attributes_decoder, body, "GetQueueAttributes").Attributes
        try:
            visibility_s, visible, in_flight, delayed = (int(found.get(name, "0")) for name in names)
        except ValueError as exc:
            raise SourceUnavailableError(f"SQS queue {self._name}: GetQueueAttributes: unreadable answer") from exc
        return QueueFacts(visibility_s, visible, in_flight, delayed)

    async def moves_after(self) -> int | None:
        """See `Queue`."""
        body = await self._ask("GetQueueAttributes", {"AttributeNames": ["RedrivePolicy"]})
        policy = self._read(_attributes_decoder, body, "GetQueueAttributes").Attributes.get("RedrivePolicy")
        if not policy:
            return None
        try:
            return int(msgspec.json.decode(policy)["maxReceiveCount"])
        except (ValueError, KeyError, TypeError) as exc:
            raise SourceUnavailableError(f"SQS queue {self._name}: GetQueueAttributes: unreadable answer") from exc

    async def receive(self, most: int, *, wait_s: int, visibility_s: int | None = None) -> list[Received]:
        """See `Queue`."""
        request: dict[str, Any] = {
            "MaxNumberOfMessages": most,
            "WaitTimeSeconds": wait_s,
            "MessageAttributeNames": ["All"],
            "AttributeNames": ["All"],  # read by servers that do not know the next one yet
            "MessageSystemAttributeNames": ["All"],
        }
        if visibility_s is not None:
            request["VisibilityTimeout"] = visibility_s
        answer = self._read(_receive_decoder, await self._ask("ReceiveMessage", request, wait_s), "ReceiveMessage")
        return [
            Received(
                message,
                message.ReceiptHandle,
                message.Attributes.get("MessageGroupId"),
                _count(message.Attributes.get("ApproximateReceiveCount")),
            )
            for message in answer.Messages or ()
        ]

    async def delete(self, receipts: Sequence[str]) -> list[Entry]:
        """See `Queue`."""
        entries = [{"Id": str(n), "ReceiptHandle": receipt} for n, receipt in enumerate(receipts)]
        return await self._each("DeleteMessageBatch", entries)

    async def change_visibility(self, receipts: Sequence[str], visibility_s: int) -> list[Entry]:
        """See `Queue`."""
        entries = [
            {"Id": str(n), "ReceiptHandle": receipt, "VisibilityTimeout": visibility_s}
            for n, receipt in enumerate(receipts)
        ]
        return await self._each("ChangeMessageVisibilityBatch", entries)

    async def shards(self) -> Sequence[object]:
        """See `Queue`."""
        await self.facts()
        return ()

    async def close(self) -> None:
        """See `Queue`: connections are the node's."""

    async def _each(self, operation: str, entries: list[dict[str, Any]]) -> list[Entry]:
        body = await self._ask(operation, {"Entries": entries})
        results = [Entry.DONE] * len(entries)
        for failed in self._read(_entries_decoder, body, operation).Failed or ():
            passing = not failed.SenderFault or failed.Code in _PASSING
            if failed.Id.isdecimal() and int(failed.Id) < len(results):
                results[int(failed.Id)] = Entry.AGAIN if passing else Entry.GONE
        return results

    async def _ask(self, operation: str, request: dict[str, Any], wait_s: float = 0.0) -> bytes:
        if self._url is None:
            asked = {"QueueName": self._name, "QueueOwnerAWSAccountId": self._account}
            self._url = self._read(msgspec.json.Decoder(_Url), await self._post("GetQueueUrl", asked), "it").QueueUrl
        return await self._post(operation, {"QueueUrl": self._url, **request}, wait_s)

    async def _post(self, operation: str, request: dict[str, Any], wait_s: float = 0.0) -> bytes:
        what = f"SQS queue {self._name}: {operation}"
        try:
            came = await self._call.call(
                self._region,
                f"AmazonSQS.{operation}",
                msgspec.json.encode(request),
                timeout_s=_CALL_S + wait_s,
                max_answer_bytes=_MAX_ANSWER_BYTES,
            )
        except UnavailableError as exc:
            raise SourceUnavailableError(f"{what}: {exc}") from exc
        except RefusedError as exc:
            raise SourceRefusedError(f"{what}: {exc}") from exc
        if not isinstance(came, Answer):
            raise SourceUnavailableError(f"{what}: {came.kind}")
        if came.status == _OK:
            return bytes(came.body)
        error = aws_error(came)
        text = f"{what}: {error.code}: {error.message}"
        if error.code in _NOT_FOUND:
            self._url = None
            raise SourceRefusedError(text, result=_NOT_FOUND_RESULT)
        if came.status >= _SERVER_ERROR or came.status == _TOO_MANY or error.code in _PASSING:
            raise SourceUnavailableError(text)
        raise SourceRefusedError(text)

    def _read(self, decoder: msgspec.json.Decoder[_T], body: bytes, operation: str) -> _T:
        try:
            return decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise SourceUnavailableError(f"SQS queue {self._name}: {operation}: unreadable answer") from exc


def _count(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 1


def decoded_body(message: SqsMessage) -> bytes:
    """Return the message text as bytes."""
    return msgspec.json.decode(message.Body, type=str).encode()
