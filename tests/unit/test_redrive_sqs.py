"""Failure documents in a queue: `pollers.redriving.sqs`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from model.errors import RefusedError, SourceUnavailableError, UnavailableError
from pollers.queue_ports import Entry
from pollers.redriving import sqs
from pollers.redriving.sqs import HIDDEN_S, SqsArchive
from tests.support.fake_sqs import FakeQueue

if TYPE_CHECKING:
    from pollers.redriving.archive import Found

pytestmark = pytest.mark.looptime


async def everything(archive: SqsArchive) -> list[Found]:
    """Read an archive to its end."""
    found: list[Found] = []
    while (some := await archive.read()) is not None:
        archive.keep(some)
        found += some
    return found


async def test_every_message_is_read_once_and_stays_until_it_is_removed() -> None:
    """Removed ones are deleted; the others can be received at once when the archive is closed."""
    queue = FakeQueue(visibility_s=3600)
    queue.send(*(f"m{n}" for n in range(25)))
    archive = SqsArchive(queue, "q")
    assert await archive.count() == 25
    found = await everything(archive)
    assert sorted(one.body.decode() for one in found) == sorted(f"m{n}" for n in range(25))
    assert queue.visible() == []
    await archive.remove(found[:12])
    await archive.close()
    assert len(queue.visible()) == len(queue.bodies()) == 13


async def test_what_is_held_stays_hidden_however_long_it_takes() -> None:
    """For the batch under way, and so that nothing that failed is read twice; a killed node's are back in a minute."""
    queue = FakeQueue(visibility_s=3600)
    queue.send("m")
    archive = SqsArchive(queue, "q")
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(archive.watch())
        await archive.read()
        queue.errors.append(SourceUnavailableError("away"))  # once: it is extended twice before it would be too late
        await asyncio.sleep(3600)
        assert queue.visible() == []
        watching.cancel()
    await asyncio.sleep(HIDDEN_S)
    assert [one.body for one in queue.visible()] == ["m"]


async def test_a_message_that_comes_again_is_no_other_one() -> None:
    """It is deleted by its last receipt."""
    queue = FakeQueue(visibility_s=3600)
    queue.send("m")
    archive = SqsArchive(queue, "q")
    [found] = await archive.read() or []
    await asyncio.sleep(HIDDEN_S + 1)
    assert await archive.read() == []
    await archive.remove([found])
    assert queue.bodies() == []
    await archive.remove([found])  # safe to repeat


async def test_a_deletion_that_fails_is_tried_again_by_whoever_asked() -> None:
    """What was deleted before it is not held any more."""
    queue = FakeQueue(visibility_s=3600)
    queue.send("a", "b")
    archive = SqsArchive(queue, "q")
    found = await archive.read() or []
    queue.delete_results.append([Entry.DONE, Entry.AGAIN])
    with pytest.raises(UnavailableError, match="SQS queue q does not delete"):
        await archive.remove(found)
    await archive.remove(found)
    assert queue.bodies() == []


async def test_more_than_can_be_held_apart_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue of somebody else's messages is not kept from him without end."""
    monkeypatch.setattr(sqs, "MAX_HELD", 20)
    queue = FakeQueue(visibility_s=3600)
    queue.send(*(f"m{n}" for n in range(50)))
    archive = SqsArchive(queue, "q")
    with pytest.raises(RefusedError, match="20 documents stay"):
        await everything(archive)


async def test_a_look_at_a_queue_that_counts_receives_is_refused() -> None:
    """It would touch what it must not; delivering may."""
    queue = FakeQueue(max_receives=3)
    queue.send("m")
    with pytest.raises(RefusedError, match="after 3 receives the queue moves a message away"):
        await SqsArchive(queue, "q", looks=True).count()
    assert await SqsArchive(queue, "q").count() == 1
    assert queue.receives == 0


async def test_closing_never_fails_nor_lasts() -> None:
    """A queue that is away shows its messages by itself."""
    queue = FakeQueue(visibility_s=3600)
    queue.send("m")
    archive = SqsArchive(queue, "q")
    await archive.read()
    queue.errors.append(SourceUnavailableError("away"))
    await archive.close()
    await asyncio.sleep(HIDDEN_S)
    assert len(queue.visible()) == 1
