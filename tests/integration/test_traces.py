"""Traces of whole nodes, as a collector gets them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

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
