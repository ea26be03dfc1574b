"""The demo's functions as Lambda handlers, which the node runs in sandboxes; `behaviour` says how well they do.

What a call came to goes to the demo as a datagram (DEMO_REPORT is HOST:PORT), so that it can show figures. A function
of one's own needs nothing of that.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from datetime import datetime
from typing import Any

from .behaviour import ERROR_EVERY_S, Answer, Behaviour  # noqa: TID252 - the package is its own root in a sandbox
from .events import Seen, records_of  # noqa: TID252 - same

_host, _, _port = os.environ.get("DEMO_REPORT", "").rpartition(":")
# One of several environments: together they fail as often as the one process of the other demo.
_reporting = Behaviour(partial_responses=True, seed=os.getpid(), bursts=False, error_every_s=2 * ERROR_EVERY_S)
_plain = Behaviour(partial_responses=False, seed=os.getpid(), bursts=False, error_every_s=2 * ERROR_EVERY_S)


class DatabaseError(Exception):
    """What goes wrong now and then."""


def batch(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Take a batch; report what fails of it."""
    return _work(event, context, _reporting)


def archive(event: dict[str, Any], context: Any) -> None:
    """Take a batch, or fail with all of it."""
    _work(event, context, _plain)


def tidy(event: dict[str, Any], context: Any) -> None:
    """Do what has to be done now and then."""
    arrived_s = time.time()
    due_s = datetime.fromisoformat(event["time"]).timestamp()
    print(f"tidied up for {event['time']}")  # noqa: T201 - as functions log
    _report(context, arrived_s, [Seen(due_s * 1000, None)])


def _work(event: dict[str, Any], context: Any, behaviour: Behaviour) -> dict[str, Any]:
    arrived_s = time.time()
    taken, failed = records_of(event), list[Seen]()
    attempt = max([int(_told(context, "X-Esmd-Attempt") or 1), *[record.receives for record in taken]])
    answer = behaviour.answer(attempt=attempt, now=time.monotonic())
    time.sleep(behaviour.work_s(len(taken)))
    if answer is Answer.FAIL:
        _report(context, arrived_s, [], error=True, retry=attempt > 1)
        raise DatabaseError("deadlock detected, please retry")
    if answer is Answer.FAIL_ONE:
        failed.append(taken.pop())
    _report(context, arrived_s, taken, error=bool(failed), retry=attempt > 1)
    return {"batchItemFailures": [{"itemIdentifier": record.identifier} for record in failed]}


def _told(context: Any, name: str) -> str:
    """Return what the node says of the batch: what other functions get as headers."""
    custom = context.client_context.custom if context.client_context else None
    return str((custom or {}).get(name, ""))


def _report(context: Any, arrived_s: float, taken: list[Seen], *, error: bool = False, retry: bool = False) -> None:
    if not _port:
        return
    report = {
        "mapping": _told(context, "X-Esmd-Mapping"),
        "error": error,
        "retry": retry,
        "done_s": time.time(),
        "latencies_ms": [round(arrived_s * 1000 - record.timestamp_ms, 1) for record in taken],
    }
    # Where the demo is gone the work is done all the same.
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.sendto(json.dumps(report).encode(), (_host, int(_port)))
