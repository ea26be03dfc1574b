"""Traces of whole nodes, as a collector gets them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import aiohttp

from tests.support.aws_servers import CREDENTIALS
from tests.support.kafka_load import load
from tests.support.node_process import NodeProcess, eventually, kafka_document, url_target
from tests.support.otlp_receiver import OtlpReceiver
from tests.support.scripted_http import ScriptedServer, answer, free_port
from tests.support.sqs_servers import RealQueue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from tests.support.embedded_broker import EmbeddedBroker
    from tests.support.moto_server import MotoServer

CONSUMER = 5
CODE = "import os\n\ndef handler(event, context):\n    print(os.environ['_X_AMZN_TRACE_ID'])\n"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
XRAY = "5759e988bd862e3fe1be46a994272793", "53995c3f42cd8ad8"


@contextlib.asynccontextmanager
async def traced_node(
    folder: Path, document: Mapping[str, Any], endpoint: str, env: Mapping[str, str]
) -> AsyncIterator[NodeProcess]:
    """Run a node that sends its spans within a tenth of a second."""
    told = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50", **env}
    async with asyncio.timeout(90), NodeProcess(folder, document, env=told) as node:
        await node.start()
        yield node


async def test_spans_link_producers_and_functions(
    embedded_kafka: EmbeddedBroker, moto_server: MotoServer, redis_url: str, tmp_path: Path
) -> None:
    """From a topic and a queue: a span an attempt, linked to the records' contexts, whose own context functions get."""
    servers, topic = embedded_kafka.bootstrap_servers, embedded_kafka.new_topic()
    queue = await asyncio.to_thread(RealQueue, moto_server.endpoint_url)
    here: list[tuple[str, bytes | None]] = [("traceparent", f"00-{TRACE}-{SPAN}-01".encode())]
    await asyncio.to_thread(load, servers, [(topic, 0, None, b"{}") for _ in range(3)], headers=[here, None, here])
    header = f"Root=1-{XRAY[0][:8]}-{XRAY[0][8:]};Parent={XRAY[1]};Sampled=1"
    system = {"AWSTraceHeader": {"DataType": "String", "StringValue": header}}
    await asyncio.to_thread(
        queue.client.send_message, QueueUrl=queue.url, MessageBody="{}", MessageSystemAttributes=system
    )  # alone: moto forgets these attributes of a batch
    async with ScriptedServer() as server, ScriptedServer() as runtime, OtlpReceiver() as receiver:
        server.then(answer(500))
        functions = {**url_target(server.url), "container": {"rie": [runtime.url]}}
        document = kafka_document(servers, topic, redis_url=redis_url, functions=functions, BatchSize=3)
        sqs = {"Name": "mails", "EventSourceArn": queue.arn, "FunctionName": "container"}
        document["event_source_mappings"].append(sqs)
        document["aws"] = {"region": "us-east-1", "endpoint_url": moto_server.endpoint_url}
        env = {**CREDENTIALS, "OTEL_SERVICE_NAME": "pollers-eu", "OTEL_RESOURCE_ATTRIBUTES": "zone=a"}
        async with traced_node(tmp_path, document, receiver.url, env) as node:
            await eventually(lambda: len(receiver.of("orders")) >= 2 and receiver.of("mails"), "spans of both")
            metrics = await node.metrics()
        failed, orders = receiver.of("orders")
        [mails] = receiver.of("mails")
        assert [call.headers["traceparent"] for call in server.complete] == [failed.traceparent, orders.traceparent]
        [called] = runtime.complete
        assert called.headers["traceparent"] == mails.traceparent
        root = f"1-{mails.trace_id[:8]}-{mails.trace_id[8:]}"
        assert called.headers["x-amzn-trace-id"] == f"Root={root};Parent={mails.span_id};Sampled=1"
        assert "x-amzn-trace-id" not in server.complete[0].headers
    assert (failed.failed, orders.failed, mails.failed) == (True, False, False)
    assert failed.attributes["esmd.outcome"] == "function_failed"
    assert orders.trace_id == failed.trace_id  # the same batch
    assert orders.links == failed.links == [(TRACE, SPAN)]
    assert mails.links == [XRAY]
    assert {span.kind for span in receiver.spans} == {CONSUMER}
    assert {span.parent for span in receiver.spans} == {""}
    assert orders.name == f"process {topic}"
    assert (
        orders.attributes.items()
        >= {
            "messaging.system": "kafka",
            "messaging.destination.name": topic,
            "messaging.destination.partition.id": "0",
            "messaging.batch.message_count": 3,
            "messaging.operation.type": "process",
            "faas.invoked_name": "f",
            "esmd.mapping": "orders",
            "esmd.shard": f"{topic}-0",
            "esmd.attempt": 2,
            "esmd.outcome": "delivered",
            "http.response.status_code": 200,
        }.items()
    )
    assert mails.attributes.items() >= {"messaging.system": "aws_sqs", "messaging.destination.name": queue.name}.items()
    assert isinstance(orders.attributes["esmd.fencing_token"], int)
    assert orders.resource.items() >= {"service.name": "pollers-eu", "zone": "a"}.items()
    assert metrics['esm_spans_total{result="made"}'] >= 3


async def test_a_collector_that_is_away_or_refuses_costs_only_spans(
    embedded_kafka: EmbeddedBroker, redis_url: str, tmp_path: Path
) -> None:
    """Every batch is delivered, with one warning an outage; the node ends in time while spans wait."""
    servers, topic, port = embedded_kafka.bootstrap_servers, embedded_kafka.new_topic(), free_port()
    document = kafka_document(servers, topic, redis_url=redis_url, functions={}, BatchSize=1)

    async def produce(server: ScriptedServer, upto: int) -> None:
        records: list[tuple[str, int, bytes | None, bytes | None]] = [
            (topic, 0, None, json.dumps(n).encode()) for n in range(20)
        ]
        await asyncio.to_thread(load, servers, records)
        await server.received(upto)

    async with ScriptedServer() as server:
        document["functions"] = url_target(server.url)
        env = {"OTEL_EXPORTER_OTLP_TIMEOUT": "1", "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "1"}
        async with traced_node(tmp_path, document, f"http://127.0.0.1:{port}", env) as node:
            await produce(server, 20)
            await node.logged("traces.not_sent")
            async with OtlpReceiver(port=port) as receiver:
                await produce(server, 40)
                await node.logged("traces.sent_again")
                assert receiver.spans
                receiver.status = 500
                await produce(server, 60)
                await node.logged("traces.not_sent", count=2)
                refused = receiver.requests
                await produce(server, 80)
                await eventually(lambda: receiver.requests > refused, "more spans refused")
            metrics = await node.metrics()
            assert metrics['esm_spans_total{result="failed"}'] >= 1
            await produce(server, 100)
            assert await node.stop() == 0, node.tail()
    assert len(node.find("traces.not_sent")) == 2
    assert [line for line in node.log() if "opentelemetry" in str(line.get("library"))] == []


async def test_asynchronous_invocations(redis_url: str, tmp_path: Path, open_folder: Path) -> None:
    """A span an attempt, throttled ones too, linked to the caller; the function gets the span's context."""
    header = f"Root=1-{XRAY[0][:8]}-{XRAY[0][8:]};Parent={XRAY[1]};Sampled=1"
    (open_folder / "app.py").write_text(CODE)
    async with ScriptedServer() as server, OtlpReceiver() as receiver:
        server.then(answer(429))  # tried again after a second
        functions = {
            **url_target(server.url),
            "local": {"handler": "app.handler", "code": str(open_folder), "timeout": 30},
        }
        document = {"redis": {"url": redis_url}, "leasing": {"ttl": 3}, "functions": functions}
        async with traced_node(tmp_path, document, receiver.url, {}) as node, aiohttp.ClientSession() as client:

            async def invoke(function: str, **headers: str) -> None:
                url = f"http://{node.address}/2015-03-31/functions/{function}/invocations"
                asked = {"X-Amz-Invocation-Type": "Event", **headers}
                async with client.post(url, data=b"{}", headers=asked) as accepted:
                    assert accepted.status == 202

            await invoke("f", traceparent=f"00-{TRACE}-{SPAN}-01")
            await eventually(lambda: len(receiver.spans) == 2, lambda: f"two attempts\n{node.tail()}")
            await invoke("local", **{"X-Amzn-Trace-Id": header})
            await invoke("f")
            await eventually(lambda: len(receiver.spans) == 4, lambda: f"four attempts\n{node.tail()}")
            printed = node.printed()
        throttled, taken = receiver.spans[:2]
        [local] = [span for span in receiver.spans if span.attributes["faas.invoked_name"] == "local"]
        [alone] = [span for span in receiver.spans[2:] if span is not local]
        assert [call.headers["traceparent"] for call in server.complete] == [
            throttled.traceparent,
            taken.traceparent,
            alone.traceparent,
        ]
        root = f"Root=1-{taken.trace_id[:8]}-{taken.trace_id[8:]}"
        assert server.complete[1].headers["x-amzn-trace-id"] == f"{root};Parent={taken.span_id};Sampled=1"
    assert throttled.trace_id == taken.trace_id != alone.trace_id
    assert throttled.links == taken.links == [(TRACE, SPAN)]
    assert (local.links, alone.links) == ([XRAY], [])
    assert f"Root=1-{local.trace_id[:8]}-{local.trace_id[8:]};Parent={local.span_id};Sampled=1" in printed
    assert (throttled.failed, taken.failed, local.failed) == (True, False, False)
    assert (throttled.name, throttled.kind, throttled.parent) == ("process f", CONSUMER, "")
    assert taken.attributes.items() >= {"faas.trigger": "other", "esmd.outcome": "delivered", "esmd.attempt": 1}.items()
    assert throttled.attributes["esmd.outcome"] == "throttled"


async def test_without_traces_a_function_is_told_its_callers_context(redis_url: str, tmp_path: Path) -> None:
    """At once or later; where the caller has none there is none to tell of."""
    async with ScriptedServer() as server:
        document = {"redis": {"url": redis_url}, "leasing": {"ttl": 3}, "functions": url_target(server.url)}
        async with NodeProcess(tmp_path, document) as node, aiohttp.ClientSession() as client:
            await node.start()
            url = f"http://{node.address}/2015-03-31/functions/f/invocations"
            told = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
            for number, headers in enumerate([told, {}, {**told, "X-Amz-Invocation-Type": "Event"}], 1):
                async with client.post(url, data=b"{}", headers=headers) as answered:
                    assert answered.status in (200, 202)
                await server.received(number)
        at_once, untold, later = server.complete
    assert at_once.headers["traceparent"] == later.headers["traceparent"] == told["traceparent"]
    assert at_once.headers["x-amzn-trace-id"] == later.headers["x-amzn-trace-id"]
    assert "traceparent" not in untold.headers
    assert "Parent=" in untold.headers["x-amzn-trace-id"]
