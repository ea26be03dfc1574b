"""What filters do to records of real servers: each row of the specification's table, with and without its metadata."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from model.mapping import SourceKind
from model.pattern import DATA_KEYS
from model.problem import InvalidConfigurationError
from tests.support.aws_servers import CREDENTIALS
from tests.support.filter_table import FATES, PAYLOADS, Fate, pattern
from tests.support.kafka_source import produce
from tests.support.kinesis_streams import Stream
from tests.support.mapping_rig import MappingRig
from tests.support.node_process import eventually
from tests.support.sqs_servers import RealQueue

if TYPE_CHECKING:
    from pathlib import Path

    from model.progress import Ledger
    from tests.support.elasticmq import ElasticMQ
    from tests.support.embedded_broker import EmbeddedBroker
    from tests.support.kinesis_local import KinesisLocal

KINESIS, SQS, KAFKA = SourceKind.KINESIS, SourceKind.SQS, SourceKind.KAFKA
RULES = ("object", "plain string rule", "none")


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have some."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


def rows(kind: SourceKind, rule: str) -> list[Fate]:
    """Return the rows of a rule that a source can have: SQS takes text only, Kafka alone has records without data."""
    impossible = {KINESIS: {"absent"}, SQS: {"absent", "not UTF-8"}, KAFKA: set[str]()}[kind]
    return [row for row in FATES if row.rule == rule and row.data not in impossible]


def criteria(kind: SourceKind, rule: str, metadata: str) -> dict[str, Any]:
    """Return the filter of a mapping."""
    return {"Filters": [{"Pattern": pattern(DATA_KEYS[kind], rule, metadata)}]}


def check(kind: SourceKind, rule: str, delivered: list[bytes | None], ledger: Ledger) -> None:
    """Hold what arrived, and the account, against the table; every record came twice, once with other metadata."""
    expected = [PAYLOADS[row.data] for row in rows(kind, rule) if row.of(kind)]
    count = 2 * len(rows(kind, rule))
    assert delivered == expected, rule
    assert (ledger.polled, ledger.delivered, ledger.filtered) == (count, len(expected), count - len(expected)), rule
    assert (ledger.destination, ledger.dropped, ledger.in_flight) == (0, 0, 0)


async def test_kafka(embedded_kafka: EmbeddedBroker, tmp_path: Path) -> None:
    """What does not match is skipped, and the offsets behind it are reached."""

    async def run(rule: str) -> None:
        topic = embedded_kafka.new_topic(1)
        for place in (b"here", b"there"):
            values = [PAYLOADS[row.data] for row in rows(KAFKA, rule)]
            await produce(embedded_kafka.bootstrap_servers, topic, 0, values, key=place)
        document = {
            "Name": topic,
            "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": [embedded_kafka.bootstrap_servers]}},
            "Topics": [topic],
            "StartingPosition": "TRIM_HORIZON",
            "FilterCriteria": criteria(KAFKA, rule, '"key": ["here"]'),
        }
        rig = MappingRig(tmp_path, document)
        async with rig.running(f"{topic}-0"):
            await rig.saves.until(lambda progress: progress.position == str(2 * len(rows(KAFKA, rule))))
        records = [record for call in rig.function.calls for record in call]
        values = [None if "value" not in record else base64.b64decode(record["value"]) for record in records]
        check(KAFKA, rule, values, rig.saves.progress.ledger)

    async with asyncio.TaskGroup() as tasks:
        for rule in RULES:
            tasks.create_task(run(rule))


async def test_kinesis(kinesis_local: KinesisLocal, tmp_path: Path) -> None:
    """What does not match is skipped, and the checkpoint passes it; a plain string rule is refused with AWS's words."""

    async def run(rule: str) -> None:
        stream = await asyncio.to_thread(Stream, kinesis_local.endpoint_url)
        placed = []
        for place in ("here", "there"):
            records = [(place, PAYLOADS[row.data] or b"") for row in rows(KINESIS, rule)]
            placed += await asyncio.to_thread(stream.put, records)
        rig = MappingRig(tmp_path, document(stream.arn, rule), endpoint_url=kinesis_local.endpoint_url)
        shard, last = placed[-1]
        async with rig.running(shard):
            await rig.saves.until(lambda progress: progress.position == last)
        data = [base64.b64decode(record["kinesis"]["data"]) for call in rig.function.calls for record in call]
        check(KINESIS, rule, [*data], rig.saves.progress.ledger)

    def document(arn: str, rule: str) -> dict[str, Any]:
        return {
            "Name": arn.rpartition("/")[2],
            "EventSourceArn": arn,
            "StartingPosition": "TRIM_HORIZON",
            "FilterCriteria": criteria(KINESIS, rule, '"partitionKey": ["here"]'),
        }

    refused = {row.rule for row in FATES if row.of(KINESIS) is None}
    for rule in refused:
        with pytest.raises(InvalidConfigurationError, match="Invalid filter pattern definition"):
            MappingRig(tmp_path, document("arn:aws:kinesis:us-east-1:000000000000:stream/s", rule))
    async with asyncio.TaskGroup() as tasks:
        for rule in set(RULES) - refused:
            tasks.create_task(run(rule))


async def test_sqs(elasticmq: ElasticMQ, tmp_path: Path) -> None:
    """What does not match is deleted from the queue as what was delivered is."""

    async def run(rule: str) -> None:
        queue = await asyncio.to_thread(RealQueue, elasticmq.endpoint_url)
        for place in ("here", "there"):
            bodies = [(PAYLOADS[row.data] or b"").decode() for row in rows(SQS, rule)]
            where = {"where": {"DataType": "String", "StringValue": place}}
            await asyncio.to_thread(queue.send, bodies, MessageAttributes=where)
        metadata = json.dumps({"messageAttributes": {"where": {"stringValue": ["here"]}}})[1:-1]
        document = {
            "Name": queue.name,
            "EventSourceArn": queue.arn,
            "FilterCriteria": criteria(SQS, rule, metadata),
        }
        rig = MappingRig(tmp_path, document, endpoint_url=elasticmq.endpoint_url)
        async with rig.running():
            count = 2 * len(rows(SQS, rule))
            await rig.saves.until(lambda progress: progress.ledger.polled == count and progress.ledger.in_flight == 0)
            await eventually(lambda: queue.empty, "an empty queue")
        delivered = [record["body"].encode() for call in rig.function.calls for record in call]
        check(SQS, rule, sorted(delivered, key=[*PAYLOADS.values()].index), rig.saves.progress.ledger)

    async with asyncio.TaskGroup() as tasks:
        for rule in RULES:
            tasks.create_task(run(rule))
