"""One redrive over fakes: `pollers.redriving.job`."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from model.errors import RefusedError, UnavailableError
from model.outcome import Delivered, FunctionFailed, Throttled
from pollers.redriving.job import Counts
from tests.support.failures import FUNCTION_ARN, MAPPING, documents
from tests.support.redrive_rig import AT_MS, MemoryArchive, RedriveRig, failed, records

pytestmark = pytest.mark.looptime

BOOM = FunctionFailed("Boom")


async def test_everything_is_delivered_once_and_the_archive_is_empty() -> None:
    """Records of several documents of a shard share a batch; each document is gone once all its records were taken."""
    rig = RedriveRig(batch_size=3)
    rig.put(failed(1, 2), failed(3), failed(4, 5, 6, 7), failed(8, partition=1))
    counts = await rig.redrive()
    assert rig.calls == [[1, 2, 3], [4, 5, 6], [7], [8]]
    assert rig.stored == {}
    assert counts == Counts(documents=4, delivered_documents=4, delivered_records=8)
    assert rig.counters.redriven == 8
    assert (rig.archive.watched, rig.archive.closed) == (True, True)


async def test_an_attempt_looks_like_the_mappings_own() -> None:
    """The batch id is made from the records, as for the attempts that failed; the present holder's token goes along."""
    rig = RedriveRig()
    rig.put(failed(1, 2))
    await rig.redrive()
    [invocation] = rig.invocations
    assert invocation.mapping == "orders"
    assert str(invocation.shard) == f"{MAPPING}/orders-0"
    assert (invocation.token, invocation.attempt) == (7, 1)
    assert invocation.batch_id == f"{MAPPING}/orders-0:1-2"
    assert invocation.event == rig.parts.envelope.event(records(1, 2))


async def test_what_fails_again_stays_and_everything_else_is_delivered() -> None:
    """One call tells each failing document; the next redrive, with the function mended, delivers only that."""
    rig = RedriveRig()
    rig.put(*(failed(n) for n in range(10)))
    rig.answer = lambda offsets: BOOM if 5 in offsets else Delivered()
    counts = await rig.redrive()
    assert list(rig.stored) == ["orders-0:5"]
    assert (counts.delivered_records, counts.failed_documents, counts.failed_records) == (9, 1, 1)
    assert ("kept", "orders-0:5", "1", "Boom") in rig.told
    assert rig.archive.kept == [("orders-0:5", False)]
    rig.answer = lambda _offsets: Delivered()
    rig.calls.clear()
    await rig.redrive()
    assert (rig.calls, rig.stored) == ([[5]], {})


async def test_records_that_a_partial_response_names_keep_their_document() -> None:
    """Those of other documents are done; what was taken counts as delivered."""
    rig = RedriveRig(partial_responses=True)
    rig.put(failed(1, 2), failed(3), failed(4))
    response = {"batchItemFailures": [{"itemIdentifier": {"partition": "orders-0", "offset": 3}}]}
    rig.answer = lambda offsets: Delivered(msgspec.json.encode(response) if 3 in offsets else b"")
    counts = await rig.redrive()
    assert list(rig.stored) == ["orders-0:3"]
    assert (counts.delivered_records, counts.failed_records) == (3, 1)
    assert ("kept", "orders-0:3", "1", "reported as failed") in rig.told


async def test_throttles_are_waited_for_and_told() -> None:
    """They are no failure, and cost nothing but time."""
    rig = RedriveRig()
    rig.put(failed(1))
    rig.answer = lambda _offsets: Throttled("429") if len(rig.calls) < 4 else Delivered()
    counts = await rig.redrive()
    assert (counts.delivered_records, counts.failed_records, rig.stored) == (1, 0, {})
    assert [told for told in rig.told if told[0] == "waiting"] == [("waiting", "429")] * 3


async def test_the_rate_is_kept() -> None:
    """Two a second, one by one: ten records take more than four seconds."""
    rig = RedriveRig(batch_size=100)
    rig.put(*(failed(*range(first, first + 5)) for first in (0, 5)))
    await rig.redrive(rate=2)
    assert [len(call) for call in rig.calls] == [2, 2, 1, 2, 2, 1]
    gaps = [after - before for before, after in zip(rig.called_at, rig.called_at[1:], strict=False)]
    assert gaps == pytest.approx([1, 1, 0.5, 1, 1])


async def test_a_dry_run_touches_nothing_and_counts_what_would_be() -> None:
    """No invocation, no removal, and nothing is given up as somebody else's."""
    rig = RedriveRig()
    rig.put(failed(1, 2), failed(3))
    rig.put(failed(4, 5), payload=False)
    rig.stored["junk"] = b"junk"
    before = dict(rig.stored)
    counts = await rig.redrive(dry_run=True)
    assert counts == Counts(
        documents=4, delivered_documents=2, gone_documents=1, skipped_documents=1, delivered_records=3, gone_records=2
    )
    assert (rig.calls, rig.stored) == ([], before)
    assert rig.archive.kept == [("orders-0:4,5", False), ("junk", False)]


async def test_records_that_are_only_named_are_read_from_the_source_again() -> None:
    """Gone ones are reported, and their document stays: nothing else tells of them."""
    rig = RedriveRig()
    rig.put(failed(1, 2), failed(3, 4), failed(5, 6, 7), payload=False)
    rig.in_source = records(4, 5, 6, 7)
    counts = await rig.redrive()
    assert rig.calls == [[4, 5, 6, 7]]
    assert list(rig.stored) == ["orders-0:1,2", "orders-0:3,4"]
    assert counts == Counts(documents=3, delivered_documents=2, gone_documents=2, delivered_records=4, gone_records=3)
    assert [told for told in rig.told if told[0] == "kept"] == [
        ("kept", "orders-0:1,2", "2", "2 records are not in the source any more"),
        ("kept", "orders-0:3,4", "2", "1 records are not in the source any more"),
    ]


async def test_what_is_not_ours_too_old_or_too_new_is_left_alone() -> None:
    """Newer ones are of trouble that began since: a redrive ends, whatever the mapping does meanwhile."""
    rig = RedriveRig()
    rig.put(failed(1, at_ms=AT_MS - 5000), failed(2), failed(3, at_ms=AT_MS + 1))
    rig.stored["junk"] = b"{}"
    rig.stored["theirs"] = documents().message(failed(9)).replace(FUNCTION_ARN.encode(), b"arn:x")
    rig.archive = MemoryArchive(rig.stored)
    redrive = rig.job(since_ms=AT_MS - 1000)
    counts = await redrive.run()
    assert rig.calls == [[2]]
    assert counts.skipped_documents == 4
    assert redrive.skipped == {
        "no failure document": 1,
        "of another function, arn:x": 1,
        "failed since the redrive began": 1,
        "failed before the time given": 1,
    }
    assert rig.archive.kept == [("orders-0:1", False), ("orders-0:3", False), ("junk", True), ("theirs", False)]


async def test_an_archive_that_is_away_is_waited_for() -> None:
    """Also with its removals: what was delivered is not delivered again for that."""
    rig = RedriveRig()
    rig.put(failed(1))
    rig.archive.errors.extend([UnavailableError("away"), UnavailableError("still away")])
    job = rig.job()
    rig.archive._todo = list(rig.stored)

    def answer(_offsets: list[int]) -> Delivered:
        rig.archive.errors.append(UnavailableError("away again"))
        return Delivered()

    rig.answer = answer
    await job.run()
    assert (rig.calls, rig.stored) == ([[1]], {})
    assert [told for told in rig.told if told[0] == "waiting"] == [
        ("waiting", "away"),
        ("waiting", "still away"),
        ("waiting", "away again"),
    ]


async def test_an_archive_that_refuses_ends_the_redrive() -> None:
    """With its reason, and everything given back."""
    rig = RedriveRig()
    rig.put(failed(1))
    rig.archive = MemoryArchive(rig.stored)
    rig.archive.errors.append(RefusedError("access denied"))
    with pytest.raises(RefusedError, match="access denied"):
        await rig.job().run()
    assert rig.archive.closed


@pytest.mark.parametrize("answer", [Delivered(), Throttled("429")])
async def test_a_stop_lets_the_batch_under_way_finish_and_starts_no_other(answer: Delivered | Throttled) -> None:
    """What was taken is removed; the rest is there for the next redrive."""
    rig = RedriveRig(batch_size=1)
    rig.put(failed(1), failed(2), failed(3))

    def stop(_offsets: list[int]) -> Delivered | Throttled:
        rig.stop.set()
        return answer

    rig.answer = stop
    counts = await rig.redrive()
    assert rig.calls == [[1]]
    delivered = isinstance(answer, Delivered)
    assert list(rig.stored) == (
        ["orders-0:2", "orders-0:3"] if delivered else ["orders-0:1", "orders-0:2", "orders-0:3"]
    )
    assert (counts.delivered_records, counts.failed_records) == (int(delivered), 0)
    assert rig.archive.closed


@pytest.mark.parametrize("steps", range(1, 40, 2))
async def test_killed_at_any_moment_nothing_is_lost(steps: int) -> None:
    """Cancelled after any number of steps: what is not delivered is still stored, and the next redrive delivers it."""
    rig = RedriveRig(batch_size=2)
    rig.put(*(failed(n, n + 1) for n in range(0, 12, 2)))
    rig.archive = MemoryArchive(rig.stored)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(rig.job().run())
        await asyncio.sleep(steps * 0.002)
        task.cancel()
    delivered = {offset for call in rig.calls for offset in call}
    stored = {int(offset) for name in rig.stored for offset in name.partition(":")[2].split(",")}
    assert delivered | stored == set(range(12))
    before = len(rig.calls)
    await rig.redrive()
    again = [offset for call in rig.calls[before:] for offset in call]
    assert sorted(again) == sorted(stored)
    assert len(delivered & stored) <= 2
    assert rig.stored == {}


async def test_a_stop_ends_the_wait_for_a_function_that_is_not_called() -> None:
    """Its circuit is open, what it waits for is told now and then, and nothing is lost."""
    rig = RedriveRig()
    rig.put(failed(1), failed(2))
    rig.answer = lambda _offsets: Throttled("429")
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(rig.redrive())
        await asyncio.sleep(300)
        assert not rig.gate.closed
        calls = len(rig.calls)
        assert calls < 60
        assert rig.told[-1] == ("waiting", "429")
        assert len(rig.told) > calls
        before = loop.time()
        rig.stop.set()
    assert loop.time() - before < 1
    assert running.result() == Counts(documents=2)
    assert list(rig.stored) == ["orders-0:1", "orders-0:2"]


async def test_a_document_without_records_is_done_as_it_is() -> None:
    """There is nothing to deliver, and nothing to keep it for."""
    rig = RedriveRig()
    rig.put(failed(1))
    document = msgspec.json.decode(documents().object_body(failed(2)))
    document["payload"] = {"records": {"orders-0": []}}
    rig.stored["empty"] = msgspec.json.encode(document)
    counts = await rig.redrive()
    assert rig.stored == {}
    assert (counts.delivered_documents, counts.delivered_records) == (2, 1)
