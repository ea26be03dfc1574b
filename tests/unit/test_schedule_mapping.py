"""Schedules in the list of mappings: what a document may say, and what is made of it."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest

from controlplane.differences import differences
from controlplane.lambda_documents import configuration
from controlplane.mappings import Change, ChangeKind
from model.mapping import EventSourceMapping, MappingRecord, MissedFirings, ScheduleSource
from model.mapping_rules import canonical_document, check_together, mapping_id, parse_mapping
from model.rules.parameters import MAX_INPUT_BYTES
from tests.support.mapping_documents import QUEUE, document, problems


def parsed(**changes: object) -> EventSourceMapping:
    """Return the mapping of a schedule."""
    return parse_mapping(document("T", **changes))


def test_the_smallest_schedule_has_defaults() -> None:
    """In UTC, missed firings are caught up once, one firing makes one event, and two retries as in AWS."""
    mapping = parsed()
    assert mapping.source == ScheduleSource("rate(5 minutes)", "UTC", MissedFirings.ONCE, None)
    assert (mapping.batch_size, mapping.batching_window_s, mapping.starting_position) == (1, 0.0, None)
    assert (mapping.maximum_retry_attempts, mapping.maximum_record_age_s) == (2, None)


def test_everything_about_a_schedule_reaches_the_mapping() -> None:
    """Expression, time zone, what becomes of missed firings, the event, and what other sources have too."""
    mapping = parsed(
        schedule="cron(0 12 * * ? *)",
        schedule_timezone="Europe/Berlin",
        missed="skip",
        input={"b": [1, None, "ü"], "a": {"x": None}},
        MaximumRetryAttempts=-1,
        MaximumRecordAgeInSeconds=3600,
        DestinationConfig={"OnFailure": {"Destination": QUEUE}},
    )
    given = '{"b":[1,null,"ü"],"a":{"x":null}}'.encode()
    assert mapping.source == ScheduleSource("cron(0 12 * * ? *)", "Europe/Berlin", MissedFirings.SKIP, given)
    assert (mapping.maximum_retry_attempts, mapping.maximum_record_age_s) == (None, 3600)
    assert mapping.on_failure_destination == QUEUE


@pytest.mark.parametrize(
    ("changes", "path", "rule"),
    [
        ({"schedule": "rate(1 minutes)"}, "schedule", "has 1 minutes; it must be 1 minute"),
        ({"schedule": 5}, "schedule", "must be text"),
        ({"EventSourceArn": QUEUE}, "schedule", "a mapping has one source"),
        ({"schedule_timezone": "Europe/Berlin"}, "schedule_timezone", "has an effect with cron(…) only"),
        ({"schedule": "cron(0 12 * * ? *)", "schedule_timezone": "Mars"}, "schedule_timezone",
         "has no time zone 'Mars'"),
        ({"missed": "twice"}, "missed", "Value 'twice' at 'missed' failed to satisfy constraint"),
        ({"input": {"at": date(2026, 1, 1)}}, "input", "must be JSON"),
        ({"input": {1: 2}}, "input", "must be JSON"),
        ({"input": float("inf")}, "input", "must be JSON"),
        ({"input": "x" * MAX_INPUT_BYTES}, "input", "must be 262,144 bytes or less as JSON, not 262,146"),
        ({"BatchSize": 10}, "BatchSize", "Unsupported BatchSize parameter"),
        ({"FilterCriteria": {"Filters": []}}, "FilterCriteria", "Unsupported FilterCriteria parameter"),
        ({"extensions": {"park_failing_keys": True}}, "extensions.park_failing_keys", "does not apply"),
        ({"DestinationConfig": {"OnFailure": {"Destination": "kafka://t"}}}, "DestinationConfig.OnFailure.Destination",
         "kafka://TOPIC is a destination for Kafka sources only"),
    ],
)  # fmt: skip
def test_one_broken_rule_is_one_problem(changes: dict[str, Any], path: str, rule: str) -> None:
    """Each rule says where it is broken, and how."""
    ((where, why),) = problems(document("T", **changes))
    assert (where, why[: len(rule)]) == (path, rule)


def test_the_store_keeps_what_is_null_in_an_input() -> None:
    """The stored document makes the same mapping as the one that was given."""
    given = document("T", input={"a": None, "b": [None]}, Tags=None)
    stored = json.loads(canonical_document(given))
    assert stored == {
        "Name": "m",
        "FunctionName": "f",
        "schedule": "rate(5 minutes)",
        "input": {"a": None, "b": [None]},
    }
    assert parse_mapping(stored) == parse_mapping(given)


def test_a_function_may_have_the_same_schedule_twice() -> None:
    """With another input, or none: a repeated schedule is no duplicate, as in EventBridge."""
    assert check_together([parsed(), parsed(Name="other")]) == []


def test_the_lambda_api_shows_a_schedule() -> None:
    """By the names it has in a file, beside AWS's own."""
    given = document("T", missed="skip", input=[1])
    record = MappingRecord(mapping_id("m"), "m", canonical_document(given), 1)
    shown = configuration(record, given, parsed(), arn="arn:m", function_arn="arn:f", last_result="OK")
    assert {name: shown[name] for name in ("schedule", "missed", "input", "LastProcessingResult")} == {
        "schedule": "rate(5 minutes)",
        "missed": "skip",
        "input": [1],
        "LastProcessingResult": "OK",
    }
    assert shown["MaximumRetryAttempts"] == 2
    assert "StartingPosition" not in shown


@pytest.mark.parametrize(("schedule", "position"), [("rate(5 minutes)", "kept"), ("rate(6 minutes)", "moved")])
def test_a_plan_says_that_a_changed_schedule_begins_anew(schedule: str, position: str) -> None:
    """Its last firing means nothing to the new one; another input keeps the place."""
    before = MappingRecord(mapping_id("m"), "m", canonical_document(document("T")), 1)
    after = MappingRecord(mapping_id("m"), "m", canonical_document(document("T", schedule=schedule, input=1)), 2)
    (told,) = differences([Change(ChangeKind.CHANGE, after, 1, before)], [before], ["m"]).changes
    assert told.position == position
