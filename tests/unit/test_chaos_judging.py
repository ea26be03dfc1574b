"""The judgement of a chaos run: what it measures, and that it finds what is planted."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.chaos.faults import Happened
from tests.chaos.judging import Judgement, Source, judge, tenures
from tests.chaos.plan import Fault, Kind
from tests.support.history import OK, Entry, Invoked, Partition

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.chaos.judging import HandOver, TakeOver

SHARD = "m/t-0"
BATCH = 2


def lease(event: str, token: int, at: float, **more: Any) -> dict[str, Any]:
    """Make a log line."""
    return {
        "event": event,
        "shard": SHARD,
        "token": token,
        "timestamp": datetime.fromtimestamp(at, UTC).isoformat(),
    } | more


def call(*numbers: int, token: int, at: float, key: str = "k") -> Invoked:
    """Make a successful invocation that took a tenth of a second."""
    return Invoked(at, at + 0.1, "kafka", SHARD, token, "b", 1, OK, [Entry(key, 0, number) for number in numbers])


def source(records: int, **more: Any) -> Source:
    """Describe a source of one key, each record written in the second of its number."""
    expected = {Partition("k", 0): range(records)}
    written_at = {f"k:{number}": float(number) for number in range(records)}
    return Source("kafka", expected, written_at, **{"ordered": True, "stream": True, "per_second": 1.0} | more)


KILLED = Happened(Fault(Kind.KILL, 4.0, node=0), began=4.0, over=9.0, hit=frozenset({"a"}))
ROLLED = Happened(Fault(Kind.ROLL, 4.0), began=4.0, over=9.0, hit=frozenset({"a", "b"}))
LOGS = {"a": [lease("lease.acquired", 1, 0.5)], "b": [lease("lease.acquired", 2, 7.0)]}
CLEAN = [
    call(0, 1, token=1, at=1.5),
    call(2, 3, token=1, at=3.8),
    call(2, 3, token=2, at=7.5),
    call(4, 5, token=2, at=8),
]


def seconds(moves: Iterable[TakeOver | HandOver]) -> list[tuple[float, ...]]:
    """Round what was measured."""
    return [tuple(round(value, 3) for value in move if value is not None) for move in moves]


def judged(log: list[Invoked], *happened: Happened, logs: dict[str, Any] | None = None, **more: Any) -> Judgement:
    """Judge a history of six records."""
    return judge(log, tenures(logs or LOGS), happened, [source(6, **more)], batch=BATCH)


def test_what_a_kill_repeats_and_how_long_it_takes() -> None:
    """The batch in flight comes again within the bound; times count from the kill."""
    found = judged(CLEAN, KILLED)
    assert found.problems == []
    assert (found.delivered, found.invocations) == (6, 4)
    assert found.duplicates[Kind.KILL, "kafka"] == 2
    assert found.allowed[Kind.KILL, "kafka"] == 2 * BATCH
    assert seconds(found.take_overs) == [(3.0, 3.5)]
    assert found.hand_overs == []


def test_a_kill_beside_another_fault_measures_nothing() -> None:
    """Who takes over may be hindered by the other fault."""
    frozen = Happened(Fault(Kind.REDIS_FREEZE, 4.5, beside=True), 4.5, 9.0)
    found = judged(CLEAN, KILLED, frozen)
    assert (found.problems, found.take_overs) == ([], [])


def test_how_long_a_shard_is_idle_in_a_hand_over() -> None:
    """It counts from the last invocation, or from when there was a record again."""
    logs = {
        "a": [*LOGS["a"], lease("lease.released", 1, 4.2, reason="released")],
        "b": [lease("lease.acquired", 2, 4.3)],
    }
    log = [call(0, 1, 2, token=1, at=3.9), call(3, 4, token=2, at=4.35), call(5, token=2, at=6)]
    found = judged(log, ROLLED, logs=logs)
    assert found.problems == []
    assert seconds(found.hand_overs) == [(0.1, 0.35)]
    later = [replace_started(log[0], 2.9), *log[1:]]
    assert seconds(judged(later, ROLLED, logs=logs).hand_overs) == [(0.1, 1.35)]


def replace_started(invoked: Invoked, at: float) -> Invoked:
    """Move an invocation in time."""
    return Invoked(at, at + 0.1, *(getattr(invoked, name) for name in Invoked.__struct_fields__[2:]))


def test_a_rolling_restart_repeats_nothing() -> None:
    """What a kill may cost, a rolling restart may not."""
    found = judged(CLEAN, ROLLED)
    assert found.problems == ["kafka: rolling restart at 4 s repeated 2 records, allowed 0"]
    assert found.duplicates[Kind.ROLL, "kafka"] == 2


def test_a_node_that_was_not_hit_repeats_nothing() -> None:
    """A repeat is a fault's only if the fault hit whoever delivered first."""
    [problem] = judged(CLEAN, replace(KILLED, hit=frozenset({"c"}))).problems
    assert problem.startswith("kafka: 2 repeats without a cause, first k:2 by a (m/t-0, token 1) at 3.900 and b")


def test_a_repeat_long_before_the_fault_has_no_cause() -> None:
    """What was delivered seconds before had been saved."""
    [problem] = judged(
        [call(0, 1, token=1, at=1.5), *CLEAN[1:2], call(0, 1, 2, 3, token=2, at=7), CLEAN[3]], KILLED
    ).problems
    assert problem.startswith("kafka: 2 repeats without a cause, first k:0")


def test_more_repeats_than_a_fault_explains_are_found() -> None:
    """Two batches of a shard may come again, not three."""
    log = [call(n, n + 1, token=1, at=3.2 + n / 10) for n in (0, 2, 4)]
    found = judged([*log, call(0, 1, token=2, at=7), call(2, 3, token=2, at=7.2), call(4, 5, token=2, at=7.4)], KILLED)
    assert found.problems == ["kafka: kill -9 of a node at 4 s repeated 6 records, allowed 4"]


def test_repeats_by_the_same_holder_are_found_in_streams() -> None:
    """Under one lease nothing is delivered twice where no answer is lost."""
    log = [*CLEAN[:2], call(2, 3, token=1, at=4.0), *CLEAN[3:]]
    assert "kafka: 2 records repeated by the same holder" in judged(log, KILLED).problems
    assert judged(log, KILLED, stream=False).problems == []


@pytest.mark.parametrize(
    ("log", "problem"),
    [
        (CLEAN[:3], "kafka: lost: k-0@4"),
        ([CLEAN[0], CLEAN[3], *CLEAN[1:3]], "kafka: disordered: k-0@2: first delivered after 5"),
        (
            [*CLEAN[:2], call(3, token=2, at=7.5), call(2, 3, token=3, at=7.7), CLEAN[3]],
            "kafka: zombies: m/t-0: token 2",
        ),
        (
            [*CLEAN[:2], call(1, token=2, at=7.1), call(3, 4, 5, token=2, at=7.2)],
            "kafka: disordered: k-0@3: right after 1",
        ),
    ],
    ids=["lost", "disordered", "zombie", "gap in a repeat"],
)
def test_broken_promises_are_found(log: list[Invoked], problem: str) -> None:
    """Loss, disorder, late writers and gaps are found, whatever happened."""
    assert any(found.startswith(problem) for found in judged(log, KILLED).problems)


def test_a_queue_without_groups_has_no_order() -> None:
    """Its messages may come in any order, but all of them must."""
    log = [CLEAN[0], CLEAN[3], *CLEAN[1:3]]
    assert [p for p in judged(log, KILLED, ordered=False, stream=False).problems if "disordered" in p] == []
    assert judged(CLEAN[:3], KILLED, ordered=False, stream=False).problems[0] == "kafka: lost: k-0@4"
