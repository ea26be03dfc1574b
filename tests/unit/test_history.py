"""The history checker finds what tests plant: loss, disorder, rewinds, zombies."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.history import FAILED, OK, THROTTLED, Entry, Invoked, Partition, check, read_log

if TYPE_CHECKING:
    from pathlib import Path

P0 = Partition("t", 0)


def call(
    *offsets: int,
    token: int = 1,
    outcome: str = OK,
    keys: str | None = None,
    at: tuple[float, float] = (0.0, 0.0),
    partition: int = 0,
    batch: str = "b",
) -> Invoked:
    """Make a line: offsets of one partition, and a letter of `keys` for each."""
    records = [Entry("t", partition, o, keys[i] if keys else None) for i, o in enumerate(offsets)]
    return Invoked(at[0], at[1], "m", f"m/t-{partition}", token, batch, 1, outcome, records)


CLEAN = [
    [call(0, 1), call(2, 3)],
    [call(0, 1, outcome=FAILED), call(0, 1, outcome=THROTTLED), call(0, 1), call(2, 3)],
    [call(0, 1), call(2), call(2, 3, token=2)],
    [call(0, 1, 2, 3), call(0, 1, 2, 3, token=2)],
    [call(0, 1), call(0, 1), call(2, 3)],  # the answer was lost on the way
    [call(0, 1, 2, 3), call(0, 1), call(2, 3)],  # and then the batch was bisected
    [call(2, 3, outcome=FAILED, token=1), call(0, 1), call(2, 3)],
]


@pytest.mark.parametrize("log", CLEAN)
def test_a_clean_history_has_no_problems(log: list[Invoked]) -> None:
    """Retries, repeats from the checkpoint on and repeats of lost answers break no promise."""
    verdict = check(log, {P0: range(4)})
    assert verdict.problems() == []
    assert verdict.delivered == 4


PLANTED = [
    ("lost", [call(0, 1), call(3)], "lost: t-0@2"),
    ("lost at the end", [call(0, 1, 2), call(3, outcome=FAILED)], "lost: t-0@3"),
    ("unexpected", [call(0, 1, 2, 3, 4)], "unexpected: t-0@4"),
    ("other partition", [call(0, 1, 2, 3), call(0, partition=1)], "unexpected: t-1: the whole partition"),
    ("disorder", [call(0, 2), call(1), call(3)], "disordered: t-0@1: first delivered after 2"),
    ("disorder inside", [call(1, 0, 2, 3)], "disordered: t-0@0: after 1 inside batch b"),
    ("twice inside", [call(0, 1, 1, 2, 3)], "disordered: t-0@1: after 1 inside batch b"),
    (
        "disorder among repeats",
        [call(0, 1, 2, 3), call(2, 3, token=2), call(0, 1, token=2)],
        "disordered: t-0@0: repeated after 3, token 2",
    ),
    ("skipped and made up later", [call(0), call(2, 3, token=2), call(1, token=3)], "disordered: t-0@1: first"),
    ("zombie", [call(0, 1), call(2, token=2), call(2, 3)], "zombies: m/t-0: token 1 after 2, batch b"),
]


@pytest.mark.parametrize(("log", "text"), [(log, text) for _, log, text in PLANTED], ids=[n for n, *_ in PLANTED])
def test_what_was_planted_is_found(log: list[Invoked], text: str) -> None:
    """Each kind of broken promise is found, at its place."""
    assert any(problem.startswith(text) for problem in check(log, {P0: range(4)}).problems())


def test_a_failed_invocation_delivers_nothing() -> None:
    """Records of failed and throttled invocations are lost unless they are delivered in the end."""
    verdict = check([call(0, outcome=FAILED), call(1, outcome=THROTTLED)], {P0: range(2)})
    assert verdict.problems() == ["lost: t-0@0", "lost: t-0@1"]


def test_a_repeat_from_before_the_lease_is_found() -> None:
    """What was checkpointed before a lease began is not delivered again under it."""
    log = [call(0, 1), call(2), call(1, 2, 3, token=2)]
    assert check(log, {P0: range(4)}, began_at={("m/t-0", 2): 1}).problems() == []
    verdict = check(log, {P0: range(4)}, began_at={("m/t-0", 2): 2})
    assert verdict.problems() == ["rewound: t-0@1: token 2 began at 2"]


def test_duplicates_are_counted() -> None:
    """Repeats are counted, and apart those that the same holder made."""
    verdict = check([call(0, 1), call(1), call(0, 1, 2, 3, token=2)], {P0: range(4)})
    assert (verdict.duplicates, verdict.repeated_by_holder) == (3, 1)
    assert verdict.problems() == []


def test_order_per_key() -> None:
    """With order per key, keys may overtake each other but not themselves."""
    log = [call(1, 3, keys="bb"), call(0, 2, keys="aa")]
    assert check(log, {P0: range(4)}, by_key=True).problems() == []
    assert len(check(log, {P0: range(4)}).disordered) == 2
    log = [call(2, keys="a"), call(0, 1, 3, keys="aba")]
    assert check(log, {P0: range(4)}, by_key=True).disordered == ["t-0@0: first delivered after 2"]


def test_overlaps() -> None:
    """Two invocations of one ordering key at the same time are found; other partitions and keys may run together."""
    both = {P0: range(2), Partition("t", 1): range(1)}
    apart = [call(0, at=(0, 2)), call(0, partition=1, at=(1, 2)), call(1, at=(2, 3))]
    assert check(apart, both, overlaps=True).problems() == []
    together = [call(0, at=(0, 2), batch="x"), call(1, at=(1, 3), batch="y")]
    assert check(together, {P0: range(2)}, overlaps=True).problems() == ["overlapping: t-0: batches x, y"]
    keyed = [call(0, at=(0, 2), keys="a"), call(1, at=(1, 3), keys="b")]
    assert check(keyed, {P0: range(2)}, overlaps=True, by_key=True).problems() == []


def test_many_problems_are_cut_short() -> None:
    """A history that lost everything is told in a few lines."""
    problems = check([], {P0: range(1000)}).problems()
    assert len(problems) == 6
    assert problems[-1] == "lost: and 995 more"


@given(st.data(), st.integers(2, 30))
def test_any_lost_batch_is_found(data: st.DataObject, count: int) -> None:
    """Whatever line is taken out of a history without repeats, its records are reported lost."""
    cuts = sorted(data.draw(st.sets(st.integers(1, count - 1))) | {0, count})
    log = [call(*range(a, b)) for a, b in itertools.pairwise(cuts)]
    gone = data.draw(st.integers(0, len(log) - 1))
    verdict = check(log[:gone] + log[gone + 1 :], {P0: range(count)})
    assert verdict.lost == [f"t-0@{entry.offset}" for entry in log[gone].records]
    assert verdict.disordered == []


def test_a_torn_last_line_is_passed_over(tmp_path: Path) -> None:
    """A target that was killed in the middle of a line leaves a log that can be read."""
    path = tmp_path / "log"
    line = msgspec.json.encode(call(0))
    path.write_bytes(line + b"\n" + line[:20])
    assert read_log(path) == [call(0)]
