"""Where invocations go: the order of `invocation.placement`, and what a node knows of another one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invocation.neighbours import AWAY_S, FULL_S, Neighbour
from invocation.placement import MOST_TRIED, Headroom, beside, mark_of, order
from invocation.settings import HandlerFunction, Isolation
from model.ids import NodeId
from model.placement import Capacity, Offer, decode_offers
from model.secret import SecretText

MB = 128
FUNCTION = HandlerFunction("work", "app.handler", "code", memory_mb=MB)
NOTHING = Capacity(0, 0)


def room(environments: int) -> Capacity:
    """Return room for so many environments of the usual size."""
    return Capacity(environments, environments * MB)


def here(*, free: int = 0, idle: int = 0, warm: int = 0) -> Headroom:
    """Return what this node has."""
    return Headroom(0, room(free), room(idle + warm), {"work": warm} if warm else {})


def offer(*, free: int = 0, idle: int = 0, warm: int = 0, running: dict[str, int] | None = None) -> Offer:
    """Return what another one has."""
    return Offer(
        address="127.0.0.1:1",
        host="",
        tls=False,
        guarded=False,
        environments=0,
        free=room(free),
        idle=room(idle + warm),
        marks={"work": "m"},
        warm={"work": warm} if warm else {},
        running={"me": running} if running else {},
    )


@pytest.mark.parametrize(
    ("own", "others", "tried"),
    [
        pytest.param(here(free=3), {}, "-", id="alone"),
        pytest.param(here(), {}, "-", id="alone and full"),
        pytest.param(here(warm=1), {"a": offer(warm=5)}, "-a", id="warm here before warm elsewhere"),
        pytest.param(here(free=3), {"a": offer(warm=1)}, "a-", id="warm elsewhere before new here"),
        pytest.param(here(free=1), {"a": offer(free=1)}, "-a", id="new here before new elsewhere"),
        pytest.param(here(), {"a": offer(free=9), "b": offer(free=2), "c": offer(free=4)}, "bca-", id="fullest first"),
        pytest.param(here(), {"a": offer(), "b": offer(free=1)}, "b-", id="full ones are not asked"),
        pytest.param(here(idle=1), {"a": offer(free=1)}, "a-", id="room elsewhere before ending idle ones here"),
        pytest.param(here(idle=1), {"a": offer(idle=1)}, "-a", id="idle ones end here first"),
        pytest.param(here(), {"a": offer(idle=1), "b": offer(free=7)}, "ba-", id="idle ones elsewhere end last"),
        pytest.param(here(), {"a": offer(warm=1, free=8), "b": offer(warm=1)}, "ba-", id="the fullest of the warm"),
        pytest.param(here(), {"b": offer(free=1), "a": offer(free=1)}, "ab-", id="alike: always the same way"),
        pytest.param(here(), {name: offer(free=1) for name in "edcba"}, "abc-", id="not everybody is asked"),
    ],
)
def test_where_an_invocation_is_tried(own: Headroom, others: dict[str, Offer], tried: str) -> None:
    """The order is that of the module's first words; - is this node."""
    offers = {NodeId(name): one for name, one in others.items()}
    assert "".join(node or "-" for node in order("work", MB, own, offers)) == tried


def test_memory_counts_and_not_only_number() -> None:
    """A node with many free places and little memory is no place for a large function."""
    offers = {NodeId("a"): offer(free=4)}
    assert order("work", 4 * MB, here(), offers) == ["a", None]
    assert order("work", 4 * MB + 1, here(), offers) == [None]


capacities = st.builds(Capacity, st.integers(0, 5), st.integers(0, 1000))
warmth = st.dictionaries(st.sampled_from(["work", "other"]), st.integers(0, 3))
headrooms = st.builds(Headroom, st.just(0), capacities, capacities, warmth)
offers_made = st.builds(
    lambda free, idle, warm: Offer("a:1", "", False, False, 0, free, idle, {}, warm),
    capacities,
    capacities,
    warmth,
)


@given(
    own=headrooms,
    others=st.dictionaries(st.text("abcdef", min_size=1), offers_made, max_size=8),
    memory_mb=st.integers(1, 1200),
)
def test_nothing_is_tried_where_it_does_not_fit(own: Headroom, others: dict[str, Offer], memory_mb: int) -> None:
    """This node is tried exactly once, few others are, none twice, and none that has neither warmth nor room."""
    offers = {NodeId(name): one for name, one in others.items()}
    tried = order("work", memory_mb, own, offers)
    assert tried.count(None) == 1
    assert len(tried) == len(set(tried)) <= MOST_TRIED + 1
    for node in tried:
        if node is not None:
            one = offers[node]
            assert one.warm.get("work") or one.free.plus(one.idle).fits(memory_mb)
    assert order("work", memory_mb, own, dict(reversed(offers.items()))) == tried


@given(made=offers_made, memory_mb=st.integers(1, 400), names=st.lists(st.sampled_from(["work", "other"]), max_size=12))
def test_what_was_sent_never_exceeds_what_was_offered(made: Offer, memory_mb: int, names: list[str]) -> None:
    """Sending only while there is warmth or room, no more new environments are asked for than memory allows."""
    sent: Counter[str] = Counter()
    fresh = 0
    for name in names:
        left = beside(made, {}, sent, dict.fromkeys(names, memory_mb))
        if left.warm.get(name, 0) == 0:
            if not left.free.fits(memory_mb):
                continue
            fresh += 1
        sent[name] += 1
    assert fresh * memory_mb <= made.free.memory_mb
    assert fresh <= made.free.environments
    assert sent.total() - fresh <= sum(made.warm.values())


def test_the_mark_tells_functions_apart() -> None:
    """It is the same wherever the code lies, and another one for another definition or code."""
    mark = mark_of(FUNCTION, "c0de")
    assert mark == mark_of(replace(FUNCTION, code="/elsewhere", http=True), "c0de")
    others = [
        mark_of(FUNCTION, "c0de2"),
        mark_of(replace(FUNCTION, memory_mb=256), "c0de"),
        mark_of(replace(FUNCTION, timeout_s=4.0), "c0de"),
        mark_of(replace(FUNCTION, isolation=Isolation.BUBBLEWRAP), "c0de"),
        mark_of(replace(FUNCTION, environment={"A": SecretText("${env:A}")}), "c0de"),
    ]
    assert len({mark, *others}) == 6


def test_offers_of_other_versions_are_left_out() -> None:
    """What cannot be read is no offer; fields that are new are no hindrance."""
    made = offer(free=1)
    longer = made.encode()[:-1] + b',"new":1}'
    assert decode_offers({NodeId("a"): b'{"v":2}', NodeId("b"): b"\xff", NodeId("c"): longer}) == {NodeId("c"): made}


# A neighbour


def known(one: Neighbour, now: float = 0.0) -> Offer:
    """Return what a neighbour that may be asked has."""
    view = one.view("me", now)
    assert view is not None
    return view


def test_what_was_sent_comes_off_an_offer() -> None:
    """Invocations that the offer has not counted have taken its room; those it has counted are in it."""
    one = Neighbour(offer(free=2))
    key = one.sent("work", MB)
    assert known(one).free == room(1)
    one.offer = offer(free=1, running={"work": 1})
    assert known(one).free == room(1)
    one.sent("work", MB)
    assert known(one).free == room(0)
    one.ended(key)
    one.ended(key)
    assert known(one) == one.offer


def test_an_environment_of_ours_that_is_done_waits() -> None:
    """An offer made while it was busy says no such thing; one more than that is not there."""
    one = Neighbour(offer(running={"work": 1}))
    assert known(one).free == room(0)
    assert (known(one).warm, known(one).idle) == ({"work": 1}, Capacity(1, 0))
    key = one.sent("work", MB)
    assert known(one).warm.get("work", 0) == 0
    one.ended(key)
    assert (known(one).warm, known(one).idle) == ({"work": 1}, room(1))


def test_a_node_without_room_gets_no_more_than_it_has() -> None:
    """Shortly after a refusal a new invocation is sent only in the place of one that has ended."""
    one = Neighbour(offer(free=9))
    first, refused = one.sent("work", MB), one.sent("work", MB)
    one.refused(refused, 0.0, away=False)
    assert one.view("me", FULL_S - 0.01) is None
    one.ended(first)
    assert known(one, FULL_S - 0.01).free == room(9)
    one.sent("work", MB)
    assert one.view("me", FULL_S - 0.01) is None
    assert known(one, FULL_S).free == room(8)


def test_a_node_that_was_not_reached_is_left_alone() -> None:
    """For some seconds it gets nothing at all."""
    one = Neighbour(offer(free=9))
    one.sent("work", MB)
    one.refused(one.sent("work", MB), 0.0, away=True)
    assert one.away
    assert one.view("me", AWAY_S - 0.01) is None
    assert known(one, AWAY_S).free == room(8)
