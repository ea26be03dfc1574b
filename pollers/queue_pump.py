"""One poller of a queue at work: receive, filter, batch, invoke, delete. Only this module knows the order.

The guarantee: at least once; in FIFO queues also in order per message group, never two batches of one group at once. A
message is received only when a slot for its batch is free, and deleted only after the function took it. While that
throttles or is not reached, no more is received than is tried next. What a killed node held becomes visible by itself.

`_step` looks at what is there and starts what may be started; everything that happens sets `_changed`, and so calls it
again. It never awaits.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from model.errors import LeaseLostError, SourceRefusedError, SourceUnavailableError
from model.outcome import Delivered, FunctionFailed, NotReached, Outcome, PartlyFailed, Throttled
from model.progress import ShardState
from pollers.gate import Place
from pollers.handing_over import drained_within
from pollers.queue_calls import call
from pollers.queue_following import Following
from pollers.queue_groups import Groups
from pollers.queue_intake import NO_VISIBILITY_S, Intake
from pollers.queue_limit import ConcurrencyLimit
from pollers.queue_parking import QueueParking
from pollers.queue_settling import Settling
from pollers.queue_standing import QueueStanding
from pollers.queue_work import Work, Workload
from pollers.retrying import refusal_pause_s
from pollers.visibility import Visibility, visible
from statemgr.scaling import QueueUse, ScalingLimits, shard_index, share

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from leasing.held import HeldLease
    from model.ids import ShardKey
    from pollers.gate import Turn
    from pollers.queue_calls import QueueParts
    from pollers.queue_ports import Message
    from statemgr.scaling import Allotment

_SHORT_POLL_S = 1
_LAST_RECEIVE_S = 5.0
_FIRST_DELAY_S = 0.5
_LOOK_S = 1.0
_SOON_S = 0.001  # a timer may fire a little early


class QueuePump:
    """Works as one numbered poller under one lease, from `run` until it is drained or cancelled.

    `allotment` asks the store what the state manager allows the queue at present.
    """

    def __init__(
        self, parts: QueueParts, lease: HeldLease, *, allotment: Callable[[], Awaitable[Allotment | None]]
    ) -> None:
        self._parts = parts
        self._lease = lease
        self.key: ShardKey = lease.key
        mapping = parts.mapping
        self._changed = asyncio.Event()
        limits, self._index = ScalingLimits.of(mapping), shard_index(lease.key.shard)
        self._standing = QueueStanding(lease, parts, self)
        self._limit = ConcurrencyLimit(
            share(self._index, limits.start, limits),
            reduces_on_errors=not mapping.report_batch_item_failures,
        )
        self._groups = Groups(ordered=parts.fifo, batch_size=mapping.batch_size, overhead=parts.envelope.overhead())
        self._visibility = Visibility(NO_VISIBILITY_S, extends=mapping.extensions.visibility_heartbeat)
        self._settling = Settling(parts.source, self._visibility)
        self._intake = Intake(
            parts,
            standing=self._standing,
            groups=self._groups,
            visibility=self._visibility,
            settling=self._settling,
            changed=self._changed.set,
        )
        self._following = Following(
            parts.source,
            self._intake.learn,
            self._limit,
            ask_allotment=allotment,
            index=self._index,
            limits=limits,
            changed=self._changed.set,
        )
        self._load = Workload()
        self.parking = QueueParking(mapping, self._load, self._groups, parts.random)
        self._place = Place(parts.gate, self._changed.set)
        self._draining = asyncio.Event()
        self._giving_back = 0

    def __repr__(self) -> str:
        return f"<QueuePump {self.key} {self._standing.state} {self._groups} {self._limit}>"

    # What the worker and the standing ask

    def drain(self) -> None:
        """Receive no more; `run` returns after the handlers under way, everything else given back."""
        self._draining.set()
        self._changed.set()

    def try_parked(self, number: int) -> None:
        """Have all that is parked tried at once, for this wish of an operator."""
        self.parking.try_all(number, asyncio.get_running_loop().time())
        self._changed.set()

    def refresh(self) -> None:
        """Have the report brought up to date."""
        self._standing.saves.changed()

    @property
    def held(self) -> int:
        """Messages received and neither finished nor left to the queue."""
        return len(self._groups) + self._load.messages

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest held message was sent."""
        times = (self._load.oldest_ms, self._groups.oldest_ms())
        return min((time for time in times if time is not None), default=None)

    @property
    def backlog(self) -> int | None:
        """The queue's backlog, told by the first poller only, so that it is counted once."""
        return self._following.backlog if self._index == 0 else None

    def use(self) -> QueueUse:
        """Tell the state manager how much is used."""
        room = self._limit.room
        held_up = self._load.paused or self._parts.gate.held_up  # the function takes no more than it has
        return QueueUse(self._load.take_peak(), min(room, self._load.running) if held_up else room)

    # The course

    async def run(self) -> None:
        """Work until drained. Raises `LeaseLostError`.

        Everything may be cancelled or killed at any point: what is not deleted is received again.
        """
        with self._parts.counters.probed(self.key, self._standing.view):
            self._parts.gate.watch(self._changed.set)
            try:
                if await self._open():
                    await self._work()
                    self._standing.state = ShardState.DRAINED  # nothing of the queue is held here any more
                    await self._standing.saves.noted()
            finally:
                self._parts.gate.unwatch(self._changed.set)
                self._place.leave()
                self._standing.close()

    async def _open(self) -> bool:
        """Learn the queue's visibility timeout and our share; False when draining before that."""
        delay_s = _FIRST_DELAY_S
        while not self._draining.is_set():
            try:
                self._intake.learn(await self._parts.source.facts())
            except (SourceUnavailableError, SourceRefusedError) as exc:
                pause_s, delay_s = self._intake.trouble(exc, delay_s)
                await drained_within(self._draining, pause_s)
            else:
                self._standing.source_answers()
                await self._following.read_allotment()
                self._standing.saves.changed()
                return True
        return False

    async def _work(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                background = [
                    tasks.create_task(coroutine, name=f"{what} {self.key}")
                    for what, coroutine in (
                        ("watch", self._standing.saves.watch_refusal()),
                        ("settle", self._settling.run()),
                        ("keep hidden", self._settling.keep_hidden()),
                        ("follow", self._following.run()),
                    )
                ]
                await self._steps(tasks)
                for task in background:
                    task.cancel()
        except ExceptionGroup as failures:
            # As in `pollers.pump`: a lease is lost only once, whoever notices.
            lost, others = failures.split(LeaseLostError)
            if lost is None or others is not None:
                raise
            raise _first(lost) from None

    async def _steps(self, tasks: asyncio.TaskGroup) -> None:
        """Start what may be started, again whenever something changed; return when drained and everything is quiet."""
        loop = asyncio.get_running_loop()
        give_back_at = 0.0
        while True:
            self._changed.clear()
            if self._draining.is_set():
                if self._standing.state is not ShardState.DRAINING:
                    self._standing.state = ShardState.DRAINING
                    give_back_at = loop.time() + _LAST_RECEIVE_S
                next_at = self._wind_up(tasks, give_back_at, loop.time())
                if self._quiet:
                    return
            else:
                next_at = self._step(tasks, loop.time())
            with suppress(TimeoutError):
                async with asyncio.timeout_at(next_at):
                    await self._changed.wait()

    def _step(self, tasks: asyncio.TaskGroup, now: float) -> float | None:
        """Start batches and receives; return when to look again though nothing happens."""
        self._expire(now)
        if not self._parts.gate.closed:
            self._load.hasten(now)
        while (free := self._limit.now - self._load.running) > 0 and self._ready(free, now):
            if (turn := self._place.take()) is None:
                break  # woken when it is there
            work = self._load.take_due(now) or Work(self._groups.form(free))
            self._load.begin(work)
            task = tasks.create_task(self._deliver(work, turn), name=f"deliver {self.key}")
            task.add_done_callback(turn.end)  # also when it is cancelled before its first step
        else:
            self._place.leave()
        while (most := self._to_receive(now)) > 0:
            self._intake.begin(most)
            # While messages wait for their batch a drain must not have to wait for a long poll.
            long = self._intake.under_way == 1 and not len(self._groups)
            wait_s = self._parts.long_poll_s if long else _SHORT_POLL_S
            tasks.create_task(self._intake.receive(most, wait_s, share=self._limit.share), name=f"receive {self.key}")
        return self._look_again_at(now)

    def _ready(self, free: int, now: float) -> bool:
        """Whether a batch could go: one that was refused and may try again, or a new one whose window is over."""
        if (due_at := self._load.due_at()) is not None and due_at <= now:
            return True
        return self._groups.ready > 0 and (self._groups.full or self._window_over_at(free, now) <= now)

    def _window_over_at(self, free: int, now: float) -> float:
        """When the batching window of the next free slot is over."""
        return self._load.window_began_at(free, now) + self._parts.mapping.batching_window_s

    def _to_receive(self, now: float) -> int:
        """How many messages the next receive may bring: no more than can be tried soon."""
        gate, load = self._parts.gate, self._load
        if (retry_at := gate.retry_at) is not None:  # what is held is tried first
            free = int(retry_at <= now and not self.held and not self._intake.under_way)
        else:
            ahead = 0 if load.paused else 1  # one batch is there when its turn comes
            free = int(min(self._limit.now - load.busy, max(gate.room() - load.paused, ahead)))
        return self._intake.to_receive(free, now)

    def _look_again_at(self, now: float) -> float | None:
        times = [self._intake.not_before]
        if (retry_at := self._parts.gate.retry_at) is not None:
            times.append(retry_at)
        if (due_at := self._load.due_at()) is not None:
            times.append(due_at)
        if self._groups.ready and (free := self._limit.now - self._load.running) > 0:
            times.append(self._window_over_at(free, now))
        if not self._visibility.extends and self.held:
            times.append(now + _LOOK_S)  # notice what becomes visible
        later = [time for time in times if time > now]
        return max(now + _SOON_S, min(later)) if later else None

    # Delivering

    async def _deliver(self, work: Work, turn: Turn) -> None:
        """Call the function once with a batch, and see to what came of it. Raises `LeaseLostError`."""
        loop = asyncio.get_running_loop()
        # Cancelled, or without the lease: nothing is decided, and the messages stay in the account as held.
        with turn:
            outcome = turn.outcome = await call(self._parts, self._lease, work.messages, work.refusals + 1)
        self._load.end(work, loop.time())
        self._learn_outcome(work, outcome, loop.time())
        self._changed.set()

    def _learn_outcome(self, work: Work, outcome: Outcome, now: float) -> None:
        """Decide about each message of a batch. No await."""
        match outcome:
            case Delivered():
                self._limit.took()
                self._delivered(work.messages)
            case PartlyFailed():
                self._limit.took()
                self._standing.setback(outcome, None)
                failed, done = work.split(outcome)
                if done:
                    self._delivered(done)
                self._failed(self.parking.keep(work, failed, reported=True, now=now))
            case FunctionFailed():
                self._limit.failed()
                self._standing.setback(outcome, None)
                self._failed(self.parking.keep(work.failed(outcome), work.messages, reported=False, now=now))
            case Throttled() | NotReached():
                delay_s = refusal_pause_s(outcome, work.unreached, self._parts.random)
                work.unreached = work.unreached + 1 if isinstance(outcome, NotReached) else 0
                self._load.pause(work, now + delay_s)
                self._standing.setback(outcome, delay_s)

    def _delivered(self, messages: list[Message]) -> None:
        """Have messages deleted; in FIFO queues their groups stay locked until that is done."""
        self._standing.delivered(messages)
        self._let_go(messages)
        self._settling.delete(messages, self._settled)

    def _failed(self, messages: list[Message]) -> None:
        """Leave messages to the queue, which makes them visible in its time; later ones of their groups too."""
        self._leave(messages)
        self._standing.failed(messages)
        if self._parts.fifo:
            groups = {message.group for message in messages}
            self._leave(self._groups.withdraw(groups))
            self._groups.unlock(messages)

    def _settled(self, deleted: list[Message], given_up: list[Message]) -> None:
        """Learn that messages were deleted, or could not be: those will be received once more."""
        self._parts.counters.deleted += len(deleted)
        if given_up:
            self._standing.log.warning("messages.not_deleted", messages=len(given_up))
        if self._parts.fifo:
            if given_up:  # delivered again before what follows in the group
                self._leave(self._groups.withdraw({message.group for message in given_up}))
            self._groups.unlock([*deleted, *given_up])
        self._changed.set()

    def _leave(self, messages: Sequence[Message]) -> None:
        if messages:
            self._let_go(messages)
            self._standing.left_to_queue(len(messages))

    def _let_go(self, messages: Sequence[Message]) -> None:
        self._visibility.drop(messages)
        self._intake.held_bytes -= sum([message.size for message in messages])

    def _expire(self, now: float) -> None:
        """Forget messages that others can see again: working on them would do it twice."""
        if not self._visibility.lapsed(now):
            return
        expired = self._groups.expire(lambda message: visible(message, now))
        paused = self._load.expire(lambda message: visible(message, now), whole_groups=self._parts.fifo)
        expired += paused
        if self._parts.fifo:
            expired += self._groups.withdraw({message.group for message in paused})
            self._groups.unlock(paused)
        if expired:
            self._standing.log.warning("messages.visible_again", messages=len(expired))
            self._leave(expired)

    # Stopping

    @property
    def _quiet(self) -> bool:
        waiting = self._load.running or self._intake.under_way or self._settling.unsettled or self._giving_back
        return not waiting and not self.held

    def _wind_up(self, tasks: asyncio.TaskGroup, give_back_at: float, now: float) -> float | None:
        """Give back what no handler works on; return when to look again.

        A receive under way is waited for, since its messages would be lost sight of, and it would receive at once what
        is given back meanwhile; but a long poll is not waited for before giving back what is held.
        """
        self._place.leave()
        if self._intake.under_way and now < give_back_at:
            return give_back_at + _SOON_S
        self._give_back_waiting(tasks)
        return None

    def _give_back_waiting(self, tasks: asyncio.TaskGroup) -> None:
        """Give back everything that no handler works on, in the order of receipt."""
        messages = sorted([*self._groups.clear(), *self._load.clear()], key=lambda message: message.record.position)
        if not messages:
            return
        self._leave(messages)
        self._giving_back += 1
        tasks.create_task(self._give_back(messages), name=f"give back {self.key}")

    async def _give_back(self, messages: list[Message]) -> None:
        try:
            await self._settling.give_back(messages)
        finally:
            self._giving_back -= 1
            self._changed.set()
        self._standing.log.info("messages.given_back", messages=len(messages))


def _first(group: BaseExceptionGroup) -> BaseException:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
