"""Which messages form the next batch: order, locks and fairness."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from pollers.queue_groups import Groups
from tests.support.queue_rig import message

if TYPE_CHECKING:
    from pollers.queue_ports import Message


def positions(batch: list[Message]) -> list[int]:
    """Return the places of a batch's messages."""
    return [one.record.position for one in batch]


def groups_of(batch: list[Message]) -> set[str | None]:
    """Return the groups in a batch."""
    return {one.group for one in batch}


def test_messages_without_a_group_go_in_order() -> None:
    """A standard queue without groups is one sequence, cut by count and by bytes."""
    groups = Groups(ordered=False, batch_size=3, overhead=0, max_bytes=1200)
    groups.add([message(n, None) for n in range(4)])
    assert groups.full
    assert [positions(groups.form(1)) for _ in range(3)] == [[0, 1], [2, 3], []]
    assert (len(groups), groups.ready, groups.full) == (0, 0, False)


def test_a_busy_tenant_does_not_crowd_out_the_others() -> None:
    """Deficit round robin: each of three groups gets its part of a batch, whatever waits of the first."""
    groups = Groups(ordered=False, batch_size=30, overhead=0)
    groups.add([message(n, "busy") for n in range(1000)])
    groups.add([message(1000 + n, "a") for n in range(10)])
    groups.add([message(2000 + n, "b") for n in range(10)])
    first = Counter(one.group for one in groups.form(1))
    assert min(first.values()) >= 8
    second = Counter(one.group for one in groups.form(1))
    assert first["a"] + second["a"] == first["b"] + second["b"] == 10


def test_a_tenant_with_large_messages_gets_no_more_bytes() -> None:
    """Fairness is by bytes: large messages wait for their credit."""
    groups = Groups(ordered=False, batch_size=60, overhead=0)
    groups.add([message(n, "large", size=8000) for n in range(100)])
    groups.add([message(1000 + n, "small") for n in range(1000)])
    taken = Counter(one.group for _ in range(4) for one in groups.form(1))
    assert taken["large"] * 8000 <= taken["small"] * 500 * 1.5 + 8000


def test_a_group_in_flight_waits_and_others_go() -> None:
    """FIFO: no second batch of a group until every message of the first is out of our hands."""
    groups = Groups(ordered=True, batch_size=2, overhead=0)
    groups.add([message(n, "a") for n in range(4)])
    groups.add([message(10, "b")])
    first = groups.form(2)
    assert positions(first) == [0, 1]
    assert positions(groups.form(1)) == [10]
    assert (groups.form(1), groups.ready, len(groups)) == ([], 0, 2)
    groups.unlock(first[:1])
    assert groups.form(1) == []
    groups.unlock(first[1:])
    assert positions(groups.form(1)) == [2, 3]


def test_groups_travel_alone_while_there_are_slots_and_together_when_not() -> None:
    """Mixing saves invocations, but only when groups outnumber the free slots."""
    groups = Groups(ordered=True, batch_size=10, overhead=0)
    groups.add([message(n, f"g{n}") for n in range(6)])
    assert [len(groups_of(groups.form(free))) for free in (3, 2, 1)] == [2, 2, 2]


def test_a_group_received_before_travels_alone() -> None:
    """What may have failed before takes no other group along."""
    groups = Groups(ordered=True, batch_size=10, overhead=0)
    groups.add([message(0, "a"), message(1, "bad", receives=2), message(2, "b")])
    assert [groups_of(groups.form(1)) for _ in range(2)] == [{"a", "b"}, {"bad"}]


def test_what_is_withdrawn_or_visible_again_takes_its_group_along() -> None:
    """Later messages of a FIFO group never overtake one that is out of our hands."""
    groups = Groups(ordered=True, batch_size=10, overhead=0)
    groups.add([message(0, "a"), message(1, "a", until_at=1), message(2, "a"), message(3, "b")])
    assert positions(groups.expire(lambda one: one.until_at <= 5)) == [1, 2]
    assert positions(groups.withdraw(["b", "c"])) == [3]
    assert positions(groups.clear()) == [0]
    assert (len(groups), groups.form(1)) == (0, [])


@given(
    sent=st.lists(st.tuples(st.sampled_from([None, "a", "b", "c"]), st.integers(100, 9000)), max_size=60),
    ordered=st.booleans(),
    batch_size=st.integers(1, 12),
    steps=st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=80),
)
def test_every_message_leaves_once_and_in_its_groups_order(
    sent: list[tuple[str | None, int]], *, ordered: bool, batch_size: int, steps: list[tuple[int, bool]]
) -> None:
    """Whatever is formed and unlocked when: nothing is lost or doubled, groups stay in order and never overlap."""
    groups = Groups(ordered=ordered, batch_size=batch_size, overhead=10, max_bytes=20_000)
    groups.add([message(n, group, size=size) for n, (group, size) in enumerate(sent)])
    in_flight: list[list[Message]] = []
    taken: list[Message] = []
    for free, settle in [*steps, *[(1, False), (1, True)] * (len(sent) + 1)]:
        if settle and in_flight:
            groups.unlock(in_flight.pop(0))
            continue
        batch = groups.form(free)
        if not batch:
            continue
        assert len(batch) <= batch_size
        assert sum(one.size for one in batch) + 10 <= 20_000 or len(batch) == 1
        if ordered:
            assert all(not (groups_of(batch) & groups_of(other)) for other in in_flight)
        in_flight.append(batch)
        taken += batch
    assert sorted(positions(taken)) == list(range(len(sent)))
    for group in {group for group, _ in sent}:
        mine = [one.record.position for one in taken if one.group == group]
        assert mine == sorted(mine)
    assert len(groups) == groups.ready == 0
