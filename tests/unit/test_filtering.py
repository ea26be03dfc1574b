"""Filters of a mapping: the specification's table of data and pattern forms, for every source."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model.mapping import SourceKind
from model.pattern import DATA_KEYS, InvalidPatternError
from pollers.filtering import FATES, DataForm, Fate, RuleForm, compile_filter
from pollers.sources.kafka_envelope import KafkaRecordView
from pollers.sources.kinesis_envelope import KinesisRecordView
from pollers.sources.sqs_envelope import SqsRecordView
from tests.support import filter_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pollers.filtering import RecordView
    from pollers.ports import Filter

KINESIS, SQS, KAFKA = SourceKind.KINESIS, SourceKind.SQS, SourceKind.KAFKA


@dataclass
class Raw:
    """A raw record as a source might have it."""

    payload: bytes | None
    where: str = "here"


@dataclass
class View:
    """Raw records of any source, noting what was asked of them."""

    kind: SourceKind
    asked: list[str] = field(default_factory=list)

    def payloads(self, raws: Sequence[Raw]) -> list[bytes | None]:
        """Return the payloads."""
        self.asked.append("data")
        return [raw.payload for raw in raws]

    def metadata(self, raw: Raw) -> Mapping[str, object]:
        """Return the other fields."""
        self.asked.append("metadata")
        return {"where": raw.where, "number": 7}


MATCHING = b'{"a": "x"}'


@pytest.mark.parametrize("kind", list(FATES))
@pytest.mark.parametrize("row", filter_table.FATES, ids=lambda row: f"{row.data}, {row.rule}")
def test_fate_by_data_and_pattern(row: filter_table.Fate, kind: SourceKind) -> None:
    """Each row of the specification's table, with metadata that matches; without a match of it nothing is kept."""
    here, there = (
        filter_table.pattern(DATA_KEYS[kind], row.rule, f'"where": ["{place}"]') for place in ("here", "there")
    )
    record = Raw(filter_table.PAYLOADS[row.data])
    expected = row.of(kind)
    if expected is None:
        with pytest.raises(InvalidPatternError):
            compile_filter([here], View(kind))
    else:
        assert compile_filter([here], View(kind)).keep([record]) == [expected]
        assert compile_filter([there], View(kind)).keep([record]) == [False]


@pytest.mark.parametrize("kind", list(FATES))
def test_every_combination_has_a_fate(kind: SourceKind) -> None:
    """The table leaves out only the plain string rules that Kinesis refuses."""
    refused = (
        {(form, RuleForm.STRING) for form in DataForm if form is not DataForm.ABSENT} if kind is KINESIS else set()
    )
    assert {(form, rule) for form in DataForm for rule in RuleForm} - refused == set(FATES[kind])
    assert all(FATES[kind][form, RuleForm.NONE] is Fate.METADATA_ONLY for form in DataForm)


def test_filters_are_ored() -> None:
    """A record is kept if any pattern matches, in the order the records came."""
    both = compile_filter(['{"value": {"a": ["x"]}}', '{"value": {"a": ["y"]}}'], View(KAFKA))
    records = [Raw(b'{"a": "%b"}' % letter) for letter in (b"x", b"z", b"y")]
    assert both.keep(records) == [True, False, True]


def test_no_pattern_keeps_everything() -> None:
    """A mapping without filters looks at nothing and keeps all."""
    view = View(KAFKA)
    assert compile_filter([], view).keep([Raw(b"\xff"), Raw(None)]) == [True, True]
    assert view.asked == []


def test_or_at_the_top_treats_each_alternative_by_its_own_form() -> None:
    """An alternative without the data key is metadata only beside one that needs JSON."""
    pattern = '{"$or": [{"body": {"a": ["x"]}}, {"where": ["there"]}, {"body": ["plain"]}]}'
    records = [Raw(MATCHING), Raw(b"junk"), Raw(b"junk", "there"), Raw(b"plain")]
    assert compile_filter([pattern], View(SQS)).keep(records) == [True, False, True, True]


def test_records_are_not_read_without_need() -> None:
    """Data is asked for, once, only if a pattern on it has matching metadata; metadata only if a pattern needs it."""
    view = View(KAFKA)
    compile_filter(['{"where": ["here"]}'], view).keep([Raw(MATCHING)])
    assert view.asked == ["metadata"]
    view.asked.clear()
    compile_filter(['{"value": {"a": ["y"]}}', '{"value": {"a": ["z"]}}'], view).keep([Raw(MATCHING)])
    assert view.asked == ["data"]
    view.asked.clear()
    compile_filter(['{"value": {"a": ["x"]}, "where": ["there"]}', '{"number": [8]}'], view).keep([Raw(MATCHING)])
    assert view.asked == ["metadata"]


UNREADABLE = object()
UNREADABLE_RAWS: list[tuple[RecordView, object, str]] = [
    (KinesisRecordView(), SimpleNamespace(Data=UNREADABLE, PartitionKey="k", SequenceNumber="1",
                                          ApproximateArrivalTimestamp=1.0, EncryptionType=None), "partitionKey"),
    (SqsRecordView(), SimpleNamespace(Body=UNREADABLE, MessageId="k", MessageAttributes={}, Attributes={},
                                      MD5OfBody=""), "messageId"),
    (KafkaRecordView(), SimpleNamespace(value=UNREADABLE, key=b"k", topic="t", partition=0, offset=1, timestamp=1,
                                        timestamp_type=0, headers=()), "key"),
]  # fmt: skip


@pytest.mark.parametrize(("view", "raw", "key"), UNREADABLE_RAWS, ids=[view.kind for view, *_ in UNREADABLE_RAWS])
def test_no_source_decodes_or_parses_what_no_pattern_needs(view: RecordView, raw: object, key: str) -> None:
    """Records whose data nothing could read are judged by their metadata; a pattern on the data does look at it."""
    ours, others = f'{{"{key}": ["k"]}}', f'{{"{key}": ["other"], "{DATA_KEYS[view.kind]}": {{"a": [1]}}}}'
    assert compile_filter([ours], view).keep([raw, raw]) == [True, True]
    assert compile_filter([others], view).keep([raw]) == [False]
    assert compile_filter([others, ours], view).keep([raw]) == [True]
    with pytest.raises(Exception, match=r"object|expected|argument"):
        compile_filter([f'{{"{DATA_KEYS[view.kind]}": {{"a": [1]}}}}'], view).keep([raw])


def test_exists_false_finds_tombstones() -> None:
    """A Kafka record without a value has none to match, which is what {"exists": false} asks for."""
    records = [Raw(None), Raw(MATCHING)]
    assert compile_filter(['{"value": {"a": [{"exists": false}]}}'], View(KAFKA)).keep(records) == [True, False]


def test_invalid_pattern_is_refused_when_compiled() -> None:
    """A filter is never built from a pattern that is not valid."""
    with pytest.raises(InvalidPatternError, match="Empty arrays"):
        compile_filter(['{"value": {"a": [1]}}', '{"value": {"a": []}}'], View(KAFKA))


def _filters() -> list[Filter]:
    patterns = ['{"KEY": {"a": {"b": ["x", 1.0, {"exists": false}]}}}', '{"where": ["there"], "KEY": {"c": [1]}}']
    return [compile_filter([text.replace("KEY", DATA_KEYS[kind]) for text in patterns], View(kind)) for kind in FATES]


FILTERS = _filters()


@settings(deadline=None)
@given(st.binary() | st.text().map(str.encode))
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b'{"z":' * 100_000)
@example(b'{"a": ' + b"9" * 5000 + b"}")
@example(b'{"a": {"b": ' + b"9" * 5000 + b"}}")
@example(b'{"a": 1e999}')
@example(b'{"a": {"b": "\\ud800"}}')
@example(b"")
def test_no_data_makes_a_filter_raise(payload: bytes) -> None:
    """Whatever a producer wrote, a filter answers yes or no."""
    for each in FILTERS:
        assert each.keep([Raw(payload)])[0] in (True, False)
