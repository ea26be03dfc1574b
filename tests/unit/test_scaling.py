"""How much of a queue is worked on at once, and by whom."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.ids import TRACKER, FencingToken, ShardKey
from model.lease import Lease
from model.progress import Ledger, ProgressUpdate, ShardReport
from pollers.queue_ports import QueueFacts
from statemgr.memory_store import MemoryStore
from statemgr.queue_scaler import QueueScaler
from statemgr.scaling import (
    Allotment,
    QueueUse,
    Scale,
    ScalingLimits,
    begin,
    rescale,
    shard_index,
    shard_name,
    share,
    wanted,
)
from tests.support.pump_fakes import MAPPING, NODE
from tests.support.queue_rig import sqs_mapping

DEFAULT = ScalingLimits.of(sqs_mapping())


def course(limits: ScalingLimits, minutes: float, *, backlog: int, used: float, scale: Scale | None = None) -> Scale:
    """Scale every five seconds, with a part of the present concurrency used."""
    now = 0.0 if scale is None else scale.at
    scale = scale or begin(limits, now)
    for _ in range(int(minutes * 12)):
        now += 5
        present = int(scale.concurrency)
        use = QueueUse(int(present * used), present)
        scale = rescale(scale, limits, backlog=backlog, uses=[use], now=now)
    return scale


def test_limits_come_from_the_mapping() -> None:
    """On demand, with a maximum, and with provisioned pollers of ten invocations each."""
    capped = sqs_mapping(ScalingConfig={"MaximumConcurrency": 3})
    provisioned = sqs_mapping(ProvisionedPollerConfig={"MinimumPollers": 2, "MaximumPollers": 20})
    assert ScalingLimits(2, 5, 1250, 300) == DEFAULT
    assert ScalingLimits.of(capped) == ScalingLimits(3, 3, 3, 300)
    assert ScalingLimits.of(provisioned) == ScalingLimits(20, 20, 200, 1000)


def test_it_grows_by_three_hundred_a_minute_while_there_is_backlog() -> None:
    """From 5 at first up to 1,250."""
    assert course(DEFAULT, 0, backlog=9, used=1).concurrency == 5
    assert course(DEFAULT, 1, backlog=9, used=1).concurrency == 305
    assert course(DEFAULT, 10, backlog=9, used=1).concurrency == 1250


def test_it_does_not_grow_when_what_there_is_is_not_used() -> None:
    """Without backlog, or when the function allows less, more would be of no use."""
    assert course(DEFAULT, 5, backlog=0, used=1).concurrency == 5
    assert course(DEFAULT, 5, backlog=9, used=0.6).concurrency == 5
    grown = course(DEFAULT, 1, backlog=9, used=1)
    reduced = [QueueUse(300, 20)]
    assert rescale(grown, DEFAULT, backlog=9, uses=reduced, now=grown.at + 5).concurrency == grown.concurrency
    first = begin(DEFAULT, 0)
    throttled = [QueueUse(1, 0)] * 5  # each of five pollers has its one batch waiting
    assert rescale(first, DEFAULT, backlog=9, uses=throttled, now=5).concurrency == 5


def test_it_falls_back_when_little_is_used_and_to_two_when_idle() -> None:
    """Halved every quiet minute down to 5; after five idle minutes 2; at once 5 again with a backlog."""
    grown = course(DEFAULT, 1, backlog=9, used=1)
    assert course(DEFAULT, 1, backlog=0, used=0.1, scale=grown).concurrency == 152.5
    quiet = course(DEFAULT, 10, backlog=0, used=0, scale=grown)
    assert quiet.concurrency in (2, 5)
    idle = course(DEFAULT, 10, backlog=0, used=0, scale=quiet)
    assert idle.concurrency == 2
    assert rescale(idle, DEFAULT, backlog=1, uses=[], now=idle.at + 5).concurrency == 5


def test_with_a_maximum_or_provisioned_pollers_it_stays_in_bounds() -> None:
    """MaximumConcurrency keeps its five when idle; MinimumPollers stay on."""
    capped = ScalingLimits.of(sqs_mapping(ScalingConfig={"MaximumConcurrency": 7}))
    provisioned = ScalingLimits.of(sqs_mapping(ProvisionedPollerConfig={"MinimumPollers": 3, "MaximumPollers": 5}))
    assert course(capped, 5, backlog=9, used=1).concurrency == 7
    assert course(capped, 60, backlog=0, used=0).concurrency == 5
    assert course(provisioned, 60, backlog=0, used=0).concurrency == 30
    assert course(provisioned, 5, backlog=9, used=1).concurrency == 50


@given(st.integers(2, 1250), st.data())
def test_shares_add_up_and_stale_ones_never_exceed_the_maximum(maximum: int, data: st.DataObject) -> None:
    """Pollers that know of different concurrencies stay within the maximum together."""
    limits = ScalingLimits(2, min(5, maximum), maximum, 300)
    for concurrency in data.draw(st.lists(st.integers(2, maximum), min_size=1, max_size=5)):
        shares = [share(index, concurrency, limits) for index in range(limits.shards)]
        assert sum(shares) == concurrency
        names = [shard.key.shard for shard in wanted(MAPPING, concurrency, limits)]
        assert names == [shard_name(index) for index, part in enumerate(shares) if part]
        assert [shard_index(name) for name in names] == list(range(len(names)))
    stale = [share(index, data.draw(st.integers(2, maximum)), limits) for index in range(limits.shards)]
    assert sum(stale) <= maximum


def test_unreadable_state_counts_as_none() -> None:
    """Another version, or another kind of tracker, may have written it."""
    assert (Allotment.decode(b""), Allotment.decode(b"{}"), QueueUse.decode(b"junk")) == (None, None, QueueUse())
    assert Allotment.decode(Allotment(7, 3).encode()) == Allotment(7, 3)
    assert QueueUse.decode(QueueUse(2, 5).encode()) == QueueUse(2, 5)


@pytest.mark.looptime
async def test_a_scaler_reads_what_the_pollers_report_and_goes_on_where_its_predecessor_was() -> None:
    """Backlog and use make it grow; the allotment it saves is where the next holder of the tracker begins."""
    loop = asyncio.get_running_loop()
    store = MemoryStore(loop.time)
    scaler = QueueScaler(store, MAPPING, clock=loop.time, before=None)
    facts = QueueFacts(30, 1000, 50)
    assert await scaler.shards(facts, DEFAULT) == [shard_name(index) for index in range(5)]
    for index in range(5):
        key = ShardKey(MAPPING, shard_name(index))
        lease = Lease(key, NODE, FencingToken(1))
        update = ProgressUpdate(key, lease.token, NODE, None, Ledger(), ShardReport(), QueueUse(1, 1).encode())
        await store.save([update])
    await asyncio.sleep(5)
    assert len(await scaler.shards(facts, DEFAULT)) == 16
    assert Allotment.decode(scaler.state()) == Allotment(30, 1000)
    successor = QueueScaler(store, MAPPING, clock=loop.time, before=Allotment.decode(scaler.state()))
    assert len(await successor.shards(facts, DEFAULT)) == 16
    assert shard_name(0) != TRACKER
