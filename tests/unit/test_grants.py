"""How many slots a node holds, when it asks for more and when it gives back."""

from __future__ import annotations

import asyncio
import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from invocation.grants import AGAIN_S, KEEP_S, LOOK_S, Answer, Grants
from model.concurrency import CountReply, Pool, PoolGrant, PoolWish, share
from model.function_config import FunctionPart
from statemgr.memory_store import MemoryStore

BILLING = Pool("billing")
TTL_S = 5.0


def in_use(grants: Grants) -> int:
    """Return how many slots a node uses."""
    slots = grants._pools.get(BILLING)
    return 0 if slots is None else slots.in_use


def told(grants: Grants, now: float, grant: PoolGrant, *, waiting: int = 0, holders: int = 1) -> list[PoolWish]:
    """Have the store answer a call for one pool; return what it was told."""
    wishes = grants.wishes({BILLING: waiting}, now)
    grants.answered(wishes, CountReply([grant], holders, 0), trusted_until=now + TTL_S)
    return wishes


@pytest.mark.parametrize(("limit", "holders"), [(7, 3), (2, 5), (0, 1), (1000, 7)])
def test_all_shares_are_the_limit(limit: int, holders: int) -> None:
    """The fallback shares of all nodes together are exactly the limit, and differ by one at most."""
    shares = [share(limit, holders=holders, rank=rank) for rank in range(holders)]
    assert sum(shares) == limit
    assert max(shares) - min(shares) <= 1


def test_a_slot_in_hand_needs_no_question() -> None:
    """What the store granted is taken at once; beyond it the store is asked."""
    grants = Grants(ttl_s=TTL_S)
    assert grants.take(BILLING, 7, 0.0) is Answer.ASK
    assert told(grants, 0.0, PoolGrant(7, 2, 0), waiting=2) == [PoolWish(BILLING, 0, 0, 2, 0)]
    assert [grants.take(BILLING, 7, 0.1) for _ in range(3)] == [Answer.TAKEN, Answer.TAKEN, Answer.ASK]
    assert in_use(grants) == 2


def test_slots_used_lately_are_kept_where_there_is_room() -> None:
    """A node that is alone keeps what it used, and some more to hand, until it was idle for a while."""
    grants = Grants(ttl_s=TTL_S)
    told(grants, 0.0, PoolGrant(100, 8, 0), waiting=8)
    for _ in range(8):
        grants.take(BILLING, 100, 0.0)
    assert told(grants, 0.1, PoolGrant(100, 9, 0)) == [PoolWish(BILLING, 8, 8, 0, 1)]
    assert not any(grants.give(BILLING, 0.2) for _ in range(8))
    assert grants.wishes({}, 0.3) == [PoolWish(BILLING, 0, 9, 0, 0)]
    grants.wishes({}, 0.3 + KEEP_S)
    assert grants.wishes({}, 0.4 + 2 * KEEP_S) == [PoolWish(BILLING, 0, 0, 0, 0)]


def test_where_little_is_free_slots_go_back_at_once() -> None:
    """With others and hardly anything free nothing is kept to hand."""
    grants = Grants(ttl_s=TTL_S)
    told(grants, 0.0, PoolGrant(7, 3, 4), waiting=3, holders=2)
    for _ in range(3):
        grants.take(BILLING, 7, 0.0)
    assert grants.give(BILLING, 0.1)
    assert grants.wishes({}, 0.1) == [PoolWish(BILLING, 2, 2, 0, 0)]


def test_what_is_given_back_is_not_used_any_more() -> None:
    """From the moment the store is told of it, a slot that goes back cannot be taken here."""
    grants = Grants(ttl_s=TTL_S)
    told(grants, 0.0, PoolGrant(7, 1, 6), waiting=1, holders=2)
    grants.take(BILLING, 7, 0.0)
    grants.give(BILLING, 0.1)
    grants.wishes({}, 0.1)
    assert grants.take(BILLING, 7, 0.1) is Answer.ASK


def test_those_who_wait_get_what_came_back_meanwhile() -> None:
    """A slot given back while others wait is kept for them instead of asked for again."""
    grants = Grants(ttl_s=TTL_S)
    told(grants, 0.0, PoolGrant(7, 1, 6), waiting=1, holders=2)
    grants.take(BILLING, 7, 0.0)
    grants.give(BILLING, 0.1)
    assert grants.wishes({BILLING: 2}, 0.1) == [PoolWish(BILLING, 0, 1, 1, 0)]


def test_a_store_that_fails_leaves_what_is_trusted_and_then_the_share() -> None:
    """Slots in hand are good until their trust ends; from then on the share is, until the store answers again."""
    grants = Grants(ttl_s=TTL_S)
    told(grants, 0.0, PoolGrant(7, 1, 0), waiting=1, holders=3)
    grants.failed()
    assert [grants.take(BILLING, 7, 1.0) for _ in range(2)] == [Answer.TAKEN, Answer.REFUSED]
    grants.give(BILLING, 1.0)
    late = 1.3 * TTL_S + 0.1
    assert not grants.in_fallback(late - 0.2)
    assert grants.take(BILLING, 7, late - 0.2) is Answer.REFUSED  # others may trust theirs still
    assert grants.in_fallback(late)
    assert [grants.take(BILLING, 7, late) for _ in range(4)] == 3 * [Answer.TAKEN] + [Answer.REFUSED]
    assert not grants.give(BILLING, late)
    told(grants, late + 1, PoolGrant(7, 2, 5), holders=3)
    assert not grants.in_fallback(late + 1)
    assert grants.take(BILLING, 7, late + 1) is Answer.ASK


def test_without_any_answer_ever_there_is_nothing() -> None:
    """A node that has not reached the store once knows no share, and takes nothing."""
    grants = Grants(ttl_s=TTL_S)
    grants.failed()
    assert grants.take(BILLING, 7, 100.0) is Answer.REFUSED
    assert not grants.in_fallback(100.0)


def test_a_node_that_slept_asks_before_it_falls_back() -> None:
    """After a suspend the trust is over, but nobody says that the store is away."""
    grants = Grants(ttl_s=TTL_S)
    told(grants, 0.0, PoolGrant(7, 7, 0), waiting=7)
    assert grants.take(BILLING, 7, 3600.0) is Answer.ASK


def test_the_share_stays_while_the_store_gets_to_know_everybody() -> None:
    """A store that has just come back counts fewer nodes than there are; that makes nobody's share larger."""
    grants = Grants(ttl_s=TTL_S)
    told(grants, 0.0, PoolGrant(7, 0, 0), holders=3)
    for reply, holders in (
        (CountReply([], 1, 0, calm=False), 3),
        (CountReply([], 4, 2, calm=False), 4),
        (CountReply([], 2, 1), 2),
    ):
        grants.answered([], reply, trusted_until=TTL_S)
        assert grants.holders == holders


def test_a_node_that_has_just_started_is_on_no_share() -> None:
    """The store is told of a share only by those that may be at work on one: so a fresh fleet has the whole limit."""
    grants = Grants(ttl_s=TTL_S)
    grants.answered([], CountReply([], 2, 1, calm=False), trusted_until=TTL_S)
    assert grants.told == (1, 0)
    calm, failed = Grants(ttl_s=TTL_S), Grants(ttl_s=TTL_S)
    calm.answered([], CountReply([], 2, 1), trusted_until=TTL_S)
    failed.answered([], CountReply([], 2, 1, calm=False), trusted_until=TTL_S)
    failed.failed()
    assert (calm.told, failed.told) == ((2, 1), (2, 1))


def test_the_store_hears_of_a_node_in_any_case() -> None:
    """Slots in hand are looked after often, an idle node says that it is there, a store that fails is tried again."""
    grants = Grants(ttl_s=TTL_S)
    assert grants.next_call_at() < 0
    told(grants, 10.0, PoolGrant(7, 0, 0))
    assert grants.next_call_at() == 10.0 + TTL_S / 5
    told(grants, 20.0, PoolGrant(7, 1, 0), waiting=1)
    assert grants.next_call_at() == 20.0 + LOOK_S
    grants.failed()
    assert grants.next_call_at() == 20.0 + AGAIN_S


LIMIT = 7
NODES = st.integers(0, 2)


class Fleet(RuleBasedStateMachine):
    """Three nodes share one limit; calls are lost on the way there or back, nodes hang, the limit is full and empty."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.runner = asyncio.Runner()
        self.store = MemoryStore(lambda: self.now)
        self.nodes = [Grants(ttl_s=TTL_S) for _ in range(3)]
        self.waiting = [0, 0, 0]
        self.coming: dict[int, tuple[list[PoolWish], CountReply | None, int, float]] = {}

    def teardown(self) -> None:
        """Close the loop."""
        self.runner.close()

    @initialize()
    def begin(self) -> None:
        """Reserve, and let every node be heard."""
        self.runner.run(self.store.functions.put_part("billing", FunctionPart.CONCURRENCY, str(LIMIT).encode()))
        for index in range(3):
            self.ask(index, "")
            self.hear(index)

    @rule(index=NODES, times=st.integers(1, 8))
    def take(self, index: int, times: int) -> None:
        """Want to start some invocations."""
        for _ in range(times):
            if self.nodes[index].take(BILLING, LIMIT, self.now) is Answer.ASK:
                self.waiting[index] += 1

    @rule(index=NODES, times=st.integers(1, 8))
    def give(self, index: int, times: int) -> None:
        """End some."""
        for _ in range(min(times, in_use(self.nodes[index]))):
            self.nodes[index].give(BILLING, self.now)

    @rule(index=NODES, lost=st.sampled_from(["", "", "", "back", "there"]))
    def ask(self, index: int, lost: str) -> None:
        """Tell the store, which decides; its answer is on the way, or lost."""
        self.hear(index)
        node = self.nodes[index]
        waiting, self.waiting[index] = self.waiting[index], 0
        wishes = node.wishes({BILLING: waiting} if waiting else {}, self.now)
        reply = None
        if lost != "there":
            holders, rank = node.told
            reply = self.runner.run(
                self.store.concurrency.count(
                    f"node-{index}", wishes, ttl_s=TTL_S, account=1000, holders=holders, rank=rank
                )
            )
        self.coming[index] = (wishes, None if lost else reply, waiting, self.now)

    @rule(index=NODES)
    def hear(self, index: int) -> None:
        """Hear the store's answer. Those who waited are then let in, or not."""
        node = self.nodes[index]
        coming = self.coming.pop(index, None)
        if coming is None:
            return
        wishes, reply, waiting, asked_at = coming
        if reply is None:
            node.failed()
        else:
            node.answered(wishes, reply, trusted_until=asked_at + TTL_S * 0.9)
        for _ in range(waiting):
            node.take(BILLING, LIMIT, self.now)

    @rule(seconds=st.floats(0.01, 1.0))
    def work(self, seconds: float) -> None:
        """Let time pass in which every node is heard often enough."""
        self.now += seconds
        for index in range(3):
            self.ask(index, "")
            self.hear(index)

    @invariant()
    def never_more_than_the_limit(self) -> None:
        """All nodes together stay within the limit while the store is heard."""
        assert sum(in_use(node) for node in self.nodes) <= LIMIT

    @rule()
    def one_alone_gets_everything(self) -> None:
        """When the others are idle for a moment, one node can use the whole limit."""
        for index, node in enumerate(self.nodes):
            self.hear(index)
            for _ in range(in_use(node)):
                node.give(BILLING, self.now)
        self.waiting = [0, 0, 0]
        for _ in range(30):
            self.work(LOOK_S)
        self.take(1, 2 * LIMIT)
        self.ask(1, "")
        self.hear(1)
        assert in_use(self.nodes[1]) == LIMIT


def test_a_fleet_never_runs_more_than_the_limit() -> None:
    """Whatever order things happen in and whichever calls are lost, all nodes together stay within the limit."""
    examples = int(os.environ.get("ESMD_TEST_EXAMPLES", "25"))
    run_state_machine_as_test(
        Fleet,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
