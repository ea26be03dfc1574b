"""What pollers rely on of a queue: on real servers, on the queue in memory that unit tests use, and as simulated."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from random import Random
from typing import TYPE_CHECKING, Protocol

import pytest

from model.mapping import SqsSource
from pollers.queue_ports import Entry
from pollers.sources.sqs_api import SqsQueue
from tests.support import aws_servers
from tests.support.aws_fixtures import aws_server
from tests.support.aws_servers import with_aws
from tests.support.fake_sqs import FakeQueue
from tests.support.node_process import eventually
from tests.support.simulated_sqs import SimulatedSqs, SqsWay
from tests.support.sqs_servers import RealQueue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from pollers.queue_ports import Queue, Received

    class Lab(Protocol):
        """Makes a queue, and a way to send to it."""

        def __call__(
            self, *, fifo: bool = False, visibility_s: int = 30, receives: int | None = None
        ) -> AbstractAsyncContextManager[tuple[Queue, Callable[..., None]]]:
            """Make them."""


_FAST = [pytest.param(name, marks=pytest.mark.looptime(noop_cycles=1)) for name in ("memory", "simulated")]


def body(received: Received) -> bytes:
    """Return a message's text as JSON."""
    return bytes(received.raw.Body)


@pytest.fixture(params=[*_FAST, *with_aws("elasticmq", "moto")])
def lab(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """Make queues of each implementation in turn."""
    with _lab(request, monkeypatch) as made:
        yield made


@pytest.fixture(params=[*_FAST, *with_aws("elasticmq")])
def strict_lab(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """Make queues that keep the order of groups after a visibility timeout too; moto's do not."""
    with _lab(request, monkeypatch) as made:
        yield made


@contextmanager
def _lab(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    if request.param in _IN_MEMORY:
        yield _IN_MEMORY[request.param]
        return
    with aws_servers.Lab(aws_server(request, monkeypatch), RealQueue) as queues:

        @asynccontextmanager
        async def make(
            *, fifo: bool = False, visibility_s: int = 30, receives: int | None = None
        ) -> AsyncIterator[tuple[Queue, Callable[..., None]]]:
            dead = queues.new(fifo=fifo) if receives is not None else None
            real = queues.new(fifo=fifo, visibility_s=visibility_s, dead=dead, receives=receives or 1)
            async with real.adapter() as queue:
                yield queue, lambda *bodies, group=None: real.send(bodies, group=group)

        yield make


@asynccontextmanager
async def _in_memory(
    *, fifo: bool = False, visibility_s: int = 30, receives: int | None = None
) -> AsyncIterator[tuple[Queue, Callable[..., None]]]:
    fake = FakeQueue(visibility_s=visibility_s, fifo=fifo, max_receives=receives)
    yield fake, fake.send


@asynccontextmanager
async def _simulated(
    *, fifo: bool = False, visibility_s: int = 30, receives: int | None = None
) -> AsyncIterator[tuple[Queue, Callable[..., None]]]:
    simulated = SimulatedSqs(FakeQueue(visibility_s=visibility_s, fifo=fifo, max_receives=receives), Random(1))
    arn = "arn:aws:sqs:us-east-1:000000000000:storm" + (".fifo" if fifo else "")
    yield SqsQueue(SqsSource(arn, fifo), SqsWay(simulated)), simulated.send


_IN_MEMORY: dict[str, Lab] = {"memory": _in_memory, "simulated": _simulated}


async def receive(queue: Queue, most: int = 10, *, wait_s: int = 3) -> list[Received]:
    """Receive until there are `most` or nothing comes."""
    found = await queue.receive(most, wait_s=wait_s)
    while found and len(found) < most:
        more = await queue.receive(most - len(found), wait_s=1)  # AWS's answers without a wait leave some out
        if not more:
            break
        found += more
    return found


async def counts(queue: Queue, *, visible: int, in_flight: int) -> None:
    """Wait until the queue counts so many; AWS's counts lag behind."""

    async def holds() -> bool:
        facts = await queue.facts()
        return (facts.visible, facts.in_flight) == (visible, in_flight)

    await eventually(holds, f"{visible} visible and {in_flight} in flight")


async def test_a_received_message_is_hidden_and_comes_back_with_its_count(lab: Lab) -> None:
    """One receive hides it for the visibility timeout; the next has another receipt and counts one more."""
    async with lab(visibility_s=1) as (queue, send):
        send("a")
        [first] = await receive(queue, 1)
        assert (body(first), first.receives, first.group) == (b'"a"', 1, None)
        assert await queue.receive(1, wait_s=0) == []
        assert (await queue.facts()).visibility_s == 1
        await counts(queue, visible=0, in_flight=1)
        [again] = await receive(queue, 1)
        assert (again.receives, again.receipt != first.receipt) == (2, True)


async def test_a_deleted_message_is_gone(lab: Lab) -> None:
    """Deleting answers for each entry, and the message does not come back."""
    async with lab(visibility_s=1) as (queue, send):
        send("a", "b", "c")
        received = await receive(queue, 3)
        assert await queue.delete([one.receipt for one in received]) == [Entry.DONE] * 3
        assert await queue.receive(10, wait_s=2) == []


async def test_visibility_can_be_extended_and_ended(lab: Lab) -> None:
    """Extended, a message stays hidden; with 0 it is visible at once, and a long poll returns with it."""
    async with lab(visibility_s=1) as (queue, send):
        send("a")
        [one] = await receive(queue, 1)
        assert await queue.change_visibility([one.receipt], 60) == [Entry.DONE]
        assert await queue.receive(1, wait_s=2) == []
        async with asyncio.TaskGroup() as tasks:
            polling = tasks.create_task(queue.receive(1, wait_s=20))
            await asyncio.sleep(0.2)
            assert await queue.change_visibility([one.receipt], 0) == [Entry.DONE]
            async with asyncio.timeout(10):
                [again] = await polling
        assert again.receives == 2


async def test_a_group_with_a_message_in_flight_is_blocked_and_others_are_not(lab: Lab) -> None:
    """FIFO: the next message of a group comes only after the one before was deleted."""
    async with lab(fifo=True) as (queue, send):
        send("a0", "a1", group="a")
        [a0] = await queue.receive(1, wait_s=3)
        assert (body(a0), a0.group) == (b'"a0"', "a")
        send("b0", group="b")
        [b0] = await queue.receive(10, wait_s=3)
        assert body(b0) == b'"b0"'
        assert await queue.receive(10, wait_s=0) == []
        assert await queue.delete([a0.receipt]) == [Entry.DONE]
        [a1] = await queue.receive(10, wait_s=3)
        assert body(a1) == b'"a1"'


async def test_order_is_kept_when_messages_are_given_back(lab: Lab) -> None:
    """FIFO: shown again in the order of receipt, in one call, messages come in that order."""
    async with lab(fifo=True) as (queue, send):
        send(*[f"a{n}" for n in range(6)], group="a")
        received = await receive(queue, 6)
        assert [body(one) for one in received] == [b'"a%d"' % n for n in range(6)]
        assert await queue.change_visibility([one.receipt for one in received], 0) == [Entry.DONE] * 6
        again = await receive(queue, 6)
        assert [(body(one), one.receives) for one in again] == [(b'"a%d"' % n, 2) for n in range(6)]


async def test_order_is_kept_when_visibility_ends(strict_lab: Lab) -> None:
    """FIFO: after the visibility timeout the messages come in their order again."""
    async with strict_lab(fifo=True, visibility_s=1) as (queue, send):
        send(*[f"a{n}" for n in range(5)], group="a")
        assert len(await receive(queue, 5)) == 5
        again = await receive(queue, 5, wait_s=5)
        assert [body(one) for one in again] == [b'"a%d"' % n for n in range(5)]


async def test_a_queue_tells_whether_it_moves_messages_away(lab: Lab) -> None:
    """After how many receives."""
    async with lab(receives=3) as (queue, _):
        assert await queue.moves_after() == 3
    async with lab() as (queue, _):
        assert await queue.moves_after() is None


async def test_a_message_received_too_often_is_dead_lettered(lab: Lab) -> None:
    """The queue's redrive policy takes it away at the receive that would be one too many."""
    async with lab(visibility_s=1, receives=2) as (queue, send):
        send("a")
        for count in (1, 2):
            [one] = await receive(queue, 1, wait_s=5)
            assert one.receives == count
        assert await queue.receive(1, wait_s=3) == []
        await counts(queue, visible=0, in_flight=0)
