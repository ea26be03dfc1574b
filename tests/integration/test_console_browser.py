"""The console in a real browser: a mapping's story by keyboard alone, signing in, many shards readable by all."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaProducer

from node.console_feed import Feed
from tests.support.console_page import H1, LEDGER, everything_has_a_name, legible
from tests.support.console_rig import BusyFleet, served
from tests.support.lambda_client import lambda_calls
from tests.support.mendable import Mendable
from tests.support.node_process import NodeProcess, kafka_document, url_target

if TYPE_CHECKING:
    from tests.support.chromium import Chromium, Page
    from tests.support.embedded_broker import EmbeddedBroker

pytestmark = pytest.mark.timeout(600)  # a machine of continuous integration may have to install the browser

SCRIPTS = Path(__file__).parents[1] / "support"
RULES = (SCRIPTS / "console_rules.js").read_text()


async def test_a_mappings_story_by_keyboard_alone(
    browser: Chromium, embedded_kafka: EmbeddedBroker, redis_url: str, tmp_path: Path
) -> None:
    """It appears, records flow, it fails and says why, is disabled after a confirmation, enabled, and read again."""
    servers, topic = embedded_kafka.bootstrap_servers, await asyncio.to_thread(embedded_kafka.new_topic, 2)
    source = {"SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": [servers]}}, "Topics": [topic]}
    target = Mendable()
    target.mend()
    async with target.serving():
        functions = {"f": {"url": target.url, "timeout": 20}}
        settings = {"redis": {"url": redis_url}, "leasing": {"ttl": 3}, "functions": functions}
        async with NodeProcess(tmp_path, settings) as node, AIOKafkaProducer(bootstrap_servers=servers) as producer:
            await node.start()
            async with browser.page(f"http://{node.address}/console") as page:
                await page.until(f"{H1} === 'Nothing to do yet'")
                assert (await node.metrics())["esm_console_followers"] == 1
                async with lambda_calls(f"http://{node.address}") as client:
                    made = await asyncio.to_thread(client.create_event_source_mapping, FunctionName="f", **source)
                await page.until("document.querySelector('.rows .state')?.textContent === 'Enabled'")
                assert topic in await page.evaluate("document.querySelector('.rows .name a').textContent")

                await page.tab_to("at.matches('.rows .name a')")
                await page.press("Enter")
                await page.until(f"{H1} !== 'Everything flows' && document.activeElement?.id === 'main'")
                for n in range(40):
                    await producer.send_and_wait(topic, str(n).encode(), partition=n % 2)
                await target.until(40)
                await page.until(f"{LEDGER}.delivered === '40'")
                assert (await page.evaluate(LEDGER))["read"] == "40"
                await page.until(
                    "document.querySelector('.plot [role=img]').getAttribute('aria-label').includes('at most')"
                )
                assert "invocation" in await page.until("document.querySelector('figure[role=img]')?.ariaLabel")

                target.breaks_on = lambda _values: True
                await producer.send_and_wait(topic, b"bad", partition=0)
                assert "broken" in await page.until("document.querySelector('.failures code')?.textContent")
                target.mend()
                await page.until(f"{LEDGER}.delivered === '41'")
                await page.until("document.querySelector('.failures span')?.textContent.endsWith('ago')")

                await _disable_and_enable(page)
                await _read_again(page)
                await target.until(82)
                assert page.complaints == []

                node.signal(signal.SIGTERM)  # open pages do not hold up a drain
                assert await node.ended() == 0
                await page.until("document.getElementById('live').textContent.includes('Reconnecting')")
            assert [line["change"] for line in node.find("mapping.changed", uuid=made["UUID"])][-2:] == ["change"] * 2


async def _disable_and_enable(page: Page) -> None:
    await page.tab_to("at.textContent === 'Disable…'")
    await page.press("Enter")
    await page.until("document.querySelector('dialog[open]') && document.activeElement?.textContent === 'Cancel'")
    await page.press("Escape")  # thinking better of it changes nothing, and leads back to the button
    await page.until("!document.querySelector('dialog[open]') && document.activeElement?.textContent === 'Disable…'")
    assert await page.evaluate("document.getElementById('state').textContent") == "Enabled"
    await page.press("Enter")
    await page.until("document.activeElement?.textContent === 'Cancel'")
    await page.press("Tab")
    assert await page.evaluate("document.activeElement?.textContent") == "Disable"
    await page.press("Enter")
    await page.until("document.getElementById('state').textContent === 'Disabled'")
    assert "Disabl" in await page.evaluate("document.querySelector('[role=status]').textContent")
    await page.tab_to("at.textContent === 'Enable…'")
    await page.press(" ")
    await page.until("document.activeElement?.textContent === 'Cancel'")
    await page.press("Tab")
    await page.press("Enter")
    await page.until("document.getElementById('state').textContent === 'Enabled'")


async def _read_again(page: Page) -> None:
    await page.evaluate("document.getElementById('act-seek').focus()")
    await page.press("Enter")
    await page.until("document.activeElement?.textContent === 'Cancel'")
    assert await page.evaluate("new FormData(document.querySelector('dialog form')).get('to')") == "trim_horizon"
    await page.press("Tab")
    await page.press("Enter")
    await page.until("document.querySelector('[role=status]').textContent.includes('2 shards moved')")


async def test_parked_keys_are_seen_and_tried_again(
    browser: Chromium, embedded_kafka: EmbeddedBroker, redis_url: str, tmp_path: Path
) -> None:
    """A key that fails is listed with its error; trying it says what came of it; once it works it leaves the list."""
    servers, topic = embedded_kafka.bootstrap_servers, await asyncio.to_thread(embedded_kafka.new_topic, 1)
    target = Mendable()
    async with target.serving():
        parks: dict[str, Any] = {"extensions": {"park_failing_keys": True, "park_after": 1}}
        settings = kafka_document(servers, topic, redis_url=redis_url, functions=url_target(target.url), **parks)
        async with NodeProcess(tmp_path, settings) as node, AIOKafkaProducer(bootstrap_servers=servers) as producer:
            await node.start()
            await producer.send_and_wait(topic, b"bad", key=b"customer-7")
            async with browser.page(f"http://{node.address}/console#/orders") as page:
                cells = "document.querySelectorAll('section[aria-labelledby=parked-title] td')"
                row = f"[...{cells}].map((one) => one.innerText)"
                await page.until(f"{row}.length === 6")
                assert (await page.evaluate(row))[2] == "1"
                assert "broken" in (await page.evaluate(row))[5]
                await page.until("document.getElementById('act-unpark')")
                await page.evaluate("document.getElementById('act-unpark').click()")
                await page.until("document.activeElement?.textContent === 'Cancel'")
                await page.press("Tab")
                await page.press("Enter")
                said = "0 records delivered again, 1 failed again"
                await page.until(f"document.querySelector('[role=status]').textContent.includes('{said}')")
                target.mend()
                await page.until(f"{row}.length === 0 && {LEDGER}.parked === '0'")
                assert page.complaints == []


async def test_signing_in_and_out(browser: Chromium) -> None:
    """The page asks for a token, says when it is wrong, keeps it for the tab without a cookie, and forgets it."""
    feed = Feed(BusyFleet(3).read, every_s=0.05)
    async with served(feed, "right", read_only="reads") as address, browser.page(f"http://{address}/console") as page:
        for token in ("wrong", "right"):
            await page.until("document.activeElement?.id === 'token'")
            await page.type(token)
            await page.press("Enter")
            if token == "wrong":
                await page.until("document.querySelector('[role=alert]')?.textContent.includes('does not know')")
        await page.until("document.querySelectorAll('.rows tbody tr').length === 3")
        assert await page.evaluate("document.cookie") == ""
        await page.evaluate("location.reload()")
        await page.until("document.querySelectorAll('.rows tbody tr').length === 3")
        await page.tab_to("at.textContent === 'Sign out'")
        await page.press("Enter")
        await page.until("document.activeElement?.id === 'token'")
        assert await page.evaluate("sessionStorage.length") == 0
        await page.type("reads")
        await page.press("Enter")
        await page.until("document.querySelectorAll('.rows tbody tr').length === 3")
        await page.evaluate("location.hash = '#/orders'")
        await page.until(f"{H1} === 'orders' && document.querySelector('.head').textContent.includes('Read only')")
        assert await page.evaluate("document.querySelector('.actions')") is None


async def test_four_hundred_shards_are_readable_by_all(browser: Chromium) -> None:
    """Names, roles and contrast in light and dark; cells by arrow keys, or a table; nothing wider than a telephone."""
    feed = Feed(BusyFleet(400).read, every_s=0.05)
    async with served(feed) as address, browser.page(f"http://{address}/console") as page:
        await page.until(f"{H1} === 'clicks needs attention'")
        for view in ("#/", "#/orders", "#/clicks"):
            await page.evaluate(f"location.hash = '{view}'")
            await page.until(f"{H1} === '{'clicks needs attention' if view == '#/' else view[2:]}'")
            for width in (1280, 420):
                await legible(page, width=width)
            await everything_has_a_name(page)
            assert await page.evaluate("document.querySelector('main img')") is None  # a function's words are no markup
            if view == "#/orders":
                assert "<img src=x>" in await page.evaluate("document.querySelector('main').innerText")
        await page.show()
        assert await page.evaluate("document.querySelectorAll('.cells .cell').length") == 400
        await page.tab_to("at.role === 'listbox'")
        await page.press("End")
        await page.press("ArrowRight")
        chosen = "document.querySelector('.chosen strong')?.textContent"
        await page.until(f"{chosen} === 'shardId-000000000399'")
        active = "document.getElementById(document.activeElement?.getAttribute('aria-activedescendant')).ariaLabel"
        assert (await page.evaluate(active)).startswith("shardId-000000000399, reading, lag 1,197")
        await page.evaluate("document.querySelector('input[type=search]').focus()")
        await page.type("0000011")
        await page.until("document.querySelectorAll('.cells .cell').length === 11")
        assert await page.evaluate("document.activeElement?.type") == "search"
        await page.tab_to("at.textContent === 'Show as table'")
        await page.press("Enter")
        await page.until("document.querySelectorAll('.scroll tbody th').length === 11")
        assert page.complaints == []


async def test_what_the_page_works_out(browser: Chromium) -> None:
    """Rates over seconds, quantiles within buckets, durations in words, and events that arrive in pieces."""
    async with served(Feed(BusyFleet(3).read)) as address, browser.page(f"http://{address}/console") as page:
        await page.until(H1)
        assert await page.evaluate(RULES) == {
            "rising": 10,
            "lasting": [False, True, False],
            "back": 0,
            "samples": 5,
            "lag": None,
            "half": 1.5,
            "beyond": None,
            "none": None,
            "spans": ["0 s", "4.0 ms", "0.3 s", "12 s", "1 min", "1 min 15 s", "2 h", "1 d 1 h"],
            "shorts": ["9,999", "12.3k", "3.4M"],
            "rates": ["0", "0.3", "12"],
            "tops": [1, 7.5, 150, 0.03],
            "told": [["view", {"a": 1}], ["bye", {}]],
        }
