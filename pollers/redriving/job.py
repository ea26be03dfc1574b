"""One redrive: read failure documents, deliver their records to the mapping's function, and remove what it took.

A document is removed only after all its records were taken, so stopping, cancelling or killing this at any moment loses
nothing: what was not removed is there for the next redrive, and what was delivered and not removed is delivered again.
`plan` decides about batches, the archive knows the destination, `pollers.delivery` invokes: one batch at a time, with
the same target, classification and patience with throttles as ever, but without retries of its own.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec
import structlog

from model.errors import RefusedError, UnavailableError
from model.ids import ShardKey
from model.outcome import Delivered, FunctionFailed, NotReached, Outcome, PartlyFailed, Throttled
from model.record import MAX_EVENT_BYTES, Batch, Records
from pollers.delivery import Delivery
from pollers.exchange import PlainExchange
from pollers.handing_over import drained_within
from pollers.redriving.documents import NotForUs
from pollers.redriving.plan import Document, Pacer, Place, Plan
from pollers.retrying import FIRST_DELAY_S, MAX_DELAY_S, Condition, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from pollers.handing_over import Fate
    from pollers.pump_parts import PumpParts
    from pollers.redriving.archive import Archive, Found, Rereading
    from pollers.redriving.documents import FailedRecords
    from pollers.redriving.plan import Attempt
    from pollers.retrying import Discard, Retrying

log = structlog.get_logger(__name__)

_T = TypeVar("_T")
_TELL_S = 5.0
_MAX_REASONS = 20


class Counts(msgspec.Struct):
    """What a redrive has come to. A dry run counts as delivered what it would deliver."""

    documents: int = 0  # read
    delivered_documents: int = 0
    failed_documents: int = 0
    gone_documents: int = 0  # of these, those whose records are not, or not all, in the source any more
    skipped_documents: int = 0  # not this mapping's, too old or too new
    delivered_records: int = 0
    failed_records: int = 0
    gone_records: int = 0


class Listener(Protocol):
    """Whoever watches a redrive. May make it wait."""

    async def kept(self, document: str, records: int, error: str) -> None:
        """Learn that a document stays where it is, and why."""

    async def waiting(self, error: str, retry_in_s: float) -> None:
        """Learn that the function has no room, or something does not answer; it goes on by itself."""

    async def progress(self, counts: Counts) -> None:
        """Learn how far it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What to redrive, and how. Times are epoch milliseconds."""

    before_ms: float  # documents after this are of the present trouble: left alone
    since_ms: float | None = None
    rate: float | None = None  # records a second
    dry_run: bool = False


@dataclass(slots=True)
class _Term:
    """Stands for a lease: the records' shard, and the token of whoever holds it now."""

    key: ShardKey
    token: int

    def check(self) -> None:
        """Return: a redrive holds no lease that could be lost."""


@dataclass(slots=True)
class _Sent:
    """What became of one attempt. `pollers.delivery.Finishing`."""

    counts: Counts
    told: asyncio.Queue[tuple[str, float]]
    taken: set[int] = field(default_factory=set)
    error: str | None = None

    def began(self, retrying: Retrying) -> None:
        """Nothing to note."""

    def delivered(self, records: Records) -> None:
        """Note positions as taken."""
        self.taken.update(records.positions)
        self.counts.delivered_records += len(records)

    def given_up(self, discard: Discard, fate: Fate) -> None:  # noqa: ARG002 - nothing is handed over or dropped here
        """Note why records are not taken."""
        if discard.condition is Condition.MAXIMUM_PAYLOAD_SIZE_EXCEEDED:
            self.error = "too large for any event"

    def setback(self, outcome: Outcome, delay_s: float) -> None:
        """Note the last error."""
        match outcome:
            case FunctionFailed():
                self.error = outcome.error
            case PartlyFailed():
                self.error = "reported as failed"
            case Throttled() | NotReached():
                self.told.put_nowait((outcome.error, delay_s))
            case Delivered():
                pass

    def park(self, key: Hashable, retrying: Retrying) -> float | None:
        """Never happens: the policy of a redrive parks nothing."""
        raise RuntimeError(f"{key!r} is to be parked: {retrying!r}")


class Redrive:
    """Delivers what an archive holds.

    `read` says what a document is about. `token_of` asks for the fencing token of a shard's present holder. `took` is
    told how many records the function took.
    """

    def __init__(
        self,
        parts: PumpParts,
        archive: Archive,
        *,
        read: Callable[[Found], FailedRecords | NotForUs],
        rereading: Rereading,
        token_of: Callable[[ShardKey], Awaitable[int]],
        took: Callable[[int], None],
        listener: Listener,
        wishes: Wishes,
        stop: asyncio.Event,
    ) -> None:
        self._parts = parts
        self._archive = archive
        self._read = read
        self._took_records = took
        self._rereading = rereading
        self._token_of = token_of
        self._listener = listener
        self._wishes = wishes
        self._stop = stop
        self._pacer = Pacer(wishes.rate)
        self._exchange = PlainExchange(parts.envelope, partial_responses=parts.policy.partial_responses)
        self._plan = Plan(
            batch_size=self._pacer.most(parts.mapping.batch_size),
            overhead=self._exchange.overhead(),
            max_bytes=MAX_EVENT_BYTES,
        )
        self._told: asyncio.Queue[tuple[str, float]] = asyncio.Queue()
        self.counts = Counts()
        self.skipped: Counter[str] = Counter()  # documents by why they are left alone

    async def run(self) -> Counts:
        """Go through the archive once, or until `stop`. Raises `RefusedError` for what someone must see to."""
        refused: RefusedError | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(self._archive.watch(), name="watch the archive of a redrive")
                leaving = tasks.create_task(self._leave_the_gate(), name="leave the gate when a redrive stops")
                try:
                    await self._go_through()
                except RefusedError as exc:
                    refused = exc  # raised bare, not in the group's
                watching.cancel()
                leaving.cancel()
        finally:
            await self._archive.close()
            await self._rereading.close()
        if refused is not None:
            raise refused
        return self.counts

    async def _leave_the_gate(self) -> None:
        await self._stop.wait()
        self._parts.gate.drained()

    async def _go_through(self) -> None:
        while not self._stop.is_set() and (found := await self._patiently(self._archive.read)) is not None:
            await self._deliver_all(await self._documents(found))
            await self._listener.progress(self.counts)

    # Reading

    async def _documents(self, found: list[Found]) -> list[Document]:
        """Return the documents that are to be delivered, with their records."""
        documents: list[Document] = []
        for one in found:
            if self._stop.is_set():
                break
            self.counts.documents += 1
            failed = self._read(one)
            if isinstance(failed, NotForUs):
                self._skip(one, failed.why, foreign=failed.foreign and not self._wishes.dry_run)
            elif failed.at_ms > self._wishes.before_ms:
                self._skip(one, "failed since the redrive began")
            elif self._wishes.since_ms is not None and failed.at_ms < self._wishes.since_ms:
                self._skip(one, "failed before the time given")
            else:
                document = await self._with_records(one, failed)
                if document is not None:
                    documents.append(document)
        return documents

    def _skip(self, found: Found, why: str, *, foreign: bool = False) -> None:
        self.counts.skipped_documents += 1
        self.skipped[why if why in self.skipped or len(self.skipped) < _MAX_REASONS else "for other reasons"] += 1
        self._archive.keep([found], foreign=foreign)

    async def _with_records(self, found: Found, failed: FailedRecords) -> Document | None:
        """Return a document with its records, from the source where it only names them; None: they are gone."""
        if failed.records is not None:
            return Document(found, [Place(*one) for one in failed.records])
        places: list[Place] = []
        whole = True
        for span in failed.spans:
            reread = await self._patiently(lambda span=span: self._rereading.read(span))  # type: ignore[misc]
            if reread is None:
                return None  # stopped
            whole = whole and reread.whole
            places += [Place(span.shard, record) for record in reread.records]
        missing = max(failed.count - len(places), 0 if whole else 1)
        if missing:
            self.counts.gone_documents += 1
            self.counts.gone_records += missing
            await self._listener.kept(found.name, failed.count, f"{missing} records are not in the source any more")
        if not places:
            self._archive.keep([found])
            return None
        return Document(found, places, complete=not missing)

    # Delivering

    async def _deliver_all(self, documents: list[Document]) -> None:
        empty = self._plan.add(documents)
        if empty:
            await self._took(empty)
        while not self._stop.is_set() and (attempt := self._plan.next()) is not None:
            if not await self._paced(len(attempt.records)):
                return
            sent = await self._try(attempt)
            if sent is None:
                return  # stopped
            settled = self._plan.learn(sent.taken, sent.error)
            if settled.done:
                await self._took(settled.done)
            if self._stop.is_set():
                return  # what was not taken may not have had its try
            for document in settled.failed:
                self.counts.failed_documents += 1
                self.counts.failed_records += len(document.left)
                self._archive.keep([document.found])
                await self._listener.kept(document.found.name, len(document.places), document.error or "it failed")
            await self._listener.progress(self.counts)

    async def _took(self, documents: list[Document]) -> None:
        """Remove documents; those of which something is gone stay, as all that tells of it."""
        self.counts.delivered_documents += len(documents)
        complete = [document.found for document in documents if document.complete]
        self._archive.keep([document.found for document in documents if not document.complete])
        if complete and not self._wishes.dry_run:
            await self._patiently(lambda: self._archive.remove(complete))

    async def _paced(self, records: int) -> bool:
        """Wait for the rate; False when stopped."""
        loop = asyncio.get_running_loop()
        if await drained_within(self._stop, self._pacer.wait_s(loop.time())):
            return False
        self._pacer.sent(records, loop.time())
        return True

    async def _try(self, attempt: Attempt) -> _Sent | None:
        """Invoke once, as long as it takes until there is room. None: stopped before an outcome was known."""
        sent = _Sent(self.counts, self._told)
        if self._wishes.dry_run:
            sent.delivered(Records.of(attempt.records))
            return sent
        key = ShardKey(self._parts.mapping.id, attempt.shard)
        token = await self._patiently(lambda: self._token_of(key))
        if token is None:
            return None
        delivering = self._delivery(_Term(key, token), sent)
        size = self._exchange.overhead() + sum(len(record.fragment) + 1 for record in attempt.records)
        async with asyncio.TaskGroup() as tasks:
            telling = tasks.create_task(self._tell(), name="tell of a redrive's waits")
            await delivering.deliver(Batch(Records.of(attempt.records), size))
            telling.cancel()
        self._took_records(len(sent.taken))
        return sent

    def _delivery(self, term: _Term, sent: _Sent) -> Delivery:
        parts = self._parts
        return Delivery(
            mapping=parts.mapping.name,
            lease=term,
            target=parts.target,
            exchange=self._exchange,
            gate=parts.gate,
            policy=RetryPolicy(
                maximum_retry_attempts=0,
                partial_responses=parts.policy.partial_responses,
                in_order=parts.policy.in_order,
            ),
            counters=parts.counters,
            finishing=sent,
            random=parts.random,
            draining=self._stop,
            tracing=parts.tracing,
        )

    async def _tell(self) -> None:
        """Tell of throttles, and now and then of a closed way to the function, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(_TELL_S):
                    told = await self._told.get()
            except TimeoutError:
                circuit = self._parts.gate.report()
                if circuit.retry_ms is None:
                    continue
                retry_in_s = max(0.0, circuit.retry_ms / 1000 - self._parts.now_s())
                told = (circuit.error or "the function is not called now", retry_in_s)
            await self._listener.waiting(*told)

    async def _patiently(self, step: Callable[[], Awaitable[_T]]) -> _T | None:
        """Repeat what something outside does not answer to, until stopped: None then."""
        ceiling_s = FIRST_DELAY_S
        while True:
            try:
                return await step()
            except UnavailableError as exc:
                delay_s = self._parts.random.uniform(0, ceiling_s)
                await self._listener.waiting(str(exc), delay_s)
                if await drained_within(self._stop, delay_s):
                    return None
                ceiling_s = min(MAX_DELAY_S, ceiling_s * 2)
