"""The fleet's status document."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.status import last_processing_result, natural_key, nothing_live, read_status
from model.async_event import NewEvent, partition_key
from model.errors import StoreUnavailableError
from model.ids import TRACKER, MappingId, ShardId, ShardKey
from model.lease import Member, Role
from model.placement import Capacity, Offer
from model.progress import CircuitReport, CircuitState, Ledger, ParkedKey, ShardProgress, ShardReport, ShardState
from model.shard import BEGINNING, END
from statemgr.memory_store import MemoryStore
from tests.support.fleet_values import ANN, BOB, LONG_S, ORDERS, mapping_record, shard, source, take, track, update

if TYPE_CHECKING:
    from collections.abc import Mapping

NOTHING_WAITS = {"events": 0, "bytes": 0, "oldest_age_s": None}
READING = ShardReport(ShardState.READING, lag_records=5, lag_s=1.23456, last_result="OK", remark="polled: no fan-out")


@pytest.fixture
def store() -> MemoryStore:
    """Return an empty store whose time stands still."""
    return MemoryStore(lambda: 1_790_000_000.0)


async def document(store: MemoryStore, live: Any = nothing_live, *, now_s: float = 0.0) -> dict[str, Any]:
    """Return the status as its reader sees it."""
    status = await read_status(store, ANN, live, now_s=lambda: now_s)
    return msgspec.json.decode(msgspec.json.encode(status), type=dict[str, Any])


async def test_the_keys_are_exactly_the_contracts(store: MemoryStore) -> None:
    """Key by key, in order, at every level."""
    await track(store)
    status = await document(store)
    assert list(status) == ["node", "nodes", "mappings", "async_invoke"]
    assert status["async_invoke"] == NOTHING_WAITS
    assert list(status["nodes"][0]) == ["id", "roles", "shards", "heartbeat_age_s", "zone", "environments"]
    (mapping,) = status["mappings"]
    assert list(mapping) == [
        "name",
        "uuid",
        "state",
        "last_processing_result",
        "circuit",
        "ledger",
        "shards",
        "seeking",
    ]
    assert list(mapping["circuit"]) == ["state", "since_s", "retry_in_s", "last_error", "limit"]
    counts = ["polled", "delivered", "filtered", "destination", "dropped", "parked", "in_flight", "balanced"]
    assert list(mapping["ledger"]) == counts
    shard_keys = [
        "id",
        "owner",
        "fencing_token",
        "checkpoint",
        "lag_records",
        "lag_s",
        "loss_in_s",
        "state",
        "last_error",
        "parked_keys",
        "remark",
        "load",
        "next_firing",
    ]
    assert list(mapping["shards"][0]) == shard_keys


async def test_what_nodes_offer_to_run_is_shown(store: MemoryStore) -> None:
    """Of a node that offers nothing, or what this version cannot read, it is null."""
    for node in (ANN, BOB):
        await store.join(Member(node), ttl_s=LONG_S)
    offer = Offer("a:1", "", False, False, 3, Capacity(5, 640), Capacity(1, 128), {"f": "m"}, {"f": 1})
    await store.placement.offer(ANN, offer.encode())
    await store.placement.offer(BOB, b"of another version")
    ann, bob = (await document(store))["nodes"]
    assert ann["environments"] == {"running": 3, "free": 5, "free_memory_mb": 640, "warm": {"f": 1}}
    assert bob["environments"] is None


async def test_a_fleet_without_mappings(store: MemoryStore) -> None:
    """Nothing there is a document too."""
    assert await document(store) == {"node": "ann-1", "nodes": [], "mappings": [], "async_invoke": NOTHING_WAITS}


async def test_asynchronous_invocations_that_wait(store: MemoryStore) -> None:
    """Their number, bytes and greatest age; partitions are neither mappings nor shards of a node."""
    await store.join(Member(ANN), ttl_s=LONG_S)
    partition = await store.events.append(NewEvent("f", "f", "r-1", "Root=1", b"{}"), (1, 2))
    await take(store, ANN, partition_key(partition))
    status = await document(store)
    assert status["async_invoke"] == {"events": 1, "bytes": 402, "oldest_age_s": 0.0}
    assert (status["mappings"], status["nodes"][0]["shards"]) == ([], 0)


async def test_what_the_holder_checkpointed_is_shown(store: MemoryStore) -> None:
    """Owner, token, checkpoint and lag of a shard come from the store, the ledger is the sum."""
    await track(store, shards=2)
    leases = [await take(store, ANN, shard(number)) for number in range(2)]
    await store.save([update(lease, "42", polled=10, report=READING) for lease in leases])
    status = await document(store)
    (node,) = status["nodes"]
    assert (node["id"], node["shards"], node["heartbeat_age_s"]) == ("ann-1", 2, 0.0)
    assert node["roles"] == sorted(Role)
    (mapping,) = status["mappings"]
    assert (mapping["name"], mapping["uuid"], mapping["state"]) == ("orders", str(ORDERS), "Creating")
    assert mapping["last_processing_result"] == "OK"
    assert mapping["ledger"]["polled"] == mapping["ledger"]["delivered"] == 20
    assert mapping["ledger"]["balanced"] is True
    assert mapping["shards"][0] == {
        "id": "orders-0",
        "owner": "ann-1",
        "fencing_token": leases[0].token,
        "checkpoint": "42",
        "lag_records": 5,
        "lag_s": 1.235,
        "loss_in_s": None,
        "state": "reading",
        "last_error": None,
        "parked_keys": [],
        "remark": "polled: no fan-out",
        "load": 1.0,
        "next_firing": None,
    }


async def test_parked_keys_are_shown_with_what_they_wait_for(store: MemoryStore) -> None:
    """Each with its count, size, age and last error, whoever holds the shard."""
    await track(store, shards=1)
    lease = await take(store, ANN, shard(0))
    report = replace(READING, parked_keys=(ParkedKey("k-1", 3, 360, 1000.0, 4, "boom"),))
    await store.save([update(lease, "42", report=report)])
    (parked,) = (await document(store, now_s=1060.5))["mappings"][0]["shards"][0]["parked_keys"]
    assert parked.pop("age_s") == 60.5
    assert parked == {"key": "k-1", "records": 3, "bytes": 360, "failures": 4, "last_error": "boom"}


async def test_a_shard_nobody_holds_is_unowned(store: MemoryStore) -> None:
    """What the last holder said about its state does not outlive it; its checkpoint does."""
    await track(store, shards=1)
    lease = await take(store, ANN, shard(0))
    await store.save([update(lease, "42", report=READING)])
    await store.release([lease])
    (one,) = (await document(store))["mappings"][0]["shards"]
    assert (one["owner"], one["state"], one["checkpoint"]) == (None, "unowned", "42")
    assert one["fencing_token"] == lease.token


async def test_a_new_holder_that_has_not_written_yet_is_starting(store: MemoryStore) -> None:
    """The state shown is never the former holder's."""
    await track(store, shards=1)
    await store.join(Member(BOB), ttl_s=LONG_S)
    lease = await take(store, ANN, shard(0))
    await store.save([update(lease, "42", report=READING)])
    await store.release([lease])
    again = await take(store, BOB, shard(0))
    (one,) = (await document(store))["mappings"][0]["shards"]
    assert (one["owner"], one["state"], one["fencing_token"]) == ("bob-1", "starting", again.token)


async def test_the_circuit_is_that_of_the_node_where_it_is_worst(store: MemoryStore) -> None:
    """Open before half-open before throttled before as usual; nobody's, when the holder has not reported yet."""
    now_s = 1_790_000_000.0
    reports = [
        CircuitReport(),
        CircuitReport(limit=9),
        CircuitReport(CircuitState.CLOSED, round((now_s - 60) * 1000), None, "HTTP 429", 4),
        CircuitReport(CircuitState.HALF_OPEN, round((now_s - 10) * 1000), round((now_s + 5) * 1000), "refused"),
        CircuitReport(CircuitState.OPEN, round((now_s - 30.5) * 1000), round((now_s + 2.25) * 1000), "away", 4),
    ]
    expected = [
        ("closed", None, None, None, None),
        ("closed", None, None, None, 9),
        ("closed", 60.0, None, "HTTP 429", 4),
        ("half_open", 10.0, 5.0, "refused", None),
        ("open", 30.5, 2.25, "away", 4),
    ]
    await track(store, shards=len(reports))
    for number, (report, shown) in enumerate(zip(reports, expected, strict=True)):
        lease = await take(store, ANN, shard(number))
        await store.save([update(lease, "42", report=replace(READING, circuit=report))])
        circuit = (await document(store, now_s=now_s))["mappings"][0]["circuit"]
        assert tuple(circuit.values()) == shown
    assert (await document(store, now_s=now_s + 3))["mappings"][0]["circuit"]["retry_in_s"] == 0
    await store.release([lease])
    await store.join(Member(BOB), ttl_s=LONG_S)
    assert (await document(store, now_s=now_s))["mappings"][0]["circuit"]["state"] == "half_open"
    await take(store, BOB, shard(4))
    assert (await document(store, now_s=now_s))["mappings"][0]["circuit"]["state"] == "half_open"


async def test_shards_held_by_the_answering_node_are_shown_as_they_are_now(store: MemoryStore) -> None:
    """Memory is fresher than the last checkpoint, for the node's own shards only."""
    await track(store, shards=2)
    lease = await take(store, ANN, shard(0))
    await store.save([update(lease, "42", polled=10, report=READING)])
    now = (replace(READING, state=ShardState.RETRYING, last_error="boom"), Ledger(polled=15, delivered=10, in_flight=5))
    (mapping,) = (await document(store, lambda _key: now))["mappings"]
    assert [one["state"] for one in mapping["shards"]] == ["retrying", "unowned"]
    assert mapping["shards"][0]["last_error"] == "boom"
    assert (mapping["ledger"]["polled"], mapping["ledger"]["in_flight"]) == (15, 5)
    assert mapping["ledger"]["balanced"] is True


async def test_an_imbalance_of_one_shard_is_not_evened_out_by_another(store: MemoryStore) -> None:
    """One record too many here and one too few there is two defects, not none."""
    await track(store, shards=2)
    for number, delivered in ((0, 9), (1, 11)):
        lease = await take(store, ANN, shard(number))
        wrong = replace(update(lease, "42"), ledger=Ledger(polled=10, delivered=delivered))
        await store.save([wrong])
    ledger = (await document(store))["mappings"][0]["ledger"]
    assert ledger["polled"] == ledger["delivered"]
    assert ledger["balanced"] is False


async def test_shards_read_to_their_end_count_but_are_not_listed(store: MemoryStore) -> None:
    """A shard the source closed long ago stays in the ledger; one of a stopped mapping stays visible."""
    tracker = await track(store, shards=2)
    drained = ShardReport(ShardState.DRAINED, last_result="PROBLEM: long ago")
    leases = [await take(store, ANN, shard(number)) for number in range(2)]
    await store.save(
        [
            update(leases[0], "42", polled=10, report=drained),
            update(leases[1], "43", polled=1, report=READING),
        ]
    )
    await store.release(leases)
    await store.set_wanted(ORDERS, [], tracker=tracker)
    (mapping,) = (await document(store))["mappings"]
    assert mapping["ledger"]["polled"] == 11
    assert [(one["id"], one["state"], one["checkpoint"]) for one in mapping["shards"]] == [
        ("orders-1", "stopped", "43")
    ]
    assert mapping["last_processing_result"] == "OK"


async def test_shards_are_in_natural_order_and_the_tracker_is_none_of_them(store: MemoryStore) -> None:
    """orders-2 comes before orders-10; the tracker's lease counts nowhere."""
    await track(store, shards=12)
    status = await document(store)
    ids = [one["id"] for one in status["mappings"][0]["shards"]]
    assert ids == [f"orders-{number}" for number in range(12)]
    assert status["nodes"][0]["shards"] == 0


async def test_what_stops_the_tracker_is_the_mappings_result(store: MemoryStore) -> None:
    """A source that refuses shows up although no shard could be found."""
    tracker = await track(store, shards=0)
    problem = ShardReport(ShardState.FAILED, last_result="PROBLEM: no such topic", last_error="no such topic")
    await store.save([update(tracker, report=problem)])
    (mapping,) = (await document(store))["mappings"]
    assert (mapping["last_processing_result"], mapping["shards"]) == ("PROBLEM: no such topic", [])


async def test_heartbeats_age_by_the_stores_clock() -> None:
    """A member that is silent gets older."""
    now = 0.0
    store = MemoryStore(lambda: now)
    await track(store)
    now = LONG_S / 4
    assert (await document(store))["nodes"][0]["heartbeat_age_s"] == LONG_S / 4


async def test_mappings_are_ordered_by_name(store: MemoryStore) -> None:
    """The order does not depend on when they were made."""
    await track(store, record=mapping_record())
    await store.put_mapping(mapping_record(type(ORDERS)("0a7c9a52-6a0e-4c3a-9f0e-5b7f3a1c0003"), "audit"))
    assert [mapping["name"] for mapping in (await document(store))["mappings"]] == ["audit", "orders"]


@given(
    st.dictionaries(
        st.sampled_from([TRACKER, ShardId("a-1"), ShardId("a-2"), ShardId("a-10")]),
        st.sampled_from(["No records processed", "OK", "PROBLEM: Function call failed", "PROBLEM: other"]),
    )
)
def test_the_result_is_the_worst_of_the_shards(results: dict[ShardId, str]) -> None:
    """A problem goes before OK, OK before nothing processed, and one problem is shown as it is."""
    result = last_processing_result({shard: ShardReport(last_result=text) for shard, text in results.items()})
    problems = {text for text in results.values() if text.startswith("PROBLEM")}
    if problems:
        assert result in problems
    else:
        assert result == ("OK" if "OK" in results.values() else "No records processed")


@given(st.lists(st.text(alphabet="a-0129²"), min_size=2))
def test_any_names_can_be_ordered(names: list[str]) -> None:
    """Names with and without numbers, and with digits that are none to `int`, compare with each other."""
    ordered = sorted(names, key=natural_key)
    assert sorted(ordered) == sorted(names)


def test_numbers_in_names_order_by_value() -> None:
    """A longer number is not a smaller one."""
    assert sorted(["b", "a-10", "a-9", "a-09-1", "a"], key=natural_key) == ["a", "a-9", "a-09-1", "a-10", "b"]


async def test_a_child_whose_parent_is_being_read_is_pending_and_what_is_not_to_be_read_is_not_shown(
    store: MemoryStore,
) -> None:
    """An operator sees what is still to come, and no shard that was closed before a LATEST mapping began."""
    tracker = await track(store, shards=1)
    origins = {shard(1).shard: BEGINNING, shard(2).shard: END}
    assert await store.set_wanted(ORDERS, [source(0)], tracker=tracker, origins=origins)
    (mapping,) = (await document(store))["mappings"]
    assert [(one["id"], one["state"]) for one in mapping["shards"]] == [
        ("orders-0", "unowned"),
        ("orders-1", "pending"),
    ]
    await store.set_wanted(ORDERS, [], tracker=tracker)
    (mapping,) = (await document(store))["mappings"]
    assert [(one["id"], one["state"]) for one in mapping["shards"]] == [("orders-1", "stopped")]


async def test_a_store_that_goes_away_midway_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mappings are read side by side; that any of them cannot be read is told as what it is."""
    store = MemoryStore()
    for number in range(3):
        await store.put_mapping(mapping_record(MappingId(f"m-{number}"), f"m-{number}"))
    load_mapping = store.load_mapping

    async def away(mapping: MappingId) -> Mapping[ShardKey, ShardProgress]:
        if mapping == "m-1":
            raise StoreUnavailableError("away")
        return await load_mapping(mapping)

    monkeypatch.setattr(store, "load_mapping", away)
    with pytest.raises(StoreUnavailableError, match="away"):
        await read_status(store, ANN)


async def test_a_poller_that_is_just_taken_over_is_starting_and_not_drained(store: MemoryStore) -> None:
    """A queue has no end to be read to: what its last holder said in the end holds until the new one has written."""
    await track(store, shards=1)
    lease = await take(store, ANN, shard(0))
    await store.save([update(lease, polled=3, report=ShardReport(ShardState.DRAINED))])
    await store.release([lease])
    (unheld,) = (await document(store))["mappings"][0]["shards"]
    assert unheld["state"] == "unowned"
    await take(store, ANN, shard(0))
    (held,) = (await document(store))["mappings"][0]["shards"]
    assert held["state"] == "starting"
