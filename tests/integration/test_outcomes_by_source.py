"""What functions answer, and what comes of it, on a server of each kind: the tables of specification section 4.

The function answers a batch of three as a row of the table says, and takes whatever of it comes again.
"""

from __future__ import annotations

import asyncio
import base64
import time
from typing import TYPE_CHECKING, Any

import pytest

from model.outcome import Delivered, FunctionFailed, NotReached, Outcome, Throttled
from tests.support.aws_servers import CREDENTIALS
from tests.support.kafka_source import produce
from tests.support.kinesis_streams import Stream
from tests.support.mapping_rig import MappingRig, records_of
from tests.support.node_process import eventually
from tests.support.response_table import ALL, ROWS, Row, retried
from tests.support.sqs_servers import RealQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from model.progress import Ledger
    from tests.support.elasticmq import ElasticMQ
    from tests.support.embedded_broker import EmbeddedBroker
    from tests.support.kinesis_local import KinesisLocal

REPORTING = {"FunctionResponseTypes": ["ReportBatchItemFailures"]}
BATCHES = {"BatchSize": len(ALL), "MaximumBatchingWindowInSeconds": 1}  # full ones: so many are there from the start
COUNT = len(ALL) * len(ROWS)


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have some."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


def number(record: dict[str, Any]) -> int:
    """Return the number that a record carries, whatever its source."""
    if "body" in record:
        return int(record["body"])
    return int(base64.b64decode(record["kinesis"]["data"] if "kinesis" in record else record["value"]))


def identifier(record: dict[str, Any]) -> Any:
    """Return what a function names a record by."""
    if "body" in record:
        return record["messageId"]
    if "kinesis" in record:
        return record["kinesis"]["sequenceNumber"]
    return {"partition": f"{record['topic']}-{record['partition']}", "offset": record["offset"]}


class Script:
    """Answers each batch of the table once as its row says; remembers which records of a row came in which call."""

    def __init__(self, rows: Sequence[Row], other: Any) -> None:
        self.rows = rows
        self.other = other
        self.calls: dict[int, list[list[int]]] = {}  # by row

    def __call__(self, event: dict[str, Any]) -> Outcome:
        """Answer."""
        records = sorted(records_of(event), key=number)  # a standard queue has no order
        ((row, numbers),) = _by_row(records).items()
        calls = self.calls.setdefault(row, [])
        calls.append(numbers)
        if len(calls) > 1:
            return Delivered(b"{}")
        return self.rows[row].answer([identifier(record) for record in records], self.other)

    def check(self, *, in_order: bool) -> None:
        """Hold the calls against the table."""
        for at, row in enumerate(self.rows):
            again = retried(row, in_order=in_order)
            assert self.calls[at] == [[*ALL], *([again] if again else [])], row.result

    def check_queue(self) -> None:
        """Hold the calls for the only row against the table: what comes again of a queue need not come together."""
        first, *others = self.calls[0]
        assert first == [*ALL]
        assert sorted(number for call in others for number in call) == retried(self.rows[0], in_order=False)


def _by_row(records: Sequence[dict[str, Any]]) -> dict[int, list[int]]:
    """Return the numbers of each row's records within it."""
    found: dict[int, list[int]] = {}
    for record in records:
        row, at = divmod(number(record), len(ALL))
        found.setdefault(row, []).append(at)
    return found


def kafka_document(broker: EmbeddedBroker, topic: str, **more: Any) -> dict[str, Any]:
    """Make a mapping of a topic."""
    return {
        "Name": topic,
        "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": [broker.bootstrap_servers]}},
        "Topics": [topic],
        "StartingPosition": "TRIM_HORIZON",
        **BATCHES,
        **more,
    }


def kinesis_document(stream: Stream, **more: Any) -> dict[str, Any]:
    """Make a mapping of a stream."""
    return {
        "Name": stream.name, "EventSourceArn": stream.arn, "StartingPosition": "TRIM_HORIZON", **BATCHES, **more
    }  # fmt: skip


async def test_responses_on_kafka(embedded_kafka: EmbeddedBroker, tmp_path: Path) -> None:
    """Only what is reported comes again; the offset waits for it."""
    topic = embedded_kafka.new_topic(2)
    await produce(embedded_kafka.bootstrap_servers, topic, 0, [b"%d" % n for n in range(COUNT)])
    rig = MappingRig(tmp_path, kafka_document(embedded_kafka, topic, **REPORTING))
    rig.function.answer = script = Script(ROWS, {"partition": f"{topic}-1", "offset": 0})
    async with rig.running(f"{topic}-0"):
        await rig.saves.until(lambda progress: progress.position == str(COUNT))
    script.check(in_order=False)
    assert rig.saves.progress.ledger.delivered == COUNT


async def test_responses_on_kinesis(kinesis_local: KinesisLocal, tmp_path: Path) -> None:
    """The lowest reported sequence number is the checkpoint: it and all behind it come again."""
    stream = await asyncio.to_thread(Stream, kinesis_local.endpoint_url)
    placed = await asyncio.to_thread(stream.put, [("k", b"%d" % n) for n in range(COUNT)])
    rig = MappingRig(tmp_path, kinesis_document(stream, **REPORTING), endpoint_url=kinesis_local.endpoint_url)
    rig.function.answer = script = Script(ROWS, "1")
    shard, last = placed[-1]
    async with rig.running(shard):
        await rig.saves.until(lambda progress: progress.position == last)
    script.check(in_order=True)
    assert rig.saves.progress.ledger.delivered == COUNT


async def test_responses_on_sqs(elasticmq: ElasticMQ, tmp_path: Path) -> None:
    """What is not reported is deleted; what is, or was spoilt, comes again when its visibility has ended."""

    async def run(at: int, row: Row) -> None:
        queue = await asyncio.to_thread(RealQueue, elasticmq.endpoint_url, visibility_s=1)
        document = {"Name": queue.name, "EventSourceArn": queue.arn, **BATCHES, **REPORTING}
        rig = MappingRig(tmp_path, document, endpoint_url=elasticmq.endpoint_url)
        rig.function.answer = script = Script([row], "stranger")
        await asyncio.to_thread(queue.send, [str(n) for n in ALL])
        async with rig.running():
            await rig.saves.until(lambda progress: progress.ledger.delivered == len(ALL))
            await eventually(lambda: queue.empty, f"an empty queue after {row.result}")
        script.check_queue()
        receives = {number(r): r["attributes"]["ApproximateReceiveCount"] for r in records_of(rig.function.events[-1])}
        assert set(receives.values()) == {"2" if row.reported else "1"}, at

    async with asyncio.TaskGroup() as tasks:
        for at, row in enumerate(ROWS):
            tasks.create_task(run(at, row))


async def test_a_fifo_queue_does_exactly_what_the_list_says(elasticmq: ElasticMQ, tmp_path: Path) -> None:
    """Later messages of the group that the function does not report are deleted, although an earlier one failed."""
    queue = await asyncio.to_thread(RealQueue, elasticmq.endpoint_url, fifo=True, visibility_s=1)
    await asyncio.to_thread(queue.send, [str(n) for n in ALL], group="g")
    document = {"Name": queue.name.removesuffix(".fifo"), "EventSourceArn": queue.arn, "BatchSize": 10, **REPORTING}
    rig = MappingRig(tmp_path, document, endpoint_url=elasticmq.endpoint_url)
    (first,) = [row for row in ROWS if row.result == "the first"]
    rig.function.answer = script = Script([first], "stranger")
    async with rig.running():
        await eventually(lambda: queue.empty, "an empty queue")
        await rig.saves.until(lambda progress: progress.ledger.delivered == len(ALL))
    assert script.calls == {0: [[0, 1, 2], [0]]}


# Retries and limits on the two kinds of streams


class Six:
    """Six records of a stream or a topic, and a function."""

    def __init__(self, rig: MappingRig, shard: str, last: str) -> None:
        self._rig = rig
        self._shard = shard
        self._last = last  # the checkpoint behind them

    async def deliver(self, answer: Callable[[list[dict[str, Any]]], Outcome]) -> tuple[list[list[int]], Ledger]:
        """Deliver them; return the numbers of every call, and the account."""
        rig = self._rig
        rig.function.answer = lambda event: answer(records_of(event))
        async with rig.running(self._shard):
            await rig.saves.until(lambda progress: progress.position == self._last)
        ledger = rig.saves.progress.ledger
        assert ledger.balanced
        assert ledger.polled == 6
        return [[number(record) for record in call] for call in rig.function.calls], ledger


@pytest.fixture(params=["kafka", "kinesis"])
def six(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Six]:
    """Make six records on each kind of server in turn, under a mapping with further properties."""
    if request.param == "kafka":
        broker: EmbeddedBroker = request.getfixturevalue("embedded_kafka")

        def on_kafka(**more: Any) -> Six:
            topic = broker.new_topic(1)
            asyncio.run(produce(broker.bootstrap_servers, topic, 0, [b"%d" % n for n in range(6)]))
            return Six(MappingRig(tmp_path, kafka_document(broker, topic, **more)), f"{topic}-0", "6")

        return on_kafka
    server: KinesisLocal = request.getfixturevalue("kinesis_local")

    def on_kinesis(**more: Any) -> Six:
        stream = Stream(server.endpoint_url)
        placed = stream.put([("k", b"%d" % n) for n in range(6)])
        return Six(
            MappingRig(tmp_path, kinesis_document(stream, **more), endpoint_url=server.endpoint_url), *placed[-1]
        )

    return on_kinesis


def failing(*numbers: int) -> Callable[[list[dict[str, Any]]], Outcome]:
    """Fail every call that has one of these."""
    return lambda records: FunctionFailed("Boom") if {number(r) for r in records} & {*numbers} else Delivered()


async def test_function_errors_use_up_the_retries_and_the_shard_goes_on(six: Callable[..., Six]) -> None:
    """MaximumRetryAttempts 1 makes two invocations of the whole batch; what follows is delivered."""
    made = await asyncio.to_thread(six, MaximumRetryAttempts=1)
    calls, ledger = await made.deliver(failing(1))
    assert calls == [[0, 1, 2], [0, 1, 2], [3, 4, 5]]
    assert (ledger.delivered, ledger.dropped) == (3, 3)


async def test_what_does_not_reach_the_function_uses_up_nothing(six: Callable[..., Six]) -> None:
    """Throttles and refusals are retried although no retries are allowed."""
    made = await asyncio.to_thread(six, MaximumRetryAttempts=0)
    outcomes: list[Outcome] = [Throttled("429"), NotReached("403"), NotReached("away", 0.1)]
    calls, ledger = await made.deliver(lambda _records: outcomes.pop(0) if outcomes else Delivered())
    assert calls == [[0, 1, 2]] * 4 + [[3, 4, 5]]
    assert (ledger.delivered, ledger.dropped) == (6, 0)


async def test_bisecting_isolates_the_record_that_fails(six: Callable[..., Six]) -> None:
    """First half first, down to the one; the splits themselves consume nothing."""
    made = await asyncio.to_thread(six, BatchSize=6, MaximumRetryAttempts=1, BisectBatchOnFunctionError=True)
    calls, ledger = await made.deliver(failing(4))
    assert calls == [[0, 1, 2, 3, 4, 5], [0, 1, 2], [3, 4, 5], [3], [4, 5], [4], [4], [5]]
    assert (ledger.delivered, ledger.dropped) == (5, 1)


async def test_progress_by_a_partial_response_gives_a_fresh_budget(six: Callable[..., Six]) -> None:
    """With three retries a record that fails in third place is invoked with 1 + 4 times."""
    made = await asyncio.to_thread(six, MaximumRetryAttempts=3, **REPORTING)
    (third,) = [row for row in ROWS if row.result == "the first"]

    def answer(records: list[dict[str, Any]]) -> Outcome:
        bad = [identifier(record) for record in records if number(record) == 2]
        return third.answer(bad, None) if bad else Delivered()

    calls, ledger = await made.deliver(answer)
    assert calls == [[0, 1, 2]] + [[2]] * 4 + [[3, 4, 5]]
    assert (ledger.delivered, ledger.dropped) == (5, 1)


async def test_expired_records_go_without_an_invocation(embedded_kafka: EmbeddedBroker, tmp_path: Path) -> None:
    """Only the leading ones: an old record behind a younger one is delivered. Kafka lets producers date records."""
    topic, now_ms = embedded_kafka.new_topic(1), int(time.time() * 1000)
    for value, age_s in enumerate([70, 65, 0, 70]):
        when_ms = now_ms - age_s * 1000
        await produce(embedded_kafka.bootstrap_servers, topic, 0, [b"%d" % value], timestamp_ms=when_ms)
    document = kafka_document(embedded_kafka, topic, BatchSize=4, MaximumRecordAgeInSeconds=60)
    rig = MappingRig(tmp_path, document)
    async with rig.running(f"{topic}-0"):
        await rig.saves.until(lambda progress: progress.position == "4")
    assert [[number(record) for record in call] for call in rig.function.calls] == [[2, 3]]
    assert (rig.saves.progress.ledger.delivered, rig.saves.progress.ledger.dropped) == (2, 2)


async def test_a_retry_limit_for_kafka_with_a_destination_is_ten(
    embedded_kafka: EmbeddedBroker, tmp_path: Path
) -> None:
    """Without one of its own a mapping that can hand records over gives up after ten retries (spec 1.3, rule 8)."""
    topic, failed = embedded_kafka.new_topic(1), embedded_kafka.new_topic(1)
    destination = {"OnFailure": {"Destination": f"kafka://{failed}"}}
    rig = MappingRig(tmp_path, kafka_document(embedded_kafka, topic, DestinationConfig=destination))
    assert rig.mapping.maximum_retry_attempts == 10


# Queues


async def test_a_throttled_queue_keeps_its_messages(elasticmq: ElasticMQ, tmp_path: Path) -> None:
    """The batch is tried again under the receive count it has, until the function takes it; then it is deleted."""
    queue = await asyncio.to_thread(RealQueue, elasticmq.endpoint_url, visibility_s=30)
    await asyncio.to_thread(queue.send, [str(n) for n in ALL])
    rig = MappingRig(tmp_path, {"Name": queue.name, "EventSourceArn": queue.arn}, endpoint_url=elasticmq.endpoint_url)
    outcomes: list[Outcome] = [Throttled("429", 0.1), NotReached("503", 0.1)]
    rig.function.answer = lambda _event: outcomes.pop(0) if outcomes else Delivered()
    async with rig.running():
        await eventually(lambda: queue.empty, "an empty queue")
        await rig.saves.until(lambda progress: progress.ledger.delivered == len(ALL))
    counts = {record["attributes"]["ApproximateReceiveCount"] for call in rig.function.calls for record in call}
    assert counts == {"1"}


async def test_a_failing_queue_leaves_messages_to_visibility_and_redrive(elasticmq: ElasticMQ, tmp_path: Path) -> None:
    """Nothing is deleted or given up here; the queue's own redrive policy moves what failed twice."""
    dead = await asyncio.to_thread(RealQueue, elasticmq.endpoint_url)
    queue = await asyncio.to_thread(RealQueue, elasticmq.endpoint_url, visibility_s=1, dead=dead, receives=2)
    await asyncio.to_thread(queue.send, ["0"])
    rig = MappingRig(tmp_path, {"Name": queue.name, "EventSourceArn": queue.arn}, endpoint_url=elasticmq.endpoint_url)
    rig.function.answer = lambda _event: FunctionFailed("Boom")
    async with rig.running():
        await eventually(lambda: dead.counts() == (1, 0), "a dead letter")
        await eventually(lambda: queue.empty, "an empty queue")
    counts = [record["attributes"]["ApproximateReceiveCount"] for call in rig.function.calls for record in call]
    assert counts == ["1", "2"]
