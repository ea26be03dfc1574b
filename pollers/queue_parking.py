"""Keep failed messages of a FIFO queue and try them again here, rather than leave them to the queue. Pure.

The queue is the parking lot: a parked message stays hidden there, which holds back its group and costs no receive
count, and is tried again with backoff. It travels alone, so that neither its own group's later messages nor other
groups are delivered twice because of it. After an hour, or when too much is parked, it is left to the queue after all,
whose redrive policy then decides: no message may outlive the queue's retention here.
"""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING

from model.progress import MAX_PARKED_SHOWN, ParkedKey
from pollers.parking_lot import printable
from pollers.queue_work import Work
from pollers.retrying import jittered_s

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

    from model.mapping import EventSourceMapping
    from pollers.queue_groups import Groups
    from pollers.queue_ports import Message
    from pollers.queue_work import Workload

MAX_PARKED_S = 3600.0


class QueueParking:
    """The parked groups of one poller. `now` is event-loop time."""

    def __init__(self, mapping: EventSourceMapping, load: Workload, groups: Groups, random: Random) -> None:
        self._parks = mapping.extensions.park_failing_keys
        self._max_bytes = mapping.extensions.parked_max_bytes
        self._load = load
        self._groups = groups
        self._random = random
        self._asked = self._done = 0  # wishes of operators, and those carried out
        self._untried: list[Work] = []

    def try_all(self, number: int, now: float) -> None:
        """Have all that is parked tried at once, whatever its backoff, for this wish of an operator."""
        if number != self._asked:
            self._asked = number
            self._untried = self._load.parked
            for work in self._untried:
                work.due_at = now

    def tried(self) -> int:
        """Return the last wish for which all that was parked has had its turn, or has gone."""
        self._untried = [work for work in self._untried if work in self._load]
        if not self._untried:
            self._done = self._asked
        return self._done

    def keep(self, work: Work, failed: Iterable[Message], *, reported: bool, now: float) -> list[Message]:
        """Keep failed messages of a batch; return those that are left to the queue.

        The first message of each group is tried again alone; the others wait behind it. `reported`: the function said
        which ones failed, so that these first ones did.
        """
        if not self._parks:
            return list(failed)
        groups: dict[str | None, list[Message]] = {}
        for message in failed:
            groups.setdefault(message.group, []).append(message)
        since_at = now if work.parked_at is None else work.parked_at
        failures = work.failures + 1 if reported or len(work.messages) == 1 else 0
        parked_bytes = sum([parked.size for parked in self._load.parked])
        left: list[Message] = []
        for messages in groups.values():
            first, *behind = messages
            if parked_bytes + first.size > self._max_bytes or now - since_at >= MAX_PARKED_S:
                left += messages
                continue
            again = Work([first], refusals=work.refusals, failures=failures, due_at=now, error=work.error)
            if failures:
                again.parked_at = since_at
                again.due_at += jittered_s(failures - 1, self._random)
                parked_bytes += first.size
            self._load.park(again)
            if behind:
                self._groups.put_back(behind)
        return left

    @property
    def messages(self) -> int:
        """Messages that are parked, without those that wait behind them."""
        return len(self._load.parked)

    def shown(self, now: float) -> tuple[ParkedKey, ...]:
        """Describe parked groups for operators, with what waits behind them."""
        return tuple(
            ParkedKey(
                key=printable(work.messages[0].group or ""),
                records=1 + self._groups.behind(work.messages[0].group),
                size=work.size,
                since=round(time.time() - now + (work.parked_at or now), 3),
                failures=work.failures,
                error=work.error,
            )
            for work in islice(self._load.parked, MAX_PARKED_SHOWN)
        )
