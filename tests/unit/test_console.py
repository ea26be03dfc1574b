"""The console's server side: the page's files and their headers, the stream and its bounds, who may have what."""

from __future__ import annotations

import asyncio
import re
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
import pytest
from yarl import URL

from controlplane.flows import flow_of
from model.errors import StoreUnavailableError
from model.mapping_rules import parse_mapping
from node import console_api
from node.console_api import page_files
from node.console_feed import Feed, TooManyFollowersError, pause_s, work_of
from pollers.counters import Meters
from tests.support.console_rig import BusyFleet, Fleet
from tests.support.console_rig import served as rig_served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import web

SELF = re.compile(r'\b(?:src|href)="(?P<link>[^"]*)"|from "\./(?P<module>[^"]+)"')


@asynccontextmanager
async def served(feed: Feed, *tokens: str) -> AsyncIterator[aiohttp.ClientSession]:
    """Serve the console; yield a client."""
    async with rig_served(feed, *tokens) as address, aiohttp.ClientSession(f"http://{address}") as client:
        yield client


@pytest.fixture
def fleet() -> Fleet:
    """Return a fleet without mappings."""
    return Fleet()


@pytest.fixture
def feed(fleet: Fleet) -> Feed:
    """Return its feed, faster than on a node."""
    return Feed(fleet.read, every_s=0.01, max_followers=3)


async def begun(answer: aiohttp.ClientResponse) -> bool:
    """Read what a stream begins with: whether its client may change anything."""
    kind, data = await event_of(answer)
    assert (kind, list(data)) == ("you", ["may_change"])
    return bool(data["may_change"])


async def event_of(answer: aiohttp.ClientResponse) -> tuple[str, Any]:
    """Read the next event of a stream."""
    kind = (await answer.content.readline()).decode().removeprefix("event: ").rstrip("\n")
    data = (await answer.content.readuntil(b"\n")).removeprefix(b"data: ")
    assert await answer.content.readline() == b"\n"
    return kind, msgspec.json.decode(data)


@pytest.mark.parametrize("path", sorted(page_files()))
async def test_every_file_comes_with_a_strict_policy(feed: Feed, path: str) -> None:
    """Only the node's own code runs, nothing is framed or loaded by other sites, and the type is told."""
    async with served(feed) as client, client.get(path) as answer:
        assert answer.status == 200
        policy = dict(one.split(" ", 1) for one in answer.headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
        assert {name: value for name, value in policy.items() if value not in {"'none'", "'self'"}} == {
            "require-trusted-types-for": "'script'"
        }
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "Set-Cookie" not in answer.headers
        kinds = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
        assert answer.content_type == kinds.get(path.rpartition(".")[2], "text/html")


@pytest.mark.parametrize("path", sorted(page_files()))
def test_the_page_asks_nothing_of_other_hosts_and_has_no_inline_code(path: str) -> None:
    """Every link leads to a file that is served; there is no inline script, style or handler, and no address."""
    text = page_files()[path].read_text()
    assert [one for one in re.findall(r"https?://[^\s\"']+", text) if "w3.org" not in one] == []
    assert "innerHTML" not in text.replace("outerHTML", "")
    for found in SELF.finditer(text):
        link = found["link"]
        target = f"/console/{found['module']}" if link is None else link
        assert target.startswith("#") or target in page_files(), target
    if path.endswith(("console", "/")):
        assert re.search(r"<script>|<style|\sstyle=|\son[a-z]+=", text) is None
        assert '<html lang="en">' in text


@pytest.mark.parametrize("path", ["/console/../console_api.py", "/console/%2e%2e/guard.py", "/console/nope.js"])
async def test_nothing_else_is_served(feed: Feed, path: str) -> None:
    """The rest of the file system is out of reach."""
    async with served(feed) as client, client.get(URL(path, encoded=True)) as answer:
        assert answer.status == 404


async def test_a_client_gets_the_present_document_and_those_that_follow(fleet: Fleet, feed: Feed) -> None:
    """Each newer than the last, as server-sent events."""
    async with served(feed) as client, client.get("/esmd/v1/events") as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        assert await begun(answer)
        (one, first), (other, second) = await event_of(answer), await event_of(answer)
        assert one == other == "view"
        assert second["at_ms"] > first["at_ms"]
        nothing_waits = {"events": 0, "bytes": 0, "oldest_age_s": None}
        assert first["status"] == {"node": "ann-1", "nodes": [], "mappings": [], "async_invoke": nothing_waits}


@pytest.mark.looptime
async def test_nobody_looks_and_nothing_is_read(fleet: Fleet) -> None:
    """The store is asked while somebody looks, once a second for all of them."""
    feed = Feed(fleet.read)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(feed.run())
        await asyncio.sleep(60)
        assert fleet.readings == 0
        with feed.following(), feed.following():
            await asyncio.sleep(10.5)
            assert fleet.readings == 11
        await asyncio.sleep(60)
        assert fleet.readings == 11
        running.cancel()


async def test_a_store_that_is_away_is_told_and_comes_back(fleet: Fleet, feed: Feed) -> None:
    """The stream goes on: trouble, then documents again; a defect is told without its inside."""
    async with served(feed) as client, client.get("/esmd/v1/events") as answer:
        await begun(answer)
        assert (await event_of(answer))[0] == "view"
        for error, said in ((StoreUnavailableError("Redis is away"), "Redis is away"), (ValueError("inside"), "log")):
            fleet.error = error
            async with asyncio.timeout(10):
                while (event := await event_of(answer))[0] == "view":
                    pass
                while said not in event[1]["message"]:
                    event = await event_of(answer)
            assert event[0] == "trouble"
            assert "inside" not in event[1]["message"]
        fleet.error = None
        async with asyncio.timeout(10):
            while (await event_of(answer))[0] != "view":
                pass


async def test_only_so_many_may_look(feed: Feed) -> None:
    """One more is told to come again; when one leaves there is room."""
    async with served(feed) as client:
        streams = [await client.get("/esmd/v1/events") for _ in range(3)]
        async with client.get("/esmd/v1/events") as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
            assert "3 consoles" in (await answer.json())["message"]
        streams[0].close()
        async with asyncio.timeout(10):
            while feed.followers == 3:  # noqa: ASYNC110 - the server notices with its next event
                await asyncio.sleep(0.01)
        async with client.get("/esmd/v1/events") as answer:
            assert answer.status == 200
        for stream in streams:
            stream.close()


async def test_the_stream_ends_with_the_nodes_drain(feed: Feed) -> None:
    """Everybody who looks is told and let go; nobody else is taken."""
    async with served(feed) as client:
        async with client.get("/esmd/v1/events") as answer:
            await begun(answer)
            feed.stop()
            kinds = [line for line in (await answer.content.read()).decode().split("\n") if line.startswith("event")]
            assert kinds[-1] == "event: bye"
        async with client.get("/esmd/v1/events") as answer:
            assert (answer.status, await answer.json()) == (503, {"message": "this node is draining"})


async def test_a_slow_reader_misses_documents_instead_of_piling_them_up(fleet: Fleet) -> None:
    """Whoever comes for the next document gets the newest one, however many there were meanwhile."""
    feed = Feed(fleet.read, every_s=0.0)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(feed.run())
        with feed.following() as events:
            await anext(events)
            async with asyncio.timeout(10):
                while fleet.readings < 50:  # noqa: ASYNC110 - counted by the fake, in the same loop
                    await asyncio.sleep(0)
            newest = msgspec.json.decode((await anext(events)).partition(b"data: ")[2])
            assert newest["at_ms"] >= 49
        running.cancel()


async def test_a_client_that_does_not_read_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """It frees its place, and others see what they came for meanwhile."""
    dropped: list[str] = []
    drop = console_api._drop

    def dropping(request: web.Request) -> None:
        dropped.append(request.headers["X-Name"])
        drop(request)

    monkeypatch.setattr(console_api, "_drop", dropping)
    feed = Feed(BusyFleet(1000).read, every_s=0.01)  # 260 kB a document: the kernel's buffers do not take many
    async with (
        rig_served(feed) as address,
        aiohttp.ClientSession(f"http://{address}", headers={"X-Name": "reader"}) as client,
        client.get("/esmd/v1/events") as answer,
        asyncio.timeout(30),
    ):
        assert await begun(answer)
        monkeypatch.setattr(console_api, "STALLED_S", 0.1)  # for whoever comes from now on
        with socket.socket() as stuck:
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stuck.connect((address.host, address.port))
            stuck.sendall(b"GET /esmd/v1/events HTTP/1.1\r\nHost: localhost\r\nX-Name: stuck\r\n\r\n")
            while not dropped or feed.followers == 2:
                assert (await event_of(answer))[0] == "view"
        assert dropped == ["stuck"]
        assert feed.followers == 1
        assert (await event_of(answer))[0] == "view"


async def test_a_follower_that_never_asked_for_anything_is_forgotten_too(feed: Feed) -> None:
    """A client that goes before its first document frees its place."""
    for _ in range(10):
        with feed.following():
            assert feed.followers == 1
    assert feed.followers == 0
    feed.stop()
    with pytest.raises(TooManyFollowersError, match="draining"), feed.following():
        pytest.fail("taken")


async def test_with_tokens_the_page_is_open_and_what_it_shows_is_not(feed: Feed) -> None:
    """The page can ask for the token; the stream and everything else wants it in a header."""
    async with served(feed, "right") as client:
        for path in page_files():
            async with client.get(path, headers={"Host": "node.example", "Sec-Fetch-Site": "cross-site"}) as answer:
                assert answer.status == 200
        for path in ("/esmd/v1/events", "/esmd/v1/status", "/metrics", "/console/nope.js"):
            async with client.get(path) as answer:
                assert answer.status == 401
        async with client.post("/console") as answer:
            assert answer.status == 401
        async with client.get("/esmd/v1/events", headers={"Authorization": "Bearer right"}) as answer:
            assert await begun(answer)
            assert (await event_of(answer))[0] == "view"


async def test_a_token_that_may_only_read_is_told_so(feed: Feed) -> None:
    """The page hides what the node would refuse, and the node refuses it."""
    reads = {"Authorization": "Bearer reads"}
    async with (
        rig_served(feed, "right", read_only="reads") as address,
        aiohttp.ClientSession(f"http://{address}") as client,
    ):
        async with client.get("/esmd/v1/events", headers=reads) as answer:
            assert not await begun(answer)
        async with client.post("/esmd/v1/change", json={}, headers=reads) as answer:
            assert answer.status == 403


async def test_a_stream_does_not_outlive_its_token_for_long(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while it ends, and whoever wants to see more proves himself again."""
    monkeypatch.setattr(console_api, "AGAIN_S", 0.0)
    async with served(feed) as client, client.get("/esmd/v1/events") as answer:
        said = (await answer.content.read()).decode()
    assert [line for line in said.split("\n") if line.startswith("event")] == [
        "event: you",
        "event: view",
        "event: again",
    ]


async def test_without_tokens_the_page_too_is_for_this_machine_alone(feed: Feed) -> None:
    """A name that a DNS server made point here loads nothing; a link on another site may lead to the page."""
    async with served(feed) as client:
        for path in ("/console", "/console/main.js", "/esmd/v1/events"):
            async with client.get(path, headers={"Host": "evil.example"}) as answer:
                assert answer.status == 403
        async with client.get("/console", headers={"Sec-Fetch-Site": "cross-site"}) as answer:
            assert answer.status == 200
        for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}):
            async with client.get("/esmd/v1/events", headers=headers) as answer:
                assert answer.status == 403


BROWSER = {"User-Agent": "Mozilla/5.0"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({**BROWSER, "Content-Type": "text/plain"}, 415),
        ({**BROWSER, "Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({**BROWSER, "Content-Type": "multipart/form-data; boundary=x"}, 415),
        ({**BROWSER, "Content-Type": "text/plain", "Origin": "http://evil.example"}, 403),
        ({**BROWSER, "Content-Type": "text/plain", "Sec-Fetch-Site": "same-origin"}, 200),  # of a function's own page
        ({**BROWSER, "Content-Type": "application/json"}, 200),
        ({**BROWSER, "Content-Type": "application/json", "Origin": "http://evil.example"}, 403),
        ({"User-Agent": "curl/8", "Content-Type": "application/x-www-form-urlencoded"}, 200),
    ],
)
async def test_a_form_of_another_site_changes_nothing(feed: Feed, headers: dict[str, str], status: int) -> None:
    """Not even one that an old browser sends without saying where it comes from; other clients are not in the way."""
    async with served(feed) as client, client.post("/esmd/v1/change", data=b"{}", headers=headers) as answer:
        assert answer.status == status


def test_a_flow_says_what_records_pass() -> None:
    """By names that people use, with no reference to a secret."""
    document = {
        "Name": "clicks",
        "EventSourceArn": "arn:aws:kinesis:us-east-1:000000000000:stream/clicks",
        "FunctionName": "f",
        "StartingPosition": "LATEST",
        "BatchSize": 50,
        "ParallelizationFactor": 4,
        "DestinationConfig": {"OnFailure": {"Destination": "arn:aws:sqs:us-east-1:000000000000:failed"}},
        "FilterCriteria": {"Filters": [{"Pattern": '{"data": {"a": [1]}}'}]},
    }
    flow = flow_of(parse_mapping(document, require_name=False))
    assert (flow.kind, flow.source, flow.function, flow.filters) == ("kinesis", "clicks", "f", 1)
    assert (flow.batch_size, flow.lanes, flow.destination) == (50, 4, "arn:aws:sqs:us-east-1:000000000000:failed")
    kafka = {
        "Name": "audit",
        "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["127.0.0.1:9092"]}},
        "Topics": ["audit-events"],
        "FunctionName": "f",
        "StartingPosition": "LATEST",
        "SourceAccessConfigurations": [{"Type": "SASL_SCRAM_512_AUTH", "URI": "${file:/run/secrets/kafka.json}"}],
    }
    shown = msgspec.json.encode(flow_of(parse_mapping(kafka, require_name=False)))
    assert b'"source":"audit-events"' in shown
    assert b"secrets" not in shown


def test_work_is_what_the_node_counted() -> None:
    """By mapping, with the durations of its invocations."""
    meters = Meters()
    counters = meters.of("orders", "kafka")
    counters.invoked, counters.failed_invoke, counters.throttles = 7, 2, 1
    counters.durations.observe(0.003)
    work = work_of(meters)["orders"]
    assert (work.invoked, work.failed, work.throttles, sum(work.durations)) == (7, 2, 1, 1)
    assert work.durations_sum_s == 0.003


@pytest.mark.parametrize(("took_s", "pause"), [(0.001, 1.0), (0.2, 1.8), (2.0, 5.0), (10.0, 5.0)])
def test_slow_readings_are_made_less_often_but_not_seldom(took_s: float, pause: float) -> None:
    """A store that was slow once must not keep the page without news until it believes the node gone."""
    assert pause_s(took_s, every_s=1.0) == pytest.approx(pause)
