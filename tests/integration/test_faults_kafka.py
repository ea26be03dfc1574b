"""Real nodes on Apache Kafka while Redis, the broker or the function misbehaves: nothing is lost, and work goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import redis

from tests.support.figures import measured
from tests.support.history import OK, Invoked, check
from tests.support.kafka_fleet import BATCH, PARTITIONS, RECORDS, TRUST_S, TTL_S, working_fleet
from tests.support.kafka_load import expected, keyed, load
from tests.support.node_process import NodeProcess, eventually, kafka_document, kafka_mapping, url_target
from tests.support.scripted_http import Behaviour, Received, ScriptedServer, answer, free_port, hang, reset, say
from tests.support.target_process import TargetProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from node.embedded_redis import EmbeddedRedis
    from tests.support.kafka import KafkaProcess
    from tests.support.kafka_admin import KafkaAdmin
    from tests.support.kafka_fleet import Fleet


@pytest.fixture
async def fleet(real_kafka: KafkaAdmin, own_redis: EmbeddedRedis, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Run two nodes that have delivered some of a backlog, under way with the rest."""
    async with working_fleet(real_kafka, own_redis.url, tmp_path) as fleet:
        yield fleet


def invoked_between(log: Sequence[Invoked], begin: float, end: float) -> list[Invoked]:
    """Return the invocations that began in a span of time."""
    return [invoked for invoked in log if begin < invoked.started < end]


@pytest.mark.slow
@pytest.mark.parametrize("away_s", [8, 30])
async def test_redis_that_hangs_stops_the_work_in_time(fleet: Fleet, own_redis: EmbeddedRedis, away_s: int) -> None:
    """No function is called once a lease may have expired; when Redis is back, work goes on where it was."""
    assert own_redis.pid is not None
    os.kill(own_redis.pid, signal.SIGSTOP)
    stopped_at = time.time()
    try:
        for node in fleet.nodes:
            await node.logged("member.lost", reason="term_ended")
        await asyncio.sleep(max(0.0, stopped_at + away_s - time.time()))  # the span that matters is Redis' silence
        back_at = time.time()
    finally:
        os.kill(own_redis.pid, signal.SIGCONT)
    verdict = await fleet.finished()
    log = fleet.target.invoked()
    assert invoked_between(log, stopped_at, stopped_at + TRUST_S), "work went on under trusted leases"
    assert invoked_between(log, stopped_at + TTL_S, back_at) == []
    assert verdict.duplicates <= 2 * BATCH * PARTITIONS
    last_s = max(i.started for i in log if i.started < back_at) - stopped_at
    first_s = min(i.started for i in log if i.started > back_at) - back_at
    measured(last_call_s=round(last_s, 2), first_call_s=round(first_s, 2), duplicates=verdict.duplicates)


@pytest.mark.slow
async def test_redis_that_crashes_and_comes_back_costs_nothing(fleet: Fleet, own_redis: EmbeddedRedis) -> None:
    """A Redis that was killed and finds all but its last second again loses no record and no order."""
    own_redis.kill()
    for node in fleet.nodes:
        await node.logged("member.lost", reason="term_ended")
    own_redis.start()
    await fleet.finished()


@pytest.mark.slow
async def test_an_emptied_redis_loses_nothing(fleet: Fleet, own_redis: EmbeddedRedis) -> None:
    """FLUSHALL under way: the nodes publish mappings and positions again, tokens go on rising, no record is lost."""
    with redis.Redis.from_url(own_redis.url) as client:
        client.flushall()
    for node in fleet.nodes:
        await node.logged("store.replaced")
    verdict = await fleet.finished()
    assert verdict.duplicates <= 2 * BATCH * PARTITIONS
    mapping = await fleet.nodes[1].mapping()
    assert mapping["state"] == "Enabled"
    checkpoints = {shard["id"]: shard["checkpoint"] for shard in mapping["shards"]}
    assert checkpoints == {f"{fleet.topic}-{number}": str(RECORDS // PARTITIONS) for number in range(PARTITIONS)}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "shut_down"])
async def test_a_broker_that_restarts_costs_nothing(fleet: Fleet, kafka_process: KafkaProcess, how: str) -> None:
    """A broker that crashes, or is restarted in order, is waited for; what comes after is delivered, nothing twice."""
    await fleet.target.reached(RECORDS)
    await asyncio.to_thread(getattr(kafka_process, how))
    try:
        for node in fleet.nodes:
            await eventually(partial(_troubled, node), "a node that shows its trouble")
    finally:
        await asyncio.to_thread(kafka_process.start)
    more = keyed(fleet.topic, PARTITIONS, RECORDS, lambda n: b"%d" % n)
    await asyncio.to_thread(load, kafka_process.bootstrap_servers, more)
    verdict = await fleet.finished(2 * RECORDS)
    assert verdict.duplicates == 0
    for node in fleet.nodes:
        assert not node.find("member.lost")
        await node.ready()

    async def recovered() -> bool:
        shards = (await fleet.nodes[0].mapping())["shards"]
        return {(shard["state"], shard["last_error"], shard["lag_records"]) for shard in shards} == {
            ("reading", None, 0)
        }

    await eventually(recovered, "shards that read again and say so")


async def _troubled(node: NodeProcess) -> bool:
    shards = (await node.mapping())["shards"]
    return {shard["state"] for shard in shards} == {"waiting"} and all(shard["last_error"] for shard in shards)


# Functions that misbehave


@dataclass
class Case:
    """What a function does to a batch, and what must come of it."""

    name: str
    script: Sequence[Behaviour]  # then it answers 200
    attempts: int = 0  # MaximumRetryAttempts
    calls: int = 2
    dropped: bool = False
    failed: int = 0  # invocations that count as failed
    throttles: int = 0
    timeout: float = 30
    pause_s: float = 0  # at least so long between the first two calls


_ERROR_DOCUMENT = b'{"errorType":"ValueError","errorMessage":"planted"}'
_FUNCTION_ERROR = answer(200, _ERROR_DOCUMENT, headers={"X-Amz-Function-Error": "Unhandled"})
_NOT_NOW = answer(429, b'{"Reason":"ConcurrentInvocationLimitExceeded"}', headers={"Retry-After": "1"})

CASES = [
    Case("hangs-for-good", [hang(), hang()], attempts=1, dropped=True, failed=2, timeout=0.5),
    Case("hangs-once", [hang()], attempts=1, failed=1, timeout=0.5),
    Case("resets-for-good", [reset()], calls=1, dropped=True, failed=1),
    Case("resets-twice", [reset(), reset()], attempts=2, calls=3, failed=2),
    Case("garbage-for-good", [say(b"\x00\xffnot HTTP\r\n\r\n")] * 2, attempts=1, dropped=True, failed=2),
    Case("garbage-once", [say(b"\x00\xffnot HTTP\r\n\r\n")], attempts=1, failed=1),
    Case("half-an-answer", [say(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}")], attempts=1, failed=1),
    Case("throttles", [_NOT_NOW], throttles=1, pause_s=1),
    Case("throttles-often", [answer(429)] * 4, calls=5, throttles=4),
    Case("unavailable", [answer(503), answer(502), answer(504)], calls=4),
    Case("fails-for-good", [answer(500)] * 3, attempts=2, calls=3, dropped=True, failed=3),
    Case("fails-once", [answer(500)], attempts=1, failed=1),
    Case("bad-request", [answer(400)], calls=1, dropped=True, failed=1),
    Case("function-error", [_FUNCTION_ERROR] * 2, attempts=1, dropped=True, failed=2),
    Case("throttles-then-fails", [answer(429), answer(500), answer(429)], attempts=1, calls=4, failed=1, throttles=2),
]


async def test_functions_that_misbehave(real_kafka: KafkaAdmin, redis_url: str, tmp_path: Path) -> None:
    """Each misbehaviour consumes retries, or not, as specified; what is given up is dropped and counted."""
    topic, count = real_kafka.new_topic(1), 10
    await asyncio.to_thread(load, real_kafka.bootstrap_servers, keyed(topic, 1, count, lambda n: b"%d" % n))
    servers = {case.name: ScriptedServer(answer(headers={"X-Odd": "yes"})) for case in CASES}
    async with asyncio.timeout(90), contextlib.AsyncExitStack() as running:
        for server in servers.values():
            await running.enter_async_context(server)
        functions: dict[str, Any] = {}
        mappings = []
        for case in CASES:
            servers[case.name].then(*case.script)
            functions |= {case.name: {"url": servers[case.name].url, "timeout": case.timeout}}
            mapping = kafka_mapping(real_kafka.bootstrap_servers, topic, name=case.name)
            mappings.append({**mapping, "FunctionName": case.name, "MaximumRetryAttempts": case.attempts})
        document = {"redis": {"url": redis_url}, "functions": functions, "event_source_mappings": mappings}
        async with NodeProcess(tmp_path, document) as node:
            await node.start()

            async def settled() -> bool:
                ledgers = [mapping["ledger"] for mapping in (await node.status())["mappings"]]
                return all(ledger["delivered"] + ledger["dropped"] == count for ledger in ledgers)

            await eventually(settled, "every batch delivered or dropped")
            status = {mapping["name"]: mapping for mapping in (await node.status())["mappings"]}
            metrics = await node.metrics()
            assert await node.stop() == 0
        for case in CASES:
            calls = servers[case.name].complete
            ledger = status[case.name]["ledger"]
            labels = f'{{mapping="{case.name}",source="kafka"}}'
            assert (case.name, len(calls)) == (case.name, case.calls)
            assert (case.name, ledger["dropped"], ledger["delivered"], ledger["balanced"]) == (
                case.name,
                count * case.dropped,
                count * (not case.dropped),
                True,
            )
            assert metrics[f"esm_failed_invoke_event_count_total{labels}"] == count * case.failed, case.name
            assert metrics[f"esm_throttles_total{labels}"] == case.throttles, case.name
            assert metrics[f"esm_dropped_event_count_total{labels}"] == count * case.dropped, case.name
            assert metrics[f"esm_invoked_event_count_total{labels}"] == count * case.calls, case.name
            dropped = node.find("records.dropped", mapping=case.name)
            assert [(d["condition"], d["records"]) for d in dropped] == [
                ("RetryAttemptsExhausted", count)
            ] * case.dropped
            _same_batch(case, calls)


def _same_batch(case: Case, calls: Sequence[Received]) -> None:
    """Hold all attempts at a batch against each other: the same event and id, a rising attempt."""
    assert len({call.body for call in calls}) == 1, case.name
    assert len({call.headers["x-esmd-batch-id"] for call in calls}) == 1, case.name
    assert [call.headers["x-esmd-attempt"] for call in calls] == [str(n + 1) for n in range(len(calls))], case.name


async def test_a_function_that_is_not_there_is_waited_for(
    real_kafka: KafkaAdmin, redis_url: str, tmp_path: Path
) -> None:
    """Refused connections consume no retries, also with none allowed, and open the circuit, which closes by itself."""
    topic, port = real_kafka.new_topic(2), free_port()
    await asyncio.to_thread(load, real_kafka.bootstrap_servers, keyed(topic, 2, 100, lambda n: b"%d" % n))
    document = kafka_document(
        real_kafka.bootstrap_servers,
        topic,
        redis_url=redis_url,
        functions=url_target(f"http://127.0.0.1:{port}"),
        MaximumRetryAttempts=0,
    )
    target = TargetProcess(tmp_path / "target.log")
    async with NodeProcess(tmp_path, document) as node:
        await node.start()

        async def waiting() -> bool:
            mapping = await node.mapping()
            return {shard["state"] for shard in mapping["shards"]} == {"waiting"} and "connection refused" in (
                mapping["last_processing_result"]
            )

        async def opened() -> bool:
            circuit = (await node.mapping())["circuit"]
            return circuit["state"] in ("open", "half_open") and circuit["last_error"] == "connection refused"

        await eventually(waiting, "shards that wait for the function")
        await eventually(opened, "the circuit")
        labels = 'mapping="orders",source="kafka"'
        assert (await node.metrics())[f"esm_circuit_state{{{labels}}}"] > 0
        target.start(port)
        try:
            await target.reached(100)
        finally:
            target.stop()
        mapping = await node.mapping()
        assert mapping["last_processing_result"] == "OK"
        assert (mapping["circuit"]["state"], mapping["circuit"]["last_error"]) == ("closed", None)
        assert (mapping["ledger"]["delivered"], mapping["ledger"]["dropped"]) == (100, 0)
        metrics = await node.metrics()
        assert metrics[f"esm_circuit_state{{{labels}}}"] == 0
        assert metrics[f'esm_circuit_transitions_total{{{labels},to="closed"}}'] == 1
        assert (len(node.find("circuit.opened")), len(node.find("circuit.closed"))) == (1, 1)
        assert await node.stop() == 0
    assert check(target.invoked(), expected(topic, 2, 100)).problems() == []
    assert {invoked.outcome for invoked in target.invoked()} == {OK}
