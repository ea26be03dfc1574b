"""What functions get from whole nodes: awkward records, filters, partial responses, Lambda endpoints, grown topics."""

from __future__ import annotations

import asyncio
import contextlib
import json
from base64 import b64decode, b64encode
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.support.history import Partition, check
from tests.support.kafka_load import expected, keyed, load
from tests.support.node_process import NodeProcess, eventually, kafka_document, kafka_mapping, owners, url_target
from tests.support.scripted_http import ScriptedServer, answer
from tests.support.target_process import TargetProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

    from tests.support.kafka_admin import KafkaAdmin
    from tests.support.kafka_fixtures import KafkaBroker
    from tests.support.scripted_http import Exchange, Received

_TARGET_S = 60


def events(requests: Sequence[Received]) -> list[dict[str, Any]]:
    """Return the events a function got, in order."""
    return [json.loads(request.body) for request in requests]


def records(requests: Sequence[Received]) -> list[dict[str, Any]]:
    """Return all records a function got, in order."""
    return [record for event in events(requests) for shard in event["records"].values() for record in shard]


def responding(respond: Callable[[dict[str, Any], Received], bytes], headers: Mapping[str, str] | None = None) -> Any:
    """Make a function whose answer depends on the event."""

    async def behave(exchange: Exchange) -> None:
        await exchange.read()
        body = respond(json.loads(exchange.request.body), exchange.request)
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        await exchange.write(head.encode() + b"\r\n" + body)

    return behave


@contextlib.asynccontextmanager
async def one_node(folder: Path, document: Mapping[str, Any]) -> AsyncIterator[NodeProcess]:
    """Run a ready node for the length of the block, and stop it in order."""
    async with asyncio.timeout(_TARGET_S), NodeProcess(folder, document) as node:
        await node.start()
        yield node
        assert await node.stop() == 0


async def finished(node: NodeProcess, records: int, *names: str) -> dict[str, Any]:
    """Wait until so many records of each mapping were read and finished; return the last mapping's status."""
    status: dict[str, Any] = {}

    async def settled(name: str) -> bool:
        nonlocal status
        status = await node.mapping(name)
        ledger: dict[str, int] = status["ledger"]
        # The ledger is the node's, as of now; the checkpoints are the store's, and a save behind it.
        saved = sum(int(shard["checkpoint"] or 0) for shard in status["shards"])
        return ledger["polled"] == records and ledger["in_flight"] == 0 and saved >= records

    for name in names or ("orders",):
        await eventually(partial(settled, name), f"{records} records of {name} finished")
    assert status["ledger"]["balanced"]
    return status


async def test_awkward_records_are_delivered_as_specified(kafka: KafkaBroker, redis_url: str, tmp_path: Path) -> None:
    """Not UTF-8, no key, no value, empty, a megabyte, 200 headers, signed bytes, a header twice: byte for byte."""
    topic, servers = kafka.new_topic(), kafka.bootstrap_servers
    many = [(f"h{number}", b"%d" % number) for number in range(200)]
    odd: list[tuple[str, bytes | None]] = [("twice", b"1"), ("bytes", bytes([0, 127, 128, 255])), ("twice", b"2")]
    odd += [("empty", b""), ("null", None), ("n\u00e4me", "\u00fc".encode())]
    large = bytes(range(256)) * 3900
    made: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]] | None]] = [
        (b"\xff\xfe", b"\x80\x81\xff", None),
        (None, b"no key", None),
        (b"tombstone", None, None),
        (b"", b"", None),
        (b"large", large, None),
        (b"many", b"headers", list(many)),
        (b"odd", b"headers", odd),
        (None, None, None),
    ]
    await asyncio.to_thread(
        load, servers, [(topic, 0, key, value) for key, value, _ in made], headers=[h for *_, h in made]
    )
    async with ScriptedServer() as server:
        document = kafka_document(servers, topic, redis_url=redis_url, functions=url_target(server.url), BatchSize=3)
        async with one_node(tmp_path, document) as node:
            await finished(node, len(made))
        assert {event["eventSource"] for event in events(server.complete)} == {"SelfManagedKafka"}
        assert {event["bootstrapServers"] for event in events(server.complete)} == {servers}
        assert not any("eventSourceArn" in event for event in events(server.complete))
        assert {tuple(event["records"]) for event in events(server.complete)} == {(f"{topic}-0",)}
        got = records(server.complete)
    assert [record["offset"] for record in got] == list(range(len(made)))
    for record, (key, value, headers) in zip(got, made, strict=True):
        signed = [{name: list(memoryview(text or b"").cast("b"))} for name, text in headers or ()]
        shown: dict[str, Any] = {"topic": topic, "partition": 0, "offset": record["offset"], "headers": signed}
        shown |= {} if key is None else {"key": b64encode(key).decode()}
        shown |= {} if value is None else {"value": b64encode(value).decode()}
        assert isinstance(record.pop("timestamp"), int)
        assert record.pop("timestampType") == "CREATE_TIME"
        assert record == shown


async def test_filters_pass_what_matches_and_account_for_the_rest(
    kafka: KafkaBroker, redis_url: str, tmp_path: Path
) -> None:
    """Only matching records reach the function; the others are passed over, counted and committed."""
    topic = kafka.new_topic(2)
    await asyncio.to_thread(
        load,
        kafka.bootstrap_servers,
        keyed(topic, 2, 200, lambda n: b'{"n":%d,"paid":%s}' % (n, (b"false", b"true")[n % 5 == 0])),
    )
    async with ScriptedServer() as server:
        document = kafka_document(
            kafka.bootstrap_servers,
            topic,
            redis_url=redis_url,
            functions=url_target(server.url),
            FilterCriteria={"Filters": [{"Pattern": '{"value":{"paid":[true]}}'}, {"Pattern": '{"value":{"n":[1]}}'}]},
        )
        async with one_node(tmp_path, document) as node:
            status = await finished(node, 200)
        delivered = {json.loads(_decoded(record))["n"] for record in records(server.complete)}
    assert delivered == {number for number in range(200) if number % 5 == 0 or number == 1}
    assert (status["ledger"]["delivered"], status["ledger"]["filtered"]) == (41, 159)
    assert [shard["checkpoint"] for shard in status["shards"]] == ["100", "100"]


async def test_partial_batch_responses_retry_what_was_named(kafka: KafkaBroker, redis_url: str, tmp_path: Path) -> None:
    """Records that a batch response names come again, alone; all others of the batch are done."""
    topic = kafka.new_topic()
    await asyncio.to_thread(load, kafka.bootstrap_servers, keyed(topic, 1, 10, lambda n: b"%d" % n))

    def fail_twice(event: dict[str, Any], request: Received) -> bytes:
        offsets = [record["offset"] for shard in event["records"].values() for record in shard]
        names = [{"itemIdentifier": {"partition": f"{topic}-0", "offset": o}} for o in offsets if o in (3, 7)]
        return json.dumps({"batchItemFailures": names if len(server.complete) <= 2 else []}).encode()

    async with ScriptedServer(responding(fail_twice)) as server:
        document = kafka_document(
            kafka.bootstrap_servers,
            topic,
            redis_url=redis_url,
            functions=url_target(server.url),
            FunctionResponseTypes=["ReportBatchItemFailures"],
        )
        async with one_node(tmp_path, document) as node:
            status = await finished(node, 10)
        calls = [[record["offset"] for record in records([request])] for request in server.complete]
    assert calls == [list(range(10)), [3, 7], [3, 7]]
    assert (status["ledger"]["delivered"], status["ledger"]["dropped"]) == (10, 0)
    assert status["shards"][0]["checkpoint"] == "10"


async def test_a_lambda_endpoint_is_called_as_lambda(kafka: KafkaBroker, redis_url: str, tmp_path: Path) -> None:
    """Path and headers are the Invoke API's; X-Amz-Function-Error fails a batch that looks like success."""
    topic = kafka.new_topic()
    await asyncio.to_thread(load, kafka.bootstrap_servers, keyed(topic, 1, 5, lambda n: b"%d" % n))
    error = answer(200, b'{"errorType":"E","errorMessage":"planted"}', headers={"X-Amz-Function-Error": "Unhandled"})
    async with ScriptedServer() as server:
        server.then(error, answer(500, b'{"Message":"service"}'), answer(404, b'{"Message":"Function not found"}'))
        document = {
            "redis": {"url": redis_url},
            "invoke": {"endpoint": server.url},
            "event_source_mappings": [
                {
                    **kafka_mapping(kafka.bootstrap_servers, topic),
                    "FunctionName": "settle:live",
                    "MaximumRetryAttempts": 1,
                }
            ],
        }
        async with one_node(tmp_path, document) as node:
            status = await finished(node, 5)
        calls = server.complete
    # The function error used the one retry; the service's errors used none, so that the last call was allowed.
    assert (len(calls), status["ledger"]["delivered"], status["ledger"]["dropped"]) == (4, 5, 0)
    for number, call in enumerate(calls, 1):
        assert (call.method, call.path) == ("POST", "/2015-03-31/functions/settle%3Alive/invocations")
        assert call.headers["x-amz-invocation-type"] == "RequestResponse"
        assert call.headers["x-esmd-mapping"] == "orders"
        assert call.headers["x-esmd-shard"] == f"{status['uuid']}/{topic}-0"
        assert int(call.headers["x-esmd-fencing-token"]) == status["shards"][0]["fencing_token"]
        assert call.headers["x-esmd-attempt"] == str(number)
        assert call.headers["traceparent"].startswith("00-")


async def test_added_partitions_are_followed(real_kafka: KafkaAdmin, redis_url: str, tmp_path: Path) -> None:
    """Partitions that a topic gets while it is read are read too, from their beginning."""
    topic, servers = real_kafka.new_topic(2), real_kafka.bootstrap_servers
    with TargetProcess(tmp_path / "target.log") as target:
        document = kafka_document(servers, topic, redis_url=redis_url, functions=url_target(target.url))
        async with one_node(tmp_path, document) as node:
            await asyncio.to_thread(load, servers, keyed(topic, 2, 100, lambda n: b"%d" % n))
            await asyncio.to_thread(real_kafka.add_partitions, topic, 5)
            await asyncio.to_thread(load, servers, keyed(topic, 5, 500, lambda n: b"%d" % n))
            await target.reached(600)

            async def all_held() -> bool:
                return sum(map(len, owners(await node.mapping()).values())) == 5

            await eventually(all_held, "all partitions held")
    offsets = {Partition(topic, number): range(150 if number < 2 else 100) for number in range(5)}
    assert check(target.invoked(), offsets).problems() == []


async def test_two_mappings_on_one_topic_do_not_disturb_each_other(
    kafka: KafkaBroker, redis_url: str, tmp_path: Path
) -> None:
    """Each mapping delivers everything to its own function, also while the other's fails."""
    topic = kafka.new_topic(3)
    await asyncio.to_thread(load, kafka.bootstrap_servers, keyed(topic, 3, 300, lambda n: b"%d" % n))
    with TargetProcess(tmp_path / "good.log") as good, TargetProcess(tmp_path / "bad.log", "--fail", "1") as bad:
        failing = kafka_mapping(kafka.bootstrap_servers, topic, name="failing")
        document = {
            "redis": {"url": redis_url},
            "functions": {"good": {"url": good.url}, "bad": {"url": bad.url}},
            "event_source_mappings": [
                {**kafka_mapping(kafka.bootstrap_servers, topic), "FunctionName": "good"},
                {**failing, "FunctionName": "bad", "MaximumRetryAttempts": 1, "BatchSize": 50},
            ],
        }
        async with one_node(tmp_path, document) as node:
            status = await finished(node, 300, "orders", "failing")
            assert (await node.mapping())["ledger"]["delivered"] == 300
    assert status["ledger"]["dropped"] == 300
    assert check(good.invoked(), expected(topic, 3, 300)).problems() == []
    assert {invoked.mapping for invoked in good.invoked()} == {"orders"}
    assert {invoked.mapping for invoked in bad.invoked()} == {"failing"}
    assert sum(len(invoked.records) for invoked in bad.invoked()) == 600


def _decoded(record: Mapping[str, Any]) -> bytes:
    return b64decode(record["value"])
