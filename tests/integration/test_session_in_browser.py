"""A session with other people's tools alone, watched and steered in a real browser. No command of ours.

The AWS CLI makes queues, a stream and mappings on a node's embedded servers, which asks everybody who he is; records
come from it and from a Kafka client; Prometheus's parser scrapes; and the console shows the same, live.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from node.embedded_redis import EmbeddedRedis
from tests.support.aws_cli import AwsCli
from tests.support.console_page import (
    FLOW,
    H1,
    LEDGER,
    SAID,
    STATE,
    confirm,
    everything_has_a_name,
    legible,
    sign_in,
    stops,
    tree,
)
from tests.support.node_process import NodeProcess, eventually
from tests.support.session_function import SessionFunction, produce, samples

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.chromium import Chromium, Page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

QUEUE = "arn:aws:sqs:us-east-1:000000000000:session"
FAILED = "arn:aws:sqs:us-east-1:000000000000:failed"
STREAM = "arn:aws:kinesis:us-east-1:000000000000:stream/session"
ORDERS = {"Filters": [{"Pattern": json.dumps({"data": {"kind": ["order"]}})}]}
SCRAPER = {"Authorization": "Bearer looks"}
ROWS = "[...document.querySelectorAll('.rows tbody tr')].map((row) => row.querySelector('.name a').textContent).sort()"
ENABLED = "document.querySelectorAll('.rows .pill.good').length"
AGREES = {
    "read": "esm_polled_event_count_total",
    "filtered": "esm_filtered_out_event_count_total",
    "to the failure destination": "esm_on_failure_destination_delivered_event_count_total",
    "dropped": "esm_dropped_event_count_total",
    "parked": "esm_parked_event_count",
}
"""Rows of the ledger, and the metrics that tell the same."""


class Session(NamedTuple):
    """Who takes part."""

    node: NodeProcess
    function: SessionFunction
    aws: AwsCli
    page: Page
    browser: Chromium
    kafka: str


@asynccontextmanager
async def begun(folder: Path, browser: Chromium) -> AsyncIterator[Session]:
    """Run a node without any mapping, and look at it: as somebody who may change things."""
    function = SessionFunction()
    with EmbeddedRedis(port=0) as redis:
        async with function.server as server:
            document = {
                "redis": {"url": redis.url},
                "leasing": {"ttl": 3},
                "auth": {"tokens": ["acts"], "read_only_tokens": ["looks"], "access_keys": {"test": "test"}},
                "functions": {"seen": {"url": server.url, "timeout": 60}},
                "embedded": {"aws": {}, "kafka": {"topics": {"session": 2}}},
            }
            async with NodeProcess(folder, document) as node:
                await node.start()
                local_aws = (await node.logged("embedded.aws"))["endpoint_url"]
                kafka = (await node.logged("embedded.kafka"))["servers"]
                aws = AwsCli(folder, {"sqs": local_aws, "kinesis": local_aws, "lambda": f"http://{node.address}"})
                async with browser.page(f"http://{node.address}/console") as page:
                    await sign_in(page, "acts")
                    await page.until(f"{H1} === 'Nothing to do yet'")
                    page.complaints.clear()  # that it was refused before
                    await page.evaluate("window.opened = 'once'")  # a page that is loaded again forgets it
                    yield Session(node, function, aws, page, browser, kafka)
                    assert await page.evaluate("window.opened") == "once"
                    assert page.complaints == []
                assert await node.stop() == 0


async def test_what_the_command_line_does_is_seen_and_steered_in_the_console(tmp_path: Path, browser: Chromium) -> None:
    """Mappings appear, records are counted, failures redriven, positions moved, states walked, and all vanish again."""
    async with begun(tmp_path, browser) as session:
        uuids = await _made(session)
        await _records_flow(session, uuids["stream"])
        await _failures_are_redriven(session)
        await _the_position_is_moved(session)
        await _states_are_walked(session, uuids["stream"])
        await _others_look_and_cannot_touch(session, uuids)
        await _deleted(session, list(uuids.values()))


async def _made(session: Session) -> dict[str, str]:
    """Make three mappings; the page shows them without being loaded again."""
    aws, page = session.aws, session.page
    for queue in ("session", "failed"):
        await aws("sqs", "create-queue", "--queue-name", queue)
    await aws("kinesis", "create-stream", "--stream-name", "session", "--shard-count", "2")
    make = ("lambda", "create-event-source-mapping", "--function-name", "seen")
    begin = ("--starting-position", "TRIM_HORIZON")
    failing = ("--maximum-retry-attempts", "0", "--destination-config", json.dumps(_on_failure(FAILED)))
    endpoints = json.dumps({"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": [session.kafka]}})
    made = {
        "queue": await aws(*make, "--event-source-arn", QUEUE),
        "stream": await aws(
            *make, "--event-source-arn", STREAM, *begin, *failing, "--filter-criteria", json.dumps(ORDERS)
        ),
        "topic": await aws(*make, "--self-managed-event-source", endpoints, "--topics", "session", *begin),
    }
    await page.until(f"{ROWS}.length === 3 && {ENABLED} === 3")
    assert await page.evaluate(ROWS) == ["session → seen"] * 3  # names that nobody gave are made of what is joined
    assert await page.until(f"{H1} === 'Everything flows'")
    await legible(page)
    await legible(page, width=420)
    return {kind: one["UUID"] for kind, one in made.items()}


def _on_failure(arn: str) -> dict[str, Any]:
    return {"OnFailure": {"Destination": arn}}


async def _records_flow(session: Session, stream: str) -> None:
    """Send records to all sources; the stream's page tells of its flow what the metrics tell."""
    aws, page, function = session.aws, session.page, session.function
    url = (await aws("sqs", "get-queue-url", "--queue-name", "session"))["QueueUrl"]
    await aws("sqs", "send-message", "--queue-url", url, "--message-body", "from the queue")
    await asyncio.to_thread(produce, session.kafka, "session", *(b"from the topic %d" % n for n in range(5)))
    await _put(session, *({"kind": "order", "n": n} for n in range(6)), *({"kind": "noise", "n": n} for n in range(4)))
    await eventually(lambda: len(function.seen) == 12, lambda: f"{function.seen}\n{session.node.tail()}")
    await page.tab_to(f"at.hash === '#/{stream}'")
    await page.press("Enter")
    await page.until(f"{H1} === 'session → seen' && {STATE} === 'Enabled'")
    await page.until(f"{LEDGER}.delivered === '6'")
    await _ledger_agrees(session, stream)
    flow = await page.until(f"document.querySelector('.flow') && {FLOW}")
    assert [stage[:2] for stage in flow] == [
        ["Source", "session"],
        ["Filter", "1 pattern"],
        ["Batch", "up to 100"],
        ["Function", "seen"],
        ["Outcome", "6 delivered"],
    ]
    assert "Kinesis stream, 2 shards" in flow[0]
    assert flow[0][-1].startswith("10 read, ")
    assert flow[1][-1].startswith("4 filtered out, ")
    roles = await everything_has_a_name(page)
    buttons = [name for role, name in roles if role == "button"]
    assert [name for name in buttons if name.endswith("…")] == ["Redrive…", "Move…", "Disable…"]
    assert await stops(page) == [
        "Skip to content",
        "esmd console, overview",
        "Overview",
        "Sign out",
        "Redrive…",
        "Move…",
        "Disable…",
        "Shards",
    ]
    await legible(page)
    await legible(page, width=420)


async def _ledger_agrees(session: Session, uuid: str) -> None:
    async def same() -> bool:
        ledger = await session.page.evaluate(LEDGER)
        told = {
            row: (await samples(session.node, metric, "mapping", headers=SCRAPER)).get(uuid, 0.0)
            for row, metric in AGREES.items()
        }
        shown = {row: float(ledger[row].replace(",", "")) for row in AGREES}
        return shown == told and float(ledger["in flight"]) == 0

    await eventually(same, lambda: f"the console's ledger says what the metrics say\n{session.node.tail()}")


async def _put(session: Session, *records: dict[str, object]) -> None:
    entries = [{"Data": json.dumps(one), "PartitionKey": str(n)} for n, one in enumerate(records)]
    await session.aws("kinesis", "put-records", "--stream-name", "session", "--records", json.dumps(entries))


async def _failures_are_redriven(session: Session) -> None:
    """Have a record fail: it goes to the destination, and from there to the function once that is mended."""
    page, function = session.page, session.function
    function.breaks_on = lambda text: '"bad"' in text
    await _put(session, {"kind": "order", "n": "bad"})
    await page.until(f"{LEDGER}['to the failure destination'] === '1'")
    assert "1 to the failure destination" in (await page.evaluate(FLOW))[-1]
    assert "no such order" in await page.until("document.querySelector('.failures code')?.textContent")
    function.breaks_on = lambda _text: False
    before = len(function.seen)
    await confirm(page, "Redrive…", "Redrive")
    await page.until(f"{SAID}.includes('1 record delivered again')")
    assert [json.loads(text)["n"] for text in function.seen[before:]] == ["bad"]
    await page.until("document.activeElement?.textContent === 'Redrive…'")  # back where one came from


async def _the_position_is_moved(session: Session) -> None:
    """Move to the beginning: orders come once more, those that failed too."""
    page, function = session.page, session.function
    before = len(function.seen)
    await page.evaluate("document.getElementById('act-seek').focus()")
    await page.press("Enter")
    await page.until("document.activeElement?.textContent === 'Cancel'")
    shown = await tree(page)
    assert ("dialog", "Move the position of session → seen?") in shown
    assert {("combobox", "Read on from"), ("checkbox", "Also if unread records are passed over")} <= set(shown)
    assert ("button", "Disable…") not in shown  # what is behind a dialog is out of reach
    assert await page.evaluate("document.querySelector('.when').checkVisibility()") is False
    await page.evaluate("document.querySelector('dialog select').focus()")
    await page.press("ArrowDown")
    await page.until("document.querySelector('dialog select').value === 'time'")
    assert await page.evaluate("document.querySelector('.when').checkVisibility()") is True
    await legible(page, width=420)
    await page.press("ArrowUp")
    await page.until("document.querySelector('dialog select').value === 'trim_horizon'")
    await page.tab_to("at.textContent === 'Move'")
    await page.press("Enter")
    await page.until(f"{SAID}.includes('session → seen: 2 shards moved')")
    await eventually(lambda: len(function.seen) == before + 7, lambda: f"{function.seen}\n{session.node.tail()}")


async def _states_are_walked(session: Session, stream: str) -> None:
    """Disable and enable by keyboard; the command line sees the way there, while the function still has something."""
    page, function = session.page, session.function
    function.open.clear()
    await _put(session, {"kind": "order", "n": "held"})
    await eventually(lambda: function.waiting == 1, lambda: f"the function has a record\n{session.node.tail()}")
    await confirm(page, "Disable…", "Disable")
    await page.until(f"{SAID}.includes('session → seen is Disabling')")
    await page.until(f"{STATE} === 'Disabling'")
    assert await _state(session, stream) == "Disabling"
    function.open.set()
    await page.until(f"{STATE} === 'Disabled'")
    assert await _state(session, stream) == "Disabled"
    await _put(session, {"kind": "order", "n": "kept"})
    await confirm(page, "Enable…", "Enable")
    await page.until(f"{STATE} === 'Enabled'")
    assert await _state(session, stream) == "Enabled"
    await eventually(lambda: '"kept"' in function.seen[-1], lambda: f"{function.seen}\n{session.node.tail()}")


async def _state(session: Session, uuid: str) -> str:
    return str((await session.aws("lambda", "get-event-source-mapping", "--uuid", uuid))["State"])


async def _others_look_and_cannot_touch(session: Session, uuids: dict[str, str]) -> None:
    """Look with a token that only reads: nothing is offered, and refused if somebody tries."""
    async with session.browser.page(f"http://{session.node.address}/console#/{uuids['queue']}") as page:
        await sign_in(page, "looks")
        await page.until(f"{STATE} === 'Enabled' && document.querySelector('.head').textContent.includes('Read only')")
        roles = await everything_has_a_name(page)
        assert [name for role, name in roles if role == "button"] == ["Sign out"]
        path = f"/2015-03-31/event-source-mappings/{uuids['queue']}"
        status = await page.evaluate(
            f"""fetch('{path}', {{method: 'PUT', body: '{{"Enabled": false}}', headers: {{
              'Content-Type': 'application/json', Authorization: 'Bearer looks'}}}}).then((answer) => answer.status)"""
        )
        assert status == 403
        assert await page.evaluate(STATE) == "Enabled"


async def _deleted(session: Session, uuids: list[str]) -> None:
    """Delete all: told aloud, gone from the page that was open, from the overview and the metrics."""
    page = session.page
    for uuid in uuids:
        assert (await session.aws("lambda", "delete-event-source-mapping", "--uuid", uuid))["State"] == "Deleting"
    await page.until(f"{H1}.startsWith('No mapping ')")
    await page.until(f"{SAID}.includes('session → seen: deleted')")
    await page.tab_to("at.textContent === 'Back to the overview'")
    await page.press("Enter")
    await page.until(f"{H1} === 'Nothing to do yet'")
    held = await samples(session.node, "esm_leases_held", "mapping", headers=SCRAPER)
    assert [uuid for uuid in uuids if held.get(uuid)] == []
