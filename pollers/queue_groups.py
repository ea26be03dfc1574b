"""Which of the waiting messages form the next batch: group order, group locks and fairness. Pure.

FIFO queues (`ordered`): a group with a batch in flight is locked until `unlock`, so no two batches share a group; its
later messages wait without holding up others. While there are free slots for every ready group each gets a batch of
its own; only when groups outnumber the slots does a batch mix groups. A group whose first message was received before
travels alone: if it fails again, it takes no other group along.

Standard queues: every message is ready, and batches mix freely.

Between groups, in both, deficit round robin by bytes: a tenant with many or large messages gets no more of a batch than
the others, as long as the others have any. MessageGroupId names the group; messages without one share a group.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from model.record import MAX_EVENT_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pollers.queue_ports import Message

QUANTUM_BYTES = 4096


class Groups:
    """The messages received and not yet in a batch, by group, each group in the order of receipt."""

    def __init__(self, *, ordered: bool, batch_size: int, overhead: int, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self._ordered = ordered
        self._batch_size = batch_size
        self._room = max_bytes - overhead
        self._waiting: dict[str | None, deque[Message]] = {}
        self._turns: deque[str | None] = deque()  # the groups that may go, next one first
        self._credit: dict[str | None, int] = {}  # bytes a group may still take in its turn
        self._locked: dict[str | None, int] = {}  # messages of the group in flight
        self._ready = 0
        self._ready_bytes = 0
        self._blocked = 0

    def __len__(self) -> int:
        return self._ready + self._blocked

    def __repr__(self) -> str:
        return f"<Groups {self._ready} ready in {len(self._turns)} groups, {self._blocked} behind a batch in flight>"

    @property
    def ready(self) -> int:
        """Messages that could be in a batch now."""
        return self._ready

    @property
    def full(self) -> bool:
        """Whether what is ready fills a batch, by count or by bytes."""
        return self._ready >= self._batch_size or self._ready_bytes >= self._room

    def oldest_ms(self) -> int | None:
        """Arrival of the oldest message, epoch milliseconds."""
        return min((messages[0].record.arrival_ms for messages in self._waiting.values()), default=None)

    def behind(self, group: str | None) -> int:
        """Count what waits of a group."""
        return len(self._waiting.get(group, ()))

    def add(self, messages: Iterable[Message]) -> None:
        """Take messages behind those of their group."""
        for message in messages:
            group = message.group
            behind = self._waiting.get(group)
            if behind is None:
                behind = self._waiting[group] = deque()
                if group not in self._locked:
                    self._turns.append(group)
            behind.append(message)
            self._count(message, 1)

    def form(self, free_slots: int) -> list[Message]:
        """Take the next batch, and lock its groups; empty when nothing is ready. `free_slots` counts this one."""
        if not self._turns:
            return []
        most = self._most_groups(free_slots)
        batch = self._take_from(self._turns[0]) if most == 1 else self._take_in_turns(most)
        if self._ordered:
            for message in batch:
                self._lock(message.group)
        return batch

    def unlock(self, messages: Iterable[Message]) -> None:
        """Learn that messages of a batch are out of our hands; a group may go again when that holds for all of them."""
        for message in messages:
            group = message.group
            left = self._locked.get(group, 0) - 1
            if left > 0:
                self._locked[group] = left
            elif left == 0:
                waiting = self._waiting.get(group, ())
                del self._locked[group]
                if waiting:
                    self._turns.append(group)
                    self._recount(waiting, ready=True)

    def put_back(self, messages: Sequence[Message]) -> None:
        """Take messages of one group out of flight and before those that wait; others of it are still in flight."""
        group = messages[0].group
        self._locked[group] -= len(messages)
        waiting = self._waiting.setdefault(group, deque())
        waiting.extendleft(reversed(messages))
        self._blocked += len(messages)

    def withdraw(self, groups: Iterable[str | None]) -> list[Message]:
        """Take out what waits of groups: it must not overtake their earlier messages, which failed."""
        taken: list[Message] = []
        for group in groups:
            waiting = self._waiting.get(group)
            if waiting:
                taken.extend(waiting)
                self._forget(group, waiting)
        return taken

    def expire(self, gone: Callable[[Message], bool]) -> list[Message]:
        """Take out the messages that others can see again, and in FIFO queues those behind them in their group."""
        taken: list[Message] = []
        for group, waiting in list(self._waiting.items()):
            dead = [message for message in waiting if gone(message)]
            if not dead:
                continue
            if self._ordered:
                dead = list(waiting)[list(waiting).index(dead[0]) :]
            taken += dead
            out = set(map(id, dead))
            kept = [message for message in waiting if id(message) not in out]
            self._forget(group, waiting)
            self.add(kept)
        return taken

    def clear(self) -> list[Message]:
        """Take out everything, in the order of receipt."""
        taken = self.withdraw(list(self._waiting))
        return sorted(taken, key=lambda message: message.record.position)

    # Inside

    def _most_groups(self, free_slots: int) -> int:
        if not self._ordered:
            return len(self._turns)
        if self._waiting[self._turns[0]][0].receives > 1:
            return 1
        return max(1, -(-len(self._turns) // max(1, free_slots)))

    def _take_from(self, group: str | None) -> list[Message]:
        """Fill a batch from one group."""
        waiting = self._waiting[group]
        batch: list[Message] = []
        size = 0
        while waiting and len(batch) < self._batch_size:
            size += waiting[0].size
            if batch and size > self._room:
                break
            batch.append(self._pop(group, waiting))
        return batch

    def _take_in_turns(self, most: int) -> list[Message]:
        """Fill a batch from several groups by deficit round robin."""
        turns, credit = self._turns, self._credit
        chosen: set[str | None] = set()
        batch: list[Message] = []
        size = 0
        while turns and len(batch) < self._batch_size:
            group = turns[0]
            if group not in chosen and not self._joins(group, chosen, most):
                group = self._next_turn(chosen, most)
                if group is _NOBODY:
                    break
            waiting = self._waiting[group]
            cost = waiting[0].size
            if batch and size + cost > self._room:
                break
            chosen.add(group)
            if len(turns) > 1 and credit.get(group, QUANTUM_BYTES) < cost:
                credit[group] = credit.get(group, QUANTUM_BYTES) + QUANTUM_BYTES
                turns.rotate(-1)
                continue
            credit[group] = max(0, credit.get(group, QUANTUM_BYTES) - cost)
            size += cost
            batch.append(self._pop(group, waiting))
        return batch

    def _joins(self, group: str | None, chosen: set[str | None], most: int) -> bool:
        """Whether a group may come into a batch: there is room for one more, and it need not travel alone."""
        return len(chosen) < most and not (self._ordered and self._waiting[group][0].receives > 1)

    def _next_turn(self, chosen: set[str | None], most: int) -> str | None:
        """Bring the next group that may be in this batch to the front."""
        for _ in range(len(self._turns) - 1):
            self._turns.rotate(-1)
            if self._turns[0] in chosen or self._joins(self._turns[0], chosen, most):
                return self._turns[0]
        return _NOBODY

    def _pop(self, group: str | None, waiting: deque[Message]) -> Message:
        message = waiting.popleft()
        self._count(message, -1)
        if not waiting:
            del self._waiting[group]
            self._turns.remove(group)  # nearly always the first
            self._credit.pop(group, None)
        return message

    def _lock(self, group: str | None) -> None:
        in_flight = self._locked.get(group, 0)
        self._locked[group] = in_flight + 1
        waiting = self._waiting.get(group)
        if waiting and not in_flight:
            self._turns.remove(group)
            self._recount(waiting, ready=False)

    def _forget(self, group: str | None, waiting: Sequence[Message] | deque[Message]) -> None:
        for message in waiting:
            self._count(message, -1)
        del self._waiting[group]
        self._credit.pop(group, None)
        if group not in self._locked:
            self._turns.remove(group)

    def _count(self, message: Message, by: int) -> None:
        if message.group in self._locked:
            self._blocked += by
        else:
            self._ready += by
            self._ready_bytes += by * message.size

    def _recount(self, messages: Iterable[Message], *, ready: bool) -> None:
        sign = 1 if ready else -1
        for message in messages:
            self._ready += sign
            self._ready_bytes += sign * message.size
            self._blocked -= sign


_NOBODY = "\0"  # no MessageGroupId: those are printable
