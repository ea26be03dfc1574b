"""The daemon as its users meet it: exit codes, messages, signals, reloading, what it serves, and no secret anywhere."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import redis

from tests.support.history import check
from tests.support.kafka import PASSWORDS, READER
from tests.support.kafka_admin import KafkaAdmin
from tests.support.kafka_load import expected, keyed, load
from tests.support.node_process import NodeProcess, eventually, kafka_document, kafka_mapping, owners, url_target
from tests.support.processes import wait_gone
from tests.support.scripted_http import ScriptedServer, answer, answer_when, hang
from tests.support.target_process import TargetProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from tests.support.embedded_broker import EmbeddedBroker
    from tests.support.kafka import KafkaProcess

SECRET = "planted-4cc355"  # tests grep for it


@contextlib.asynccontextmanager
async def running(folder: Path, document: Mapping[str, Any], **more: Any) -> AsyncIterator[NodeProcess]:
    """Run a ready node; whatever the test leaves running is killed."""
    async with NodeProcess(folder, document, **more) as node:
        await node.start()
        yield node


async def ending(node: NodeProcess) -> tuple[int, str]:
    """Run a node that is expected to end by itself; return its exit status and what it printed."""
    async with node:
        node.spawn()
        return await node.ended(), node.printed()


# Ends before it begins


async def test_bad_yaml_is_told_with_its_line(tmp_path: Path) -> None:
    """A file that is not YAML ends the process with status 2 and the place of the mistake."""
    node = NodeProcess(tmp_path, "functions:\n  f: {url: 'http://h'\nlisten: [\n")
    status, printed = await ending(node)
    assert status == 2
    assert f"{node.config}:" in printed
    assert "Traceback" not in printed


async def test_every_mistake_is_told_at_once(tmp_path: Path, redis_url: str) -> None:
    """Unknown keys, wrong ranges and unknown functions end it with status 2, one line each with file and line."""
    document = kafka_document("h:1", "t", redis_url=redis_url, functions=url_target("http://h/"), BatchSize=20_000)
    document["event_source_mappings"].append({**kafka_mapping("h:1", "other", name="other"), "FunctionName": "nobody"})
    document["lisen"] = "127.0.0.1:1"
    node = NodeProcess(tmp_path, document)
    status, printed = await ending(node)
    lines = [line for line in printed.splitlines() if line.startswith(f"{node.config}:")]
    assert status == 2
    for word in ("lisen", "BatchSize", "nobody"):
        assert [line for line in lines if word in line], f"{word} is not among {lines}"
    assert all(line.removeprefix(f"{node.config}:").split(":")[0].isdigit() for line in lines)


async def test_a_missing_file_is_told(tmp_path: Path) -> None:
    """A file that is not there ends it with status 2 and its name."""
    node = NodeProcess(tmp_path, {})
    node.config.unlink()
    status, printed = await ending(node)
    assert (status, str(node.config) in printed, "Traceback" in printed) == (2, True, False)


async def test_redis_that_cannot_be_reached(
    tmp_path: Path, embedded_kafka: EmbeddedBroker, closed_address: str
) -> None:
    """It says what it waits for and why, without the password, and ends with status 3 after the limit."""
    document = kafka_document(
        embedded_kafka.bootstrap_servers,
        "t",
        redis_url=f"redis://user:{SECRET}@{closed_address}/0",
        functions=url_target("http://127.0.0.1:9/"),
    )
    node = NodeProcess(tmp_path, document, env={"ESMD_START_LIMIT": "1"})
    status, printed = await ending(node)
    assert status == 3
    (waiting,) = node.find("startup.waiting")
    assert waiting["what"] == f"Redis at redis://{closed_address}/0"
    assert f"esmd: Redis at redis://{closed_address}/0 could not be reached within 1 s" in printed
    assert SECRET not in printed


async def test_a_broker_that_cannot_be_reached(tmp_path: Path, redis_url: str, closed_address: str) -> None:
    """It says which mapping's source it waits for, and ends with status 3 after the limit."""
    document = kafka_document(closed_address, "t", redis_url=redis_url, functions=url_target("http://127.0.0.1:9/"))
    node = NodeProcess(tmp_path, document, env={"ESMD_START_LIMIT": "2"})
    status, printed = await ending(node)
    assert status == 3
    assert "the event source of mapping orders" in node.find("startup.waiting")[0]["what"]
    assert "could not be reached within 2 s" in printed
    assert closed_address in printed


async def test_an_address_in_use_is_told(tmp_path: Path, redis_url: str) -> None:
    """Somebody else's port ends it with status 1, one clear line and the mend."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        node = NodeProcess(tmp_path, {"redis": {"url": redis_url}}, arguments=["--listen", address])
        status, printed = await ending(node)
    assert status == 1
    assert f"esmd: cannot listen on {address}: another process does. Choose another address with --listen." in printed
    assert "Traceback" not in printed


async def test_stopping_while_waiting_is_a_clean_stop(tmp_path: Path, closed_address: str) -> None:
    """SIGTERM during start-up ends it with status 0, whatever it waits for."""
    document = {"redis": {"url": f"redis://{closed_address}/0"}}
    async with NodeProcess(tmp_path, document) as node:
        node.spawn()
        await node.logged("startup.waiting")
        assert await node.stop() == 0


# Stops


async def test_sigterm_delivers_what_is_in_flight(
    embedded_kafka: EmbeddedBroker, redis_url: str, tmp_path: Path
) -> None:
    """A drain waits for the invocation under way, checkpoints it, starts no other, and ends with status 0."""
    topic = embedded_kafka.new_topic()
    await asyncio.to_thread(load, embedded_kafka.bootstrap_servers, keyed(topic, 1, 40, lambda n: b"%d" % n))
    go = asyncio.Event()
    async with ScriptedServer(answer_when(go)) as server:
        document = kafka_document(
            embedded_kafka.bootstrap_servers,
            topic,
            redis_url=redis_url,
            functions=url_target(server.url),
            BatchSize=10,
        )
        async with running(tmp_path, document) as node:
            await server.received(1)
            node.signal(signal.SIGTERM)
            await node.logged("member.draining")
            assert (await node.get("/readyz"))[0] == 503
            go.set()
            assert await node.ended() == 0
            assert node.find("node.stopped")
        assert len(server.complete) == 1
        async with running(tmp_path, document, name="next") as following:
            await server.received(4)
            assert await following.stop() == 0
        offsets = [json.loads(call.body)["records"][f"{topic}-0"][0]["offset"] for call in server.complete]
    assert offsets == [0, 10, 20, 30]


async def test_a_second_sigterm_stops_at_once(embedded_kafka: EmbeddedBroker, redis_url: str, tmp_path: Path) -> None:
    """A drain that a hanging function holds up is cut short by the second signal, with status 1."""
    topic = embedded_kafka.new_topic()
    await asyncio.to_thread(load, embedded_kafka.bootstrap_servers, keyed(topic, 1, 1, lambda n: b"%d" % n))
    async with ScriptedServer(hang()) as server:
        document = kafka_document(
            embedded_kafka.bootstrap_servers,
            topic,
            redis_url=redis_url,
            functions=url_target(server.url, timeout=300),
        )
        async with running(tmp_path, document) as node:
            await server.received(1)
            node.signal(signal.SIGTERM)
            await node.logged("member.draining")
            assert node.running
            node.signal(signal.SIGTERM)
            assert await node.ended(limit_s=20) == 1


async def test_embedded_servers_end_with_the_node(tmp_path: Path) -> None:
    """A node with a Redis and a Kafka of its own works, and leaves no process behind, stopped or killed."""
    with TargetProcess(tmp_path / "target.log") as target:
        document = {
            "embedded": {"kafka": {"topics": {"audit": 2}}},
            "functions": url_target(target.url),
            "event_source_mappings": [kafka_mapping("127.0.0.1:9092", "audit")],
        }
        for end in (signal.SIGTERM, signal.SIGKILL):
            async with running(tmp_path, document) as node:
                servers = (await node.logged("embedded.kafka"))["servers"]
                await asyncio.to_thread(load, servers, keyed("audit", 2, 20, lambda n: b"%d" % n))
                reached = target.delivered() + 20 - (20 if end is signal.SIGKILL else 0)
                await target.reached(reached)
                children = psutil.Process(node.pid).children(recursive=True)
                assert len(children) >= 2
                node.signal(end)
                assert await node.ended() == (0 if end is signal.SIGTERM else -signal.SIGKILL)
                for child in children:
                    await asyncio.to_thread(wait_gone, child)


# Changes


async def test_sighup_changes_only_what_changed(embedded_kafka: EmbeddedBroker, redis_url: str, tmp_path: Path) -> None:
    """A new batch size applies, a new mapping begins, a removed one goes; the others go on under the same leases."""
    servers = embedded_kafka.bootstrap_servers
    topics = {name: embedded_kafka.new_topic(2) for name in ("kept", "changed", "removed", "added")}
    mappings = {name: kafka_mapping(servers, topic, name=name, BatchSize=50) for name, topic in topics.items()}

    async def produced(*names: str) -> None:
        for name in names:
            await asyncio.to_thread(load, servers, keyed(topics[name], 2, 100, lambda n: b"%d" % n))

    with TargetProcess(tmp_path / "target.log") as target:
        document: dict[str, Any] = {"redis": {"url": redis_url}, "functions": url_target(target.url)}
        document["event_source_mappings"] = [mappings[name] for name in ("kept", "changed", "removed")]
        await produced("kept", "changed", "removed")
        async with running(tmp_path, document) as node:
            await target.reached(300)
            kept = (await node.mapping("kept"))["shards"]
            document["event_source_mappings"] = [
                mappings["kept"],
                {**mappings["changed"], "BatchSize": 7},
                mappings["added"],
            ]
            node.write(document)
            node.signal(signal.SIGHUP)
            done = await node.logged("reload.done")
            assert sorted(done["changes"]) == ["add added", "change changed", "remove removed"]

            async def gone() -> bool:
                return not await node.mapping("removed")

            await eventually(gone, "the removed mapping gone")
            await produced("kept", "changed", "removed", "added")
            await target.reached(600)
            for name in ("kept", "changed", "added"):

                async def enabled(name: str = name) -> bool:
                    return str((await node.mapping(name))["state"]) == "Enabled"

                await eventually(enabled, f"{name} enabled")
            assert [s["fencing_token"] for s in (await node.mapping("kept"))["shards"]] == [
                s["fencing_token"] for s in kept
            ]

            node.write("event_source_mappings: [{}]\n")
            node.signal(signal.SIGHUP)
            refused = await node.logged("reload.refused")
            assert str(node.config) in str(refused["problems"])
            assert {m["name"] for m in (await node.status())["mappings"]} == {"kept", "changed", "added"}
            assert await node.stop() == 0
    log = target.invoked()
    for name, count in (("kept", 200), ("changed", 200), ("removed", 100), ("added", 100)):
        mine = [invoked for invoked in log if invoked.mapping == name]
        assert check(mine, expected(topics[name], 2, count)).problems() == [], name
        assert check(mine, {}).duplicates == 0
    later = [i for i in log if i.mapping == "changed" and i.records[0].offset >= 50]
    assert {len(i.records) for i in later} == {7, 1}


# What it shows


async def test_a_running_node_shows_how_it_is(embedded_kafka: EmbeddedBroker, redis_url: str, tmp_path: Path) -> None:
    """Probes, metrics and status agree with what was delivered."""
    topic = embedded_kafka.new_topic(3)
    await asyncio.to_thread(load, embedded_kafka.bootstrap_servers, keyed(topic, 3, 300, lambda n: b"%d" % n))
    async with ScriptedServer(answer()) as server:
        document = kafka_document(
            embedded_kafka.bootstrap_servers, topic, redis_url=redis_url, functions=url_target(server.url)
        )
        async with running(tmp_path, document) as node:
            assert await node.get("/healthz") == (200, '{"status":"ok"}')
            assert await node.get("/readyz") == (200, '{"ready":true,"reasons":[]}')
            assert (await node.get("/nowhere"))[0] == 404
            await server.received(3)

            async def lag() -> set[int | None]:
                return {shard["lag_records"] for shard in (await node.mapping())["shards"]}

            async def done() -> bool:
                delivered: int = (await node.mapping())["ledger"]["delivered"]
                return delivered == 300 and await lag() == {0}

            await eventually(done, "everything delivered")
            status = await node.status()
            metrics = await node.metrics()
            (member,) = status["nodes"]
            (mapping,) = status["mappings"]
            assert status["node"] == member["id"]
            assert (member["shards"], mapping["state"], mapping["last_processing_result"]) == (3, "Enabled", "OK")
            assert owners(mapping) == {member["id"]: [f"{topic}-{number}" for number in range(3)]}
            labels = '{mapping="orders",source="kafka"}'
            assert metrics[f"esm_polled_event_count_total{labels}"] == mapping["ledger"]["polled"] == 300
            assert metrics[f"esm_invoked_event_count_total{labels}"] == 300
            assert metrics[f"esm_ledger_imbalance{labels}"] == 0
            assert await node.stop() == 0


async def test_no_secret_is_ever_shown(secure_kafka: KafkaProcess, own_redis: Any, tmp_path: Path) -> None:
    """Credentials of broker, Redis, function and API, right and wrong ones, appear in nothing printed or served."""
    security = secure_kafka.security
    broker_secret, wrong_secret = tmp_path / "broker.json", tmp_path / "wrong.json"
    broker_secret.write_text(json.dumps({"username": READER, "password": PASSWORDS[READER]}))
    wrong_secret.write_text(json.dumps({"username": READER, "password": f"{SECRET}-wrong"}))
    authority = tmp_path / "authority.json"
    authority.write_text(json.dumps({"certificate": security.authority_pem}))
    topic = "secrets"
    KafkaAdmin(secure_kafka.bootstrap_servers).create_topic(topic, 1)
    await asyncio.to_thread(load, secure_kafka.bootstrap_servers, keyed(topic, 1, 10, lambda n: b"%d" % n))
    with redis.Redis.from_url(own_redis.url) as client:
        client.config_set("requirepass", f"{SECRET}-redis")
    mappings = []
    for name, secret in (("orders", broker_secret), ("wrong", wrong_secret)):
        mapping = kafka_mapping(security.sasl_servers, topic, name=name)
        mapping["SourceAccessConfigurations"] = [
            {"Type": "SASL_SCRAM_512_AUTH", "URI": f"${{file:{secret}}}"},
            {"Type": "SERVER_ROOT_CA_CERTIFICATE", "URI": f"${{file:{authority}}}"},
        ]
        mapping["FunctionName"] = {"orders": "f", "wrong": "g"}[name]
        mappings.append(mapping)
    echo = answer(500, json.dumps({"errorMessage": f"{SECRET}-header was refused"}).encode())
    async with ScriptedServer() as server:
        server.then(echo)
        function = {"url": server.url, "headers": {"Authorization": "Bearer ${env:PLANTED_HEADER}"}}
        document = {
            "redis": {"url": f"redis://:{SECRET}-redis@127.0.0.1:{own_redis.port}/0"},
            "auth": {"tokens": ["${env:PLANTED_TOKEN}"]},
            "functions": {"f": function, "g": function},
            "event_source_mappings": mappings,
        }
        env = {"PLANTED_HEADER": f"{SECRET}-header", "PLANTED_TOKEN": f"{SECRET}-token"}
        token = {"Authorization": f"Bearer {SECRET}-token"}
        async with NodeProcess(tmp_path, document, env=env, arguments=[]) as node:
            await node.start(ready=False)
            await server.received(2)
            assert server.complete[0].headers["authorization"] == f"Bearer {SECRET}-header"
            assert (await node.get("/esmd/v1/status"))[0] == 401

            async def refused() -> bool:
                status = json.loads((await node.get("/esmd/v1/status", token))[1])
                return any("SASL" in m["last_processing_result"] for m in status["mappings"])

            await eventually(refused, "the wrong password refused")
            await node.logged("invoke.failed")
            served = [await node.get(path, token) for path in ("/esmd/v1/status", "/metrics", "/readyz", "/healthz")]
            served.append(await node.get("/nowhere", token))
            assert [code for code, _ in served][:2] == [200, 200]
            node.signal(signal.SIGHUP)
            await node.logged("reload.done")
            assert await node.stop() == 0
        shown = node.printed() + "".join(text for _, text in served)
    for planted in (SECRET, PASSWORDS[READER]):
        assert planted not in shown


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
async def test_a_node_without_mappings_runs_and_stops(redis_url: str, tmp_path: Path, sent: signal.Signals) -> None:
    """A node with nothing to do is ready, and either signal ends it with status 0."""
    async with running(tmp_path, {"redis": {"url": redis_url}}) as node:
        assert (await node.status())["mappings"] == []
        node.signal(sent)
        assert await node.ended() == 0
