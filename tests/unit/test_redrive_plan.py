"""Which failed records go next, and what an outcome means for their documents: `pollers.redriving.plan`."""

from __future__ import annotations

from math import ceil, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.ids import ShardId
from model.record import Record
from pollers.redriving.plan import Document, Pacer, Place, Plan

ORDERS = ShardId("orders-0")
OVERHEAD = 10


def record(position: int, size: int = 9) -> Record:
    """Make a record that takes `size` + 1 bytes of an event."""
    return Record(position, 0, b"x" * size, None, position)


def document(name: str, *positions: int, shard: ShardId = ORDERS, size: int = 9) -> Document:
    """Make a document of records at these positions."""
    return Document(name, [Place(shard, record(position, size)) for position in positions])


def plan(batch_size: int = 10, max_bytes: int = 10_000) -> Plan:
    """Make a plan."""
    return Plan(batch_size=batch_size, overhead=OVERHEAD, max_bytes=max_bytes)


def positions(one: Plan) -> list[int]:
    """Return the positions of the next attempt."""
    attempt = one.next()
    assert attempt is not None
    return [record.position for record in attempt.records]


def test_documents_of_a_shard_share_a_batch() -> None:
    """Up to the batch size; another shard, or one more than fits, begins another one."""
    one = plan(batch_size=4)
    one.add([document("a", 1, 2), document("b", 3), document("c", 4, 5), document("d", 6, shard=ShardId("orders-1"))])
    seen = []
    while (attempt := one.next()) is not None:
        taken = [record.position for record in attempt.records]
        seen.append((attempt.shard, taken, [done.found for done in one.learn(taken).done]))
    assert seen == [
        ("orders-0", [1, 2, 3], ["a", "b"]),
        ("orders-0", [4, 5], ["c"]),
        ("orders-1", [6], ["d"]),
    ]
    assert len(one) == 0


def test_a_document_larger_than_a_batch_takes_several_and_is_done_with_the_last() -> None:
    """In order."""
    one = plan(batch_size=2)
    one.add([document("a", 1, 2, 3, 4, 5)])
    for expected, done in (([1, 2], []), ([3, 4], []), ([5], ["a"])):
        assert positions(one) == expected
        assert [settled.found for settled in one.learn(expected).done] == done


def test_nothing_more_of_a_document_goes_once_a_batch_of_it_failed() -> None:
    """It stays as a whole, with the reason."""
    one = plan(batch_size=2)
    one.add([document("a", 1, 2, 3, 4), document("b", 9)])
    assert positions(one) == [1, 2]
    one.learn([1, 2])
    assert positions(one) == [3, 4]
    settled = one.learn([], "Boom")
    assert [(failed.found, failed.error, len(failed.left)) for failed in settled.failed] == [("a", "Boom", 2)]
    assert positions(one) == [9]


def test_a_failing_document_is_told_apart_from_those_that_shared_its_batch() -> None:
    """By halves, so that the others are taken all the same."""
    one = plan(batch_size=8)
    one.add([document(str(n), n) for n in range(8)])
    attempts, done, failed = 0, set(), set()
    while (attempt := one.next()) is not None:
        attempts += 1
        taken = [record.position for record in attempt.records]
        settled = one.learn([] if 5 in taken else taken, "Boom")
        done |= {one.found for one in settled.done}
        failed |= {one.found for one in settled.failed}
    assert (done, failed) == ({"0", "1", "2", "3", "4", "6", "7"}, {"5"})
    assert attempts == 7  # 8, 4, 4, 2, 1, 1, 2


def test_bytes_bound_a_batch_too_but_a_record_that_is_too_large_goes_alone() -> None:
    """Whoever invokes says that it is too large."""
    one = plan(max_bytes=OVERHEAD + 25)
    one.add([document("a", 1, 2, 3), document("b", 4, size=100)])
    for expected in ([1, 2], [3], [4]):
        assert positions(one) == expected
        one.learn(expected)


def test_the_same_record_in_two_documents_is_never_twice_in_a_batch() -> None:
    """Both are to be taken, and positions tell records of a batch apart."""
    one = plan()
    one.add([document("a", 1, 2), document("b", 2, 3)])
    for expected, done in (([1, 2], ["a"]), ([2, 3], ["b"])):
        assert positions(one) == expected
        assert [settled.found for settled in one.learn(expected).done] == done


def test_a_document_of_several_shards_goes_shard_by_shard() -> None:
    """AWS's pollers mix the partitions of a topic."""
    one = plan()
    both = document("a", 1)
    both.places += document("", 1, shard=ShardId("orders-1")).places
    one.add([both])
    attempt = one.next()
    assert attempt is not None
    assert (attempt.shard, one.learn([1]).done) == ("orders-0", [])
    attempt = one.next()
    assert attempt is not None
    assert (attempt.shard, [done.found for done in one.learn([1]).done]) == ("orders-1", ["a"])


def test_a_document_without_records_is_told_at_once() -> None:
    """There is nothing to try."""
    one = plan()
    empty = document("a")
    assert one.add([empty, document("b", 1)]) == [empty]
    assert positions(one) == [1]


DOCUMENTS = st.lists(
    st.tuples(st.sampled_from(["orders-0", "orders-1"]), st.lists(st.integers(0, 30), min_size=1, max_size=12)),
    max_size=12,
)


@given(made=DOCUMENTS, poison=st.sets(st.integers(0, 30), max_size=4), batch_size=st.integers(1, 7), data=st.data())
def test_every_document_ends_once_and_is_done_only_when_all_its_records_were_taken(
    made: list[tuple[str, list[int]]], poison: set[int], batch_size: int, data: st.DataObject
) -> None:
    """Whatever the function takes, whole batches or parts of them: order holds, and batches keep their bounds."""
    documents = [document(str(at), *sorted(set(p)), shard=ShardId(s)) for at, (s, p) in enumerate(made)]
    max_bytes = data.draw(st.sampled_from([OVERHEAD + 25, 10_000]))
    one = plan(batch_size, max_bytes)
    assert one.add(documents) == []
    taken_of: dict[str, list[int]] = {found.found: [] for found in documents}
    done: list[str] = []
    failed: list[str] = []
    rounds = 0
    while (attempt := one.next()) is not None:
        rounds += 1
        wanted = [record.position for record in attempt.records]
        assert 1 <= len(wanted) <= batch_size
        assert len(set(wanted)) == len(wanted)
        assert OVERHEAD + 10 * len(wanted) <= max_bytes
        in_part = data.draw(st.booleans())
        taken = [p for p in wanted if p not in poison] if in_part else [] if poison & set(wanted) else wanted
        settled = one.learn(taken, "Boom")
        done += [found.found for found in settled.done]
        failed += [found.found for found in settled.failed]
        for found in documents:
            if found.places[0].shard == attempt.shard:
                taken_of[found.found] += [p for p in taken if p in [place.record.position for place in found.places]]
    assert sorted(done + failed) == sorted(taken_of)
    for found in documents:
        mine = {place.record.position for place in found.places}
        assert (found.found in failed) == bool(mine & poison)
        if found.found in done:
            assert mine <= set(taken_of[found.found])
    most = sum(2 * ceil(log2(len(documents) + 1)) + 2 + len(found.places) for found in documents)
    assert rounds <= most
    assert len(one) == 0


def test_without_a_rate_nothing_waits() -> None:
    """And batches are as large as the mapping's."""
    pacer = Pacer(None)
    pacer.sent(1000, 0.0)
    assert (pacer.wait_s(0.0), pacer.most(100)) == (0.0, 100)


@pytest.mark.parametrize(("rate", "most"), [(0.5, 1), (1, 1), (7.9, 7), (1000, 100)])
def test_a_slow_rate_does_not_come_in_bursts(rate: float, most: int) -> None:
    """A batch has at most what a second may have, and one record at least."""
    assert Pacer(rate).most(100) == most


@given(rate=st.floats(0.1, 1000), steps=st.lists(st.tuples(st.integers(1, 50), st.floats(0, 3)), min_size=1))
def test_the_rate_is_kept_over_any_stretch(rate: float, steps: list[tuple[int, float]]) -> None:
    """Counted in virtual time: from any moment on, no more than the rate and one batch; delays are not made up for."""
    pacer, now = Pacer(rate), 0.0
    sent: list[tuple[float, int]] = []
    for records, took_s in steps:
        now += pacer.wait_s(now)
        pacer.sent(records, now)
        sent.append((now, records))
        now += took_s
    for at, (begin, _) in enumerate(sent):
        total = 0
        for when, records in sent[at:]:
            assert total <= rate * (when - begin) + 1e-6 * (total + 1)
            total += records
