"""Readiness."""

from __future__ import annotations

from dataclasses import replace

import pytest

from model.ids import MappingId, NodeId, ShardId, ShardKey
from node.health import readiness
from tests.unit.test_telemetry import Leasing

KEY = ShardKey(MappingId("m"), ShardId("orders-0"))
SETTLED = Leasing(node=NodeId("ann-1"), held=(KEY,))


def test_a_member_with_its_share_and_positions_is_ready() -> None:
    """Nothing speaks against it."""
    assert readiness(SETTLED, unread=(), draining=False).ready


@pytest.mark.parametrize(
    ("leasing", "unread", "draining", "reason"),
    [
        (replace(SETTLED, node=None), (), False, "not a member of the fleet"),
        (replace(SETTLED, node=None, last_error="refused"), (), False, "not a member of the fleet: refused"),
        (replace(SETTLED, awaited=2), (), False, "2 assigned shards not held yet"),
        (replace(SETTLED, balanced=False), (), False, "this node's share of the shards is not settled yet"),
        (SETTLED, (KEY,), False, "1 shards whose position is not read yet"),
        (SETTLED, (), True, "draining"),
    ],
)
def test_each_reason_is_said(leasing: Leasing, unread: tuple[ShardKey, ...], draining: bool, reason: str) -> None:  # noqa: FBT001 - a test's parameter
    """A node that is not ready says why."""
    answer = readiness(leasing, unread=unread, draining=draining)
    assert not answer.ready
    assert answer.reasons == (reason,)


def test_a_shard_no_longer_held_does_not_count_as_unread() -> None:
    """What was given up before its position was read keeps nobody waiting."""
    assert readiness(replace(SETTLED, held=()), unread=(KEY,), draining=False).ready
