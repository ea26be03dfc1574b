"""One run: load, faults, and the judgement of what came of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from tests.chaos.faults import carry_out
from tests.chaos.fleet import BATCH, chaos_fleet
from tests.chaos.judging import Source, judge, tenures
from tests.chaos.load import under_load
from tests.chaos.plan import plan
from tests.chaos.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.chaos.fleet import Servers
    from tests.chaos.load import Feed

_DRAIN_S = 60.0
"""After the last fault everything is delivered within this: a lease's TTL, a queue's visibility timeout and the backlog
of the last faults are a few seconds each."""
_WRONG = ("ledger.imbalance", "worker.failed")  # never in a node's log, whatever happens to it


async def run(servers: Servers, folder: Path, *, seed: int, seconds: float, say: Callable[[str], None]) -> Report:
    """Put a fleet through the faults of a seed and judge it. Raises only when the run itself cannot go on."""
    faults = plan(seed, seconds)
    problems: list[str] = []
    async with chaos_fleet(servers, folder) as fleet:
        say(f"seed {seed}: {len(faults)} faults in {seconds:g} s; history in {folder}")
        loading = under_load(fleet.feeds, seed)
        loading.__enter__()  # its end blocks, so it is waited for beside the loop
        try:
            happened = await carry_out(faults, fleet, say, within_s=seconds)
        finally:
            await asyncio.to_thread(loading.__exit__, None, None, None)
        if not await fleet.drained(_DRAIN_S):
            problems.append(f"not everything was delivered within {_DRAIN_S:g} s")
        problems += _unsettled(fleet.feeds, await fleet.settled())
        problems += [f"{queue.name}: {queue.counts()} messages left" for queue in fleet.queues if not queue.empty]
        logs = {node.name: node.log() for node in fleet.started}
        problems += _complaints(logs)
        log = list(fleet.target.invoked())
    (folder / "faults.json").write_bytes(msgspec.json.format(msgspec.json.encode(happened)))
    judgement = judge(log, tenures(logs), happened, [_source(feed) for feed in fleet.feeds], batch=BATCH)
    return Report(seed, seconds, len(happened), folder, [feed.name for feed in fleet.feeds], judgement, problems)


def _source(feed: Feed) -> Source:
    return Source(
        feed.name,
        feed.numbering.expected(),
        feed.written_at,
        ordered=feed.ordered,
        stream=feed.name in ("kafka", "kinesis"),
        per_second=feed.per_second,
    )


def _unsettled(feeds: list[Feed], ledgers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    found = []
    for feed in feeds:
        ledger = ledgers.get(feed.name, {})
        if not ledger.get("balanced") or ledger["in_flight"]:
            found.append(f"{feed.name}: the ledger does not balance: {dict(ledger)}")
    return found


def _complaints(logs: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    return [f"{name}: {line}" for name, lines in logs.items() for line in lines if line["event"] in _WRONG]
