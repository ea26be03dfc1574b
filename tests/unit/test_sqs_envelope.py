"""SQS messages inside the event and to filters, and SQS's answers as pollers see them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from invocation.classify import Answer, Failure, FailureKind
from model.errors import RefusedError, SourceRefusedError, SourceUnavailableError, UnavailableError
from model.mapping import SqsSource
from pollers.filtering import compile_filter
from pollers.queue_ports import Entry, QueueFacts
from pollers.sources.sqs_api import SqsMessage, SqsQueue
from pollers.sources.sqs_envelope import SqsEnvelope, SqsRecordView

if TYPE_CHECKING:
    from collections.abc import Sequence

SOURCE = SqsSource("arn:aws:sqs:us-east-2:123456789012:my-queue", fifo=False)


def sqs_message(body: str, **more: Any) -> SqsMessage:
    """Make a message as SQS answers with it."""
    document = {
        "MessageId": "059f36b4",
        "ReceiptHandle": "AQEB",
        "Body": body,
        "MD5OfBody": "e4e68fb7",
        "Attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "1545082649183", "SenderId": "AIDA"},
        **more,
    }
    return msgspec.json.decode(json.dumps(document), type=SqsMessage)


def test_the_event_is_the_specifications() -> None:
    """Section 5.2: names, empty lists, digests, strings."""
    attributes = {
        "n": {"DataType": "Number", "StringValue": "6"},
        "b": {"DataType": "Binary", "BinaryValue": "AP8="},
    }
    envelope = SqsEnvelope(SOURCE)
    plain = sqs_message("hello")
    rich = sqs_message("{}", MessageAttributes=attributes, MD5OfMessageAttributes="d1")
    records = envelope.encode([plain, rich], [4, 5])
    event = envelope.event(records)
    assert len(event) == envelope.overhead() + sum(len(record.fragment) + 1 for record in records)
    assert json.loads(event) == {
        "Records": [
            {
                "messageId": "059f36b4",
                "receiptHandle": "AQEB",
                "body": "hello",
                "attributes": {
                    "ApproximateReceiveCount": "1",
                    "SentTimestamp": "1545082649183",
                    "SenderId": "AIDA",
                },
                "messageAttributes": {},
                "md5OfBody": "e4e68fb7",
                "eventSource": "aws:sqs",
                "eventSourceARN": SOURCE.arn,
                "awsRegion": "us-east-2",
            },
            {
                "messageId": "059f36b4",
                "receiptHandle": "AQEB",
                "body": "{}",
                "attributes": {
                    "ApproximateReceiveCount": "1",
                    "SentTimestamp": "1545082649183",
                    "SenderId": "AIDA",
                },
                "messageAttributes": {
                    "n": {"stringValue": "6", "stringListValues": [], "binaryListValues": [], "dataType": "Number"},
                    "b": {"binaryValue": "AP8=", "stringListValues": [], "binaryListValues": [], "dataType": "Binary"},
                },
                "md5OfBody": "e4e68fb7",
                "md5OfMessageAttributes": "d1",
                "eventSource": "aws:sqs",
                "eventSourceARN": SOURCE.arn,
                "awsRegion": "us-east-2",
            },
        ]
    }
    assert (records[0].arrival_ms, records[0].item_id, records[0].position) == (1545082649183, "059f36b4", 4)


def test_with_a_window_a_missing_digest_is_null() -> None:
    """As the live service does."""
    [record] = SqsEnvelope(SOURCE, window=True).encode([sqs_message("x")], [0])
    assert json.loads(record.fragment)["md5OfMessageAttributes"] is None


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_the_body_is_kept_byte_for_byte(body: str) -> None:
    """Whatever the text, and however SQS wrote it."""
    [record] = SqsEnvelope(SOURCE).encode([sqs_message(body)], [0])
    assert json.loads(record.fragment)["body"] == body
    assert SqsRecordView().payloads([sqs_message(body)]) == [body.encode()]


def test_item_identifiers_are_message_ids() -> None:
    """Everything else spoils a partial response."""
    parse = SqsEnvelope(SOURCE).parse_item_id
    assert [parse(given) for given in ("id", "", None, 7, {"a": 1})] == ["id", None, None, None, None]


@pytest.mark.parametrize(
    ("pattern", "kept"),
    [
        ('{"body": {"n": [1]}}', [True, False, False]),
        ('{"body": ["text"]}', [False, False, True]),
        ('{"messageAttributes": {"kind": {"stringValue": ["x"]}}}', [True, False, False]),
        ('{"attributes": {"SenderId": ["AIDA"]}}', [True, True, True]),
    ],
)
def test_filters_see_body_and_attributes(pattern: str, kept: Sequence[bool]) -> None:
    """Specification section 5.5, and metadata by the event's names."""
    attributes = {"kind": {"DataType": "String", "StringValue": "x"}}
    messages = [sqs_message('{"n": 1}', MessageAttributes=attributes), sqs_message('{"n": 2}'), sqs_message("text")]
    assert list(compile_filter([pattern], SqsRecordView()).keep(messages)) == list(kept)


class Calls:
    """Answers as told, and remembers what was asked."""

    def __init__(self, *answers: Answer | Failure | Exception) -> None:
        self.answers = [Answer(200, {}, b'{"QueueUrl":"http://q/my-queue"}'), *answers]
        self.asked: list[tuple[str, str, Any]] = []

    async def call(
        self, region: str, operation: str, body: bytes, *, timeout_s: float, max_answer_bytes: int
    ) -> Answer | Failure:
        """Answer."""
        assert timeout_s >= 10
        assert max_answer_bytes
        self.asked.append((region, operation, json.loads(body)))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def ok(document: object) -> Answer:
    """Make a good answer."""
    return Answer(200, {}, json.dumps(document).encode())


async def test_operations_are_asked_for_as_sqs_wants_them() -> None:
    """The queue's URL is looked up once; receives ask for all attributes; entries are numbered."""
    calls = Calls(
        ok(
            {"Messages": [{"MessageId": "m", "ReceiptHandle": "r", "Body": "x", "Attributes": {"MessageGroupId": "g"}}]}
        ),
        ok({}),
        ok({"Failed": [{"Id": "1", "SenderFault": True, "Code": "ReceiptHandleIsInvalid"}, {"Id": "2", "Code": "X"}]}),
        ok({"Attributes": {"VisibilityTimeout": "7", "ApproximateNumberOfMessages": "3"}}),
    )
    queue = SqsQueue(SOURCE, calls)
    [one] = await queue.receive(10, wait_s=20, visibility_s=5)
    assert (one.receipt, one.group, one.receives) == ("r", "g", 1)
    assert await queue.receive(1, wait_s=0) == []
    assert await queue.delete(["a", "b", "c"]) == [Entry.DONE, Entry.GONE, Entry.AGAIN]
    assert await queue.facts() == QueueFacts(7, 3, 0, 0)
    url, receive, *_ = calls.asked
    assert url == (
        "us-east-2",
        "AmazonSQS.GetQueueUrl",
        {"QueueName": "my-queue", "QueueOwnerAWSAccountId": "123456789012"},
    )
    assert receive[2]["MessageSystemAttributeNames"] == receive[2]["MessageAttributeNames"] == ["All"]
    assert (receive[2]["WaitTimeSeconds"], receive[2]["VisibilityTimeout"]) == (20, 5)


@pytest.mark.parametrize(
    ("came", "error"),
    [
        (Failure(FailureKind.REFUSED), SourceUnavailableError),
        (UnavailableError("no credentials now"), SourceUnavailableError),
        (RefusedError("no credentials"), SourceRefusedError),
        (Answer(500, {}, b"oops"), SourceUnavailableError),
        (Answer(400, {}, b'{"__type":"com.amazonaws.sqs#RequestThrottled"}'), SourceUnavailableError),
        (Answer(400, {}, b'{"__type":"com.amazonaws.sqs#OverLimit"}'), SourceUnavailableError),
        (Answer(400, {}, b'{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"no"}'), SourceRefusedError),
        (Answer(403, {}, b'{"__type":"AccessDenied"}'), SourceRefusedError),
        (Answer(200, {}, b"<html>"), SourceUnavailableError),
    ],
)
async def test_errors_are_classed_by_what_to_do(came: Answer | Failure | Exception, error: type[Exception]) -> None:
    """Waiting helps against some, and someone must act about the others."""
    with pytest.raises(error) as caught:
        await SqsQueue(SOURCE, Calls(came)).receive(1, wait_s=0)
    if "QueueDoesNotExist" in str(caught.value):
        assert isinstance(caught.value, SourceRefusedError)
        assert "AWS.SimpleQueueService.NonExistentQueue" in caught.value.result
