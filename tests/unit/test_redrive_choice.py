"""From where failed records can be redriven: `pollers.redriving.choice`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from model.errors import RefusedError
from model.mapping import EventSourceMapping, Extensions, KinesisSource, SqsSource
from pollers.redriving.choice import PARKED, choose
from tests.support.failures import MAPPING, SOURCE

QUEUE, BUCKET, TOPIC = "arn:aws:sqs:us-east-1:1:q", "arn:aws:s3:::b", "arn:aws:sns:us-east-1:1:t"
KAFKA = EventSourceMapping(id=MAPPING, name="orders", function_name="f", source=SOURCE)
KINESIS = replace(KAFKA, source=KinesisSource("arn:aws:kinesis:us-east-1:1:stream/s"))

FIFO = replace(KAFKA, source=SqsSource("arn:aws:sqs:us-east-1:1:orders.fifo", fifo=True))


@pytest.mark.parametrize(
    ("mapping", "asked", "expected"),
    [
        (replace(KAFKA, on_failure_destination=QUEUE), None, QUEUE),
        (replace(KAFKA, on_failure_destination=TOPIC), QUEUE, QUEUE),
        (KINESIS, BUCKET, BUCKET),
        (KAFKA, "arn:aws-cn:sqs:cn-north-1:1:q", "arn:aws-cn:sqs:cn-north-1:1:q"),
        (KAFKA, "kafka://failed", "kafka://failed"),
        (KAFKA, PARKED, PARKED),
        (FIFO, PARKED, PARKED),
        (replace(FIFO, extensions=Extensions(park_failing_keys=True)), None, PARKED),
        (replace(KAFKA, extensions=Extensions(park_failing_keys=True)), None, PARKED),
        (replace(KAFKA, on_failure_destination=QUEUE, extensions=Extensions(park_failing_keys=True)), None, QUEUE),
    ],
)
def test_what_is_chosen(mapping: EventSourceMapping, asked: str | None, expected: str) -> None:
    """What was asked for, or the mapping's own destination, or its parking lots."""
    assert choose(mapping, asked) == expected


@pytest.mark.parametrize(
    ("mapping", "asked", "why"),
    [
        (KAFKA, None, "no on-failure destination"),
        (replace(KAFKA, on_failure_destination=TOPIC), None, "an SNS topic keeps nothing"),
        (KINESIS, "kafka://failed", "reads no Kafka"),
        (replace(KAFKA, source=SqsSource("arn:aws:sqs:us-east-1:1:orders", fifo=False)), QUEUE, "dead-letter queue"),
        (replace(KINESIS, tumbling_window_s=60), QUEUE, "tumbling windows"),
        (KAFKA, "arn:aws:lambda:us-east-1:1:function:f", "--from is"),
        (KAFKA, "arn:aws:sqs:::", "--from is"),
        (KAFKA, "queue", "--from is"),
    ],
)
def test_what_is_refused(mapping: EventSourceMapping, asked: str | None, why: str) -> None:
    """With the reason, and what to do instead."""
    with pytest.raises(RefusedError, match=why):
        choose(mapping, asked)
