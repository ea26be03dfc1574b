"""Partial batch responses: every row of the specification's table."""

import pytest

from model.outcome import Delivered, FunctionFailed, PartlyFailed
from pollers.partial import read_response
from tests.support.pump_fakes import FakeEnvelope

ITEM_IDS = (1, 2, 3)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b'""',
        b"[]",
        b"{}",
        b'{"batchItemFailures":[]}',
        b'{"batchItemFailures":null}',
        b' {"state":{},"batchItemFailures":[]}',
    ],
)
def test_empty_answers_are_success(body: bytes) -> None:
    """Null and empty answers finish the whole batch."""
    answered = Delivered(body)
    assert read_response(answered, ITEM_IDS, FakeEnvelope().parse_item_id) is answered


@pytest.mark.parametrize(
    "body",
    [
        b'{"batchItemFailures":[{"itemIdentifier":""}]}',
        b'{"batchItemFailures":[{"itemIdentifier":null}]}',
        b'{"batchItemFailures":[{}]}',
        b'{"batchItemFailures":["1"]}',
        b'{"batchItemFailures":{"itemIdentifier":1}}',
        b'{"foo":[{"itemIdentifier":1}]}',
        b'{"batchItemFailures":[{"itemIdentifier":4}]}',
        b'{"batchItemFailures":[{"itemIdentifier":1},{"itemIdentifier":4}]}',
        b'{"batchItemFailures":[{"itemIdentifier":"1"}]}',
        b"not json",
        b"\xff\xfe",
        b"true",
        b"7",
        b"[1]",
    ],
)
def test_unreadable_answers_fail_the_whole_batch(body: bytes) -> None:
    """One bad identifier spoils the list; such a failure is no function error."""
    outcome = read_response(Delivered(body), ITEM_IDS, FakeEnvelope().parse_item_id)
    assert isinstance(outcome, FunctionFailed)
    assert outcome.function_error is None
    assert outcome.status == 200


def test_valid_identifiers_name_the_failed_records() -> None:
    """The failed records come back by their identifiers, duplicates united."""
    body = b'{"batchItemFailures":[{"itemIdentifier":3},{"itemIdentifier":2},{"itemIdentifier":3}]}'
    outcome = read_response(Delivered(body), ITEM_IDS, FakeEnvelope().parse_item_id)
    assert outcome == PartlyFailed(frozenset({2, 3}))
