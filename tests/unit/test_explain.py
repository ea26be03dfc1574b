"""Why a mapping is where it is: `controlplane.explain`, in plain words too."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.explain import read_explanation
from controlplane.plain_words import span
from controlplane.status import nothing_live, read_status
from model.errors import NotFoundError
from model.ids import TRACKER, ShardKey
from model.lease import Member, Role
from model.mapping import MappingState
from model.progress import (
    Blocking,
    CircuitReport,
    CircuitState,
    Ledger,
    ParkedKey,
    ShardReport,
    ShardState,
    Succession,
    Tenure,
    WaitsFor,
)
from statemgr.memory_store import MemoryStore
from statemgr.scaling import Allotment, QueueUse
from tests.support.fleet_values import ANN, LONG_S, ORDERS, mapping_record, shard, take, track, update

if TYPE_CHECKING:
    from model.lease import Lease

NOW_S = 1_790_000_000.0
READING = ShardReport(ShardState.READING, lag_records=0, lag_s=1.2, last_result="OK")
BLOCKED = Blocking("4711", "k", 10, 12, 13, 12, NOW_S - 300, NOW_S + 40)
RETRYING = ShardReport(
    ShardState.RETRYING,
    lag_s=310.0,
    last_result="PROBLEM: Function call failed",
    last_error="KeyError: 'amount'",
    loss_in_s=18_000.0,
    error_time=NOW_S - 20,
    waits_for=WaitsFor.FUNCTION,
    blocking=BLOCKED,
    tenures=(
        Tenure(1, "old-1", NOW_S - 9000, Succession.FIRST),
        Tenure(2, "ann-1", NOW_S - 60, Succession.HOLDER_LOST),
    ),
)
PARKED = replace(READING, parked_keys=(ParkedKey("k", 3, 300, NOW_S - 120, 4, "boom"),))


@pytest.fixture
def store() -> MemoryStore:
    """Return an empty store whose time stands still."""
    return MemoryStore(lambda: NOW_S)


async def explained(store: MemoryStore, name: str = "orders", live: Any = nothing_live) -> dict[str, Any]:
    """Return the explanation as its reader sees it."""
    told = await read_explanation(store, ANN, name, live, now_s=NOW_S)
    return msgspec.json.decode(msgspec.json.encode(told), type=dict[str, Any])


async def enabled(store: MemoryStore, shards: int = 1) -> Lease:
    """Put an enabled mapping with shards that the one node holds; return its tracker's lease."""
    tracker = await track(store, shards=shards)
    await store.set_mapping_state(ORDERS, MappingState.ENABLED, "USER_INITIATED", tracker=tracker)
    return tracker


async def reported(store: MemoryStore, *reports: ShardReport) -> None:
    """Have each shard's holder save a report."""
    for number, report in enumerate(reports):
        lease = await take(store, ANN, shard(number))
        await store.save([update(lease, "42", report=report)])


async def said(store: MemoryStore, *reports: ShardReport) -> str:
    """Return what is said of an enabled mapping whose shards report this."""
    await enabled(store, shards=len(reports))
    await reported(store, *reports)
    return " ".join((await explained(store))["summary"])


async def test_a_blocked_shard_is_told_in_full(store: MemoryStore) -> None:
    """The record, its attempts, the last error and when, the next try, the time to loss, and who held it."""
    text = await said(store, READING, RETRYING)
    told = await explained(store)
    assert text == (
        "Shard orders-1 waits for record 4711 of key k: the function has failed 12 times with KeyError: 'amount'; "
        "tried again in 40 s; nothing is lost before 5 h."
    )
    assert (told["shards_reading"], told["furthest_behind_s"], told["pollers"]) == (1, 1.2, 1)
    (one,) = told["shards"]
    assert one["id"] == "orders-1"
    assert one["blocking"] == {
        "record": "4711",
        "key": "k",
        "records": 10,
        "function_errors": 12,
        "invocations": 13,
        "setbacks": 12,
        "since_s": 300.0,
        "retry_in_s": 40.0,
        "others": 0,
    }
    assert (one["waits_for"], one["error_age_s"], one["loss_in_s"]) == ("function", 20.0, 18_000.0)
    assert [(holder["node"], holder["succession"]) for holder in one["holders"]] == [
        ("old-1", "first"),
        ("ann-1", "holder_lost"),
    ]


async def test_what_is_well_is_said_to_be(store: MemoryStore) -> None:
    """Shards that are simply being read are counted only."""
    assert await said(store, READING, READING) == (
        "All is well: 2 shards are being read; the oldest unfinished record is 1 s old."
    )
    assert (await explained(store))["shards"] == []


async def test_the_shard_that_someone_must_see_to_comes_first(store: MemoryStore) -> None:
    """Then the one that loses records next; how many more there are is said."""
    failed = ShardReport(ShardState.FAILED, last_error="no such topic", waits_for=WaitsFor.SOURCE)
    soon = replace(RETRYING, loss_in_s=60.0)
    text = await said(store, RETRYING, soon, failed)
    assert text.startswith("Shard orders-2 is not read, since its source refuses: no such topic.")
    assert text.endswith("2 more shards are not simply being read.")


WAITING = ShardState.WAITING
THROTTLED = msgspec.structs.replace(BLOCKED, failures=0)


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (
            ShardReport(WAITING, last_error="429", waits_for=WaitsFor.FUNCTION, blocking=THROTTLED),
            (
                "Shard orders-0 waits for record 4711 of key k: the function takes nothing now (429), which uses up no "
                "retry; tried again in 40 s."
            ),
        ),
        (
            ShardReport(
                WAITING,
                last_error="on-failure destination: SQS queue q: no answer",
                waits_for=WaitsFor.DESTINATION,
                blocking=BLOCKED,
            ),
            (
                "Shard orders-0 waits with record 4711 of key k until the on-failure destination takes it: SQS queue "
                "q: no answer; tried again in 40 s."
            ),
        ),
        (
            ShardReport(WAITING, last_error="the parking lot is full", waits_for=WaitsFor.PARKING_LOT),
            "Shard orders-0 reads no further: its parking lot is full, and nothing in it may be given up.",
        ),
        (
            ShardReport(WAITING, last_error="no broker", waits_for=WaitsFor.SOURCE, loss_in_s=0.0),
            (
                "Shard orders-0 is not read, since its source does not answer: no broker; records are being lost to "
                "the source's retention."
            ),
        ),
        (
            replace(READING, lag_s=7200.0, loss_in_s=3600.0),
            "Shard orders-0 is read, but more slowly than it grows: it is behind by 2 h; nothing is lost before 1 h.",
        ),
        (ShardReport(ShardState.DRAINING), "Shard orders-0 is just being handed over by ann-1."),
        (ShardReport(ShardState.FAILED, last_error="bad. "), "Shard orders-0 is failed: bad."),
        (
            PARKED,
            (
                "Key k is parked with 3 records, the longest since 2 min, because of boom; everything else goes on, "
                "and `esmd redrive orders --from parked` tries them at once."
            ),
        ),
    ],
)
async def test_each_trouble_in_plain_words(store: MemoryStore, report: ShardReport, expected: str) -> None:
    """One sentence, with what to know and what comes next."""
    assert await said(store, report) == expected


async def test_a_function_that_is_not_called_is_the_trouble_of_all_its_shards(store: MemoryStore) -> None:
    """Said once, with what the circuit knows; a shard in another trouble is told instead."""
    opened = CircuitReport(CircuitState.OPEN, int((NOW_S - 120) * 1000), int((NOW_S + 12) * 1000), "503")
    waiting = ShardReport(WAITING, last_error="503", waits_for=WaitsFor.FUNCTION, circuit=opened, loss_in_s=7200.0)
    await enabled(store, shards=2)
    await reported(store, waiting, replace(RETRYING, circuit=opened))
    told = await explained(store)
    assert told["circuit"]["state"] == "open"
    assert told["summary"] == [
        (
            "The function is not called since 2 min, because it throttles or is not reached (503), which uses up no "
            "retry; tried again in 12 s; 2 shards wait for it; nothing is lost before 2 h."
        )
    ]


async def test_parked_keys_are_told_beside_a_worse_trouble(store: MemoryStore) -> None:
    """Two sentences at most."""
    await enabled(store, shards=2)
    await reported(store, PARKED, RETRYING)
    summary = (await explained(store))["summary"]
    assert len(summary) == 2
    assert summary[0].startswith("Shard orders-1 waits for record 4711")
    assert summary[1].startswith("Key k is parked with 3 records")


async def test_a_queue_tells_its_concurrency_and_what_is_held_up(store: MemoryStore) -> None:
    """What the state manager allows, what the pollers allow themselves and use, and the group that waits."""
    tracker = await enabled(store)
    await store.save([update(tracker, state=Allotment(8, 120).encode())])
    lease = await take(store, ANN, shard(0))
    report = replace(RETRYING, blocking=Blocking("m-1", "g", 1, 3, 3, 3, NOW_S, NOW_S + 20), loss_in_s=None)
    await store.save([update(lease, None, report=report, state=QueueUse(2, 4).encode())])
    told = await explained(store)
    assert told["queue"] == {"concurrency": 8, "backlog": 120, "busy": 2, "allowed_by_pollers": 4}
    assert told["summary"] == [
        (
            "Message m-1 holds up its group g: the function failed on it, the last time with KeyError: 'amount'; it "
            "was received 3 times and shows again in 20 s."
        )
    ]


async def test_a_shard_without_holder(store: MemoryStore) -> None:
    """It is taken within seconds, unless nobody polls: then that is the trouble."""
    await enabled(store)
    assert (await explained(store))["summary"] == [
        "Shard orders-0 is held by no node; one of the 1 that poll takes it within seconds."
    ]
    await store.join(Member(ANN, frozenset({Role.STATEMGR})), ttl_s=LONG_S)
    assert (await explained(store))["summary"] == [
        "No node of the fleet polls, so orders is not read: start one with `esmd run`."
    ]


async def test_the_mappings_own_state_and_its_reason(store: MemoryStore) -> None:
    """Disabled, on its way, or without an answer of its source."""
    tracker = await track(store, shards=0)
    assert (await explained(store))["summary"] == ["orders is being created: its state manager is at work on it."]
    report = ShardReport(ShardState.FAILED, last_error="no such topic")
    await store.save([update(tracker, report=report)])
    assert (await explained(store))["summary"] == [
        "orders cannot ask its source for its shards: no such topic. It asks again by itself."
    ]
    await store.set_mapping_state(ORDERS, MappingState.DISABLED, "USER_INITIATED", tracker=tracker)
    told = await explained(store)
    assert (told["state"], told["state_reason"], told["changed_s"]) == ("Disabled", "USER_INITIATED", 0.0)
    assert told["summary"] == [
        "orders is disabled and reads nothing; its checkpoints stay where they are until it is enabled."
    ]


async def test_a_mapping_that_is_moved_says_so(store: MemoryStore) -> None:
    """In the summary, and in the status as a flag, until the wish is met."""
    tracker = await enabled(store)
    await store.wish_seek(ORDERS, "{}")
    moving = await explained(store)
    assert moving["summary"] == ["orders is being moved to another position: what is under way is finished first."]
    assert (await read_status(store, ANN)).mappings[0].seeking
    await store.move(ORDERS, [], tracker=tracker, wish=1)
    assert not (await explained(store))["seeking"]
    assert not (await read_status(store, ANN)).mappings[0].seeking


async def test_a_mapping_is_found_by_name_or_id(store: MemoryStore) -> None:
    """An unknown one is said to be, with those there are."""
    await store.put_mapping(mapping_record())
    assert (await explained(store, str(ORDERS).upper()))["name"] == "orders"
    with pytest.raises(NotFoundError, match="no mapping nobody; the fleet has: orders"):
        await explained(store, "nobody")


async def test_shards_held_by_the_answering_node_are_as_they_are_now(store: MemoryStore) -> None:
    """Memory is fresher than the last checkpoint."""
    await enabled(store)
    await reported(store, READING)
    told = await explained(store, live=lambda key: (RETRYING, Ledger()) if key.shard != TRACKER else None)
    assert told["shards"][0]["blocking"]["record"] == "4711"


async def test_a_trackers_key_is_no_shard(store: MemoryStore) -> None:
    """It is told of as the mapping's state."""
    tracker = await enabled(store, shards=0)
    assert tracker.key == ShardKey(ORDERS, TRACKER)
    told = await explained(store)
    assert (told["shards"], told["summary"]) == ([], ["orders has no shards to read."])


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.4, "less than a second"), (1, "1 s"), (59.4, "59 s"), (90, "2 min"), (18_000, "5 h"), (200_000, "2 d")],
)
def test_durations_as_people_say_them(seconds: float, expected: str) -> None:
    """The largest unit that is filled."""
    assert span(seconds) == expected


@given(
    st.builds(
        ShardReport,
        state=st.sampled_from(ShardState),
        circuit=st.none() | st.builds(CircuitReport, st.sampled_from(CircuitState)),
        lag_s=st.none() | st.floats(0, 1e6),
        last_error=st.none() | st.text(),
        loss_in_s=st.none() | st.floats(0, 1e6),
        waits_for=st.none() | st.sampled_from(WaitsFor),
        blocking=st.none() | st.just(BLOCKED),
        parked_keys=st.just(()) | st.just(PARKED.parked_keys),
    )
)
async def test_whatever_a_shard_reports_something_is_said(report: ShardReport) -> None:
    """One or two sentences, each with an end."""
    store = MemoryStore(lambda: NOW_S)
    await enabled(store)
    await reported(store, report)
    summary = (await explained(store))["summary"]
    assert 1 <= len(summary) <= 2
    assert all(sentence.endswith(".") for sentence in summary)


async def test_a_schedule_says_when_it_fires_next(store: MemoryStore) -> None:
    """As a time, and in how long; in plain words too when all is well."""
    await enabled(store)
    await reported(store, replace(READING, next_s=int(NOW_S) + 300))
    told = await explained(store)
    assert (told["next_firing"], told["next_firing_in_s"]) == ("2026-09-21T14:18:20Z", 300.0)
    assert told["summary"] == ["All is well: orders fires next at 2026-09-21T14:18:20Z, in 5 min."]
