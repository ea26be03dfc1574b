"""What to do next with a batch: invoke, wait, cut in half, or give records up (spec section 4). Pure.

Function errors consume MaximumRetryAttempts; throttles and everything that did not reach the function consume
nothing, and make later function errors wait no longer. When a batch that was refused may go again is for
`pollers.circuit` to say; one that was not reached holds itself back besides, since what is wrong may be with it alone.
A split neither consumes a retry nor resets the count: each half keeps the parent's. Progress through a partial batch
response gives the remainder a fresh budget.

With parking, a failing batch is taken apart without delay until what fails is of one key, and that key's records are
parked after so many function errors. What a parked key waits for, others do not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf
from typing import TYPE_CHECKING, assert_never

from model.outcome import Delivered, FunctionFailed, NotReached, Outcome, PartlyFailed, Throttled
from model.record import MAX_EVENT_BYTES, NO_POSITION, NO_RECORDS, Batch, Records
from pollers.attempts import Attempts, Flight, Work
from pollers.ports import Lag

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping
    from random import Random

    from model.mapping import EventSourceMapping

FIRST_DELAY_S = 0.5
MAX_DELAY_S = 60.0
FREE_DEATHS = 1  # in a row make a suspect and cost nothing: see `pollers.deaths`
_PIECES = 16  # of a run whose holder died: a death is dearer than sixteen invocations


class Condition(StrEnum):
    """Why records were given up: the `condition` of an on-failure document (spec section 4.4)."""

    RETRY_ATTEMPTS_EXHAUSTED = "RetryAttemptsExhausted"
    RECORD_AGE_EXCEEDED = "RecordAgeExceeded"
    MAXIMUM_PAYLOAD_SIZE_EXCEEDED = "MaximumPayloadSizeExceeded"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The error rules of one mapping. None means without limit."""

    maximum_retry_attempts: int | None = None
    maximum_record_age_s: int | None = None
    bisect: bool = False
    partial_responses: bool = False
    in_order: bool = True  # a partial response of a stream shard fails everything from the lowest one on
    park_after: int | None = None  # function errors of records of one key before it is parked; None: never
    maximum_deaths: int | None = None  # of holders in a row, for records that no count of failures limits

    @classmethod
    def of(cls, mapping: EventSourceMapping, *, in_order: bool) -> RetryPolicy:
        """Read the rules off a mapping."""
        return cls(
            maximum_retry_attempts=mapping.maximum_retry_attempts,
            maximum_record_age_s=mapping.maximum_record_age_s,
            bisect=mapping.bisect_on_function_error,
            partial_responses=mapping.report_batch_item_failures,
            in_order=in_order,
            park_after=_park_after(mapping),
        )

    def expires_in_s(self, arrival_ms: float, now_ms: float) -> float:
        """How long until a record is older than it may get; infinite: never."""
        if self.maximum_record_age_s is None:
            return inf
        return self.maximum_record_age_s + (arrival_ms - now_ms + 1) / 1000  # 1 ms: older, not as old

    def of_parked(self) -> RetryPolicy:
        """Return the rules for records in the parking lot: tried until they get too old, and told apart.

        That their retries are used up is why they are there. But a record that kills the node has to go some time.
        """
        retries = self.maximum_retry_attempts
        deaths = None if retries is None else retries + FREE_DEATHS
        return replace(self, maximum_retry_attempts=None, park_after=None, bisect=True, maximum_deaths=deaths)


def _park_after(mapping: EventSourceMapping) -> int | None:
    """Return when a key is parked: as said, or when its retries are used up, or, where they are endless, at once."""
    if not mapping.extensions.park_failing_keys:
        return None
    if mapping.extensions.park_after is not None:
        return mapping.extensions.park_after
    return 1 if mapping.maximum_retry_attempts is None else mapping.maximum_retry_attempts + 1


@dataclass(frozen=True, slots=True)
class Invoke:
    """Call the function with this work now."""

    work: Work


@dataclass(frozen=True, slots=True)
class Park:
    """Park this key: take what there is of it with `Retrying.withdraw`, or say `Retrying.not_parked`."""

    key: Hashable
    work: Work


@dataclass(frozen=True, slots=True)
class Discard:
    """Give these records up; they are the head of what is unfinished. None of them: a window's final call."""

    records: Records
    condition: Condition
    work: Work


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an outcome means: records finished by it, and how long to wait before the next step."""

    finished: Records = NO_RECORDS
    delay_s: float = 0.0


def unknown_lag() -> Lag:
    """Tell nothing of a source."""
    return Lag(None)


class Retrying:
    """The course of one batch until none of its records is unfinished.

    `known_failures` carries what runs of records had been through before a restart, by their first positions.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        batch: Batch,
        *,
        overhead: int,
        random: Random,
        known_failures: Mapping[int, Attempts] | None = None,
    ) -> None:
        self._policy = policy
        self._overhead = overhead
        self._random = random
        self._giving_up: Work | None = None  # until it is known what became of it
        self._todo = self._resumed(batch, known_failures) if known_failures else [Work(batch)]  # last is next

    def _resumed(self, batch: Batch, known: Mapping[int, Attempts]) -> list[Work]:
        """Cut the batch where known runs begin and end."""
        if not batch.records:
            attempts = known.get(NO_POSITION)
            return [Work(batch) if attempts is None else attempts.resume(batch)]
        works: list[Work] = []
        positions, at = batch.records.positions, 0
        while at < len(positions):
            attempts = known.get(positions[at])
            end = at + 1
            while (
                end < len(positions)
                and positions[end] not in known
                and (attempts is None or positions[end] <= attempts.last)
            ):
                end += 1
            part = batch if end - at == len(positions) else self._batch(batch.records[at:end])
            if attempts is None:
                works.append(Work(part))
            elif attempts.flight is Flight.DEADLY:
                # One of the pieces is to blame: each is no more than a suspect again.
                works += [replace(attempts.resume(piece), deaths=FREE_DEATHS) for piece in self._pieces(part.records)]
            else:
                works.append(attempts.resume(part))
            at = end
        return works[::-1]

    def _pieces(self, records: Records) -> list[Batch]:
        size = -(-len(records) // _PIECES)
        return [self._batch(records[at : at + size]) for at in range(0, len(records), size)]

    def failures(self) -> dict[int, Attempts]:
        """Return what every unfinished run of records has been through, for the shard's stored state.

        Records being given up still count: their destination may not have them yet.
        """
        works = self._todo if self._giving_up is None else [*self._todo, self._giving_up]
        return {_place(work.batch): Attempts.of(work) for work in works}

    def stuck(self) -> Work | None:
        """Return what is next, if it has failed before, or what is being given up."""
        return self._giving_up or next((work for work in self._todo[-1:] if work.last is not None), None)

    def insert(self, batch: Batch) -> None:
        """Put a batch before what is left."""
        self._todo.append(Work(batch))

    def withdraw(self, key: Hashable) -> Records:
        """Take all unfinished records of a key out, in order: it was parked."""
        taken: list[Records] = []
        left: list[Work] = []
        for work in reversed(self._todo):
            records = work.batch.records
            mine = [one == key for one in records.order_keys]
            if any(mine):
                taken.append(records.pick(mine))
                work.batch = self._batch(records.pick([not it for it in mine]))
                if not work.batch.records:
                    continue
            left.append(work)
        self._todo = left[::-1]
        return Records.joined(taken)

    def not_parked(self) -> Verdict:
        """Go on with the work that was to be parked: there is no room."""
        work = self._todo[-1]
        work.parkable = False
        return Verdict(delay_s=self._backoff_s(work))

    def next(self, now_ms: float, lag: Callable[[], Lag] = unknown_lag) -> Invoke | Discard | Park | None:
        """Return the next step; None when everything is finished. `now_ms` is epoch time, for the age of records.

        `lag` tells what the source still has; it is asked only about records that could not be delivered at once. After
        `Discard` the records are gone from the work; call `next` again once they are given up.
        """
        self._giving_up = None
        if not self._todo:
            return None
        work = self._todo[-1]
        if self._is_to_park(work):
            return Park(work.batch.records.order_keys[0], work)
        condition, count = self._to_give_up(work, now_ms, lag)
        if condition is None:
            return Invoke(work)
        records = work.batch.records
        given_up = records[:count]
        self._giving_up = self._todo.pop()
        if count < len(records):
            self._todo.append(replace(work, batch=self._batch(records[count:])))
        return Discard(given_up, condition, work)

    def _is_to_park(self, work: Work) -> bool:
        after = self._policy.park_after
        return (
            after is not None
            and work.failures >= after
            and work.parkable
            and work.batch.size <= MAX_EVENT_BYTES
            and _of_one_key(work.batch)
        )

    def _to_give_up(self, work: Work, now_ms: float, lag: Callable[[], Lag]) -> tuple[Condition | None, int]:
        records, policy = work.batch.records, self._policy
        if work.batch.size > MAX_EVENT_BYTES:
            return Condition.MAXIMUM_PAYLOAD_SIZE_EXCEEDED, len(records)
        if policy.maximum_retry_attempts is not None and work.failures > policy.maximum_retry_attempts:
            return Condition.RETRY_ATTEMPTS_EXHAUSTED, len(records)
        if policy.maximum_deaths is not None and work.deaths > policy.maximum_deaths and len(records) == 1:
            return Condition.RETRY_ATTEMPTS_EXHAUSTED, len(records)
        age_s, first = self._kept(work, lag)
        if age_s == inf and first is None:
            return None, 0
        since_ms, begin = now_ms - age_s * 1000, -1 if first is None else first
        rows = enumerate(zip(records.arrivals_ms, records.positions, strict=True))
        kept = (at for at, (arrival_ms, position) in rows if arrival_ms >= since_ms and position >= begin)
        expired = next(kept, len(records))  # the leading ones: younger records are still delivered (spec 4.2)
        return (Condition.RECORD_AGE_EXCEEDED, expired) if expired else (None, 0)

    def _kept(self, work: Work, lag: Callable[[], Lag]) -> tuple[float, int | None]:
        """Return how old records may get, and the position from which on they may be delivered.

        What could not be delivered at once is tried as long as its source has it (spec 4.2): held for ever, it would
        cost what waits behind it, which the source goes on deleting.
        """
        limit_s = self._policy.maximum_record_age_s
        age_s = inf if limit_s is None else limit_s
        if not (work.setbacks or work.refusals):
            return age_s, None
        source = lag()
        return min(age_s, inf if source.retention_s is None else source.retention_s), source.first

    def expires_in_s(self, now_ms: float, lag: Callable[[], Lag] = unknown_lag) -> float:
        """How long until `next` gives records of the present work up for their age; infinite: never."""
        work = self._todo[-1]
        if not work.batch.records:
            return inf
        age_s, _ = self._kept(work, lag)
        return age_s + (work.batch.records.arrivals_ms[0] - now_ms + 1) / 1000  # 1 ms: older, not as old

    def learn(self, outcome: Outcome) -> Verdict:
        """Take in what came of the last `Invoke`."""
        work = self._todo[-1]
        work.last = outcome
        if not isinstance(outcome, Throttled | NotReached):
            work.deaths = 0  # the function had the records, and the node lives
        unreached, work.unreached = work.unreached, 0
        match outcome:
            case Delivered():
                work.invocations += 1
                self._todo.pop()
                return Verdict(finished=work.batch.records)
            case PartlyFailed():
                work.invocations += 1
                return self._partly_failed(work, outcome)
            case FunctionFailed():
                work.invocations += 1
                return self._failed(work)
            case Throttled() | NotReached():
                work.refusals += 1
                work.unreached = unreached + 1 if isinstance(outcome, NotReached) else 0
                return Verdict(delay_s=refusal_pause_s(outcome, unreached, self._random))
            case _:
                assert_never(outcome)

    def _failed(self, work: Work) -> Verdict:
        records = work.batch.records
        parking = self._policy.park_after is not None
        if len(records) < 2 or (_of_one_key(work.batch) if parking else not self._policy.bisect):  # noqa: PLR2004
            return self._counted(work)
        # When keys are told apart to park one of them, an error of several is nobody's, and nobody waits for it.
        if not parking:
            return self._cut(work, len(records) // 2)
        work.failures = 0
        self._cut(work, len(records) // 2)
        return Verdict()

    def _cut(self, work: Work, at: int) -> Verdict:
        """Cut the present work in two; each part keeps what the whole has been through, and the first one is next."""
        records, delay_s = work.batch.records, self._backoff_s(work)
        parts = (records[at:], records[:at])
        self._todo[-1:] = [replace(work, batch=self._batch(part), parkable=True) for part in parts]
        return Verdict(delay_s=delay_s)

    def _counted(self, work: Work) -> Verdict:
        """Count a function error of records that stay together."""
        work.failures += 1
        work.parkable = True
        return Verdict(delay_s=0.0 if self._is_to_park(work) else self._backoff_s(work))

    def _partly_failed(self, work: Work, outcome: PartlyFailed) -> Verdict:
        records = work.batch.records
        if self._policy.in_order:
            cut = next(at for at, item_id in enumerate(records.item_ids) if item_id in outcome.failed)
            finished, left = records[:cut], records[cut:]
        else:
            failed = [item_id in outcome.failed for item_id in records.item_ids]
            finished, left = records.pick([not it for it in failed]), records.pick(failed)
        if not finished:
            if self._policy.park_after is not None:
                return self._first_failed(work)
            if self._policy.bisect and self._policy.in_order and len(records) > 1:
                return self._cut(work, 1)  # the record that was named is told apart from those behind it
            return self._counted(work)
        # Progress: the remainder is a new batch with a fresh budget (spec section 4.3).
        self._todo[-1] = rest = Work(self._batch(left), last=outcome)
        return Verdict(finished=finished, delay_s=self._backoff_s(rest))

    def _first_failed(self, work: Work) -> Verdict:
        """Set the first record, which was reported, apart from those that may have been processed."""
        records = work.batch.records
        if len(records) > 1:
            rest = replace(work, batch=self._batch(records[1:]), failures=0, parkable=True)
            work.batch = self._batch(records[:1])
            self._todo.insert(-1, rest)  # behind it
        return self._counted(work)

    def _batch(self, records: Records) -> Batch:
        return Batch(records, self._overhead + records.size)

    def _backoff_s(self, work: Work) -> float:
        work.setbacks += 1
        return jittered_s(work.setbacks - 1, self._random)


def refusal_pause_s(outcome: Throttled | NotReached, unreached: int, random: Random) -> float:
    """How long a batch that did not reach the function holds itself back while others are called.

    Not at all when throttled: it may go when the function has room. `unreached` counts the times before this one.
    Retry-After is kept to.
    """
    pause_s = jittered_s(unreached, random) if isinstance(outcome, NotReached) else 0.0
    if outcome.retry_after_s is None:
        return pause_s
    return max(pause_s, outcome.retry_after_s + random.uniform(0, FIRST_DELAY_S))


def jittered_s(before: int, random: Random) -> float:
    """Full jitter over 0.5 s doubling up to 60 s (architecture section 5)."""
    return random.uniform(0, min(MAX_DELAY_S, FIRST_DELAY_S * 2 ** min(before, 10)))


def _of_one_key(batch: Batch) -> bool:
    return len(set(batch.records.order_keys)) == 1


def _place(batch: Batch) -> int:
    return batch.records.positions[0] if batch.records else NO_POSITION
