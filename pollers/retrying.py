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

import msgspec

from model.outcome import Delivered, FunctionFailed, NotReached, Outcome, PartlyFailed, Throttled
from model.record import MAX_EVENT_BYTES, NO_POSITION, NO_RECORDS, Batch, Records

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping
    from random import Random

    from model.mapping import EventSourceMapping

FIRST_DELAY_S = 0.5
MAX_DELAY_S = 60.0


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
        """Return the rules for records in the parking lot: tried until they get too old, and told apart."""
        return replace(self, maximum_retry_attempts=None, park_after=None, bisect=True)


def _park_after(mapping: EventSourceMapping) -> int | None:
    """Return when a key is parked: as said, or when its retries are used up, or, where they are endless, at once."""
    if not mapping.extensions.park_failing_keys:
        return None
    if mapping.extensions.park_after is not None:
        return mapping.extensions.park_after
    return 1 if mapping.maximum_retry_attempts is None else mapping.maximum_retry_attempts + 1


@dataclass(slots=True)
class Work:
    """A batch, or what is left of one, with what it has been through."""

    batch: Batch
    failures: int = 0  # function errors, against MaximumRetryAttempts
    invocations: int = 0  # times the function was called with these records
    setbacks: int = 0  # times the function failed since the last progress, for the backoff
    last: Outcome | None = None
    parkable: bool = True  # False: there was no room when it was its time, so it goes on until the next failure
    refusals: int = 0  # times it did not reach the function since then
    unreached: int = 0  # of these, the last ones in a row that were no throttles
    not_before: float = 0.0  # event-loop time until which it holds itself back after a refusal

    @property
    def attempt(self) -> int:
        """The number of the next call since the last progress; 1 for the first."""
        return self.setbacks + self.refusals + 1


class Attempts(msgspec.Struct, frozen=True, array_like=True):
    """What a run of records has been through, for the shard's stored state: it survives restarts and hand-overs.

    `last` bounds the run: the next holder's batches are cut differently, and records that the function was never
    called with must not inherit the attempts of those that failed. The function's last answer is kept for the
    on-failure document.
    """

    last: int  # position of the run's last record
    failures: int
    invocations: int
    status: int = 200
    executed_version: str | None = None
    function_error: str | None = "Unhandled"

    @classmethod
    def of(cls, work: Work) -> Attempts:
        """Sum up a piece of work."""
        positions = work.batch.records.positions
        attempts = cls(positions[-1] if positions else NO_POSITION, work.failures, work.invocations)
        match work.last:
            case FunctionFailed(_, function_error, status, version):
                return msgspec.structs.replace(
                    attempts, status=status, executed_version=version, function_error=function_error
                )
            case PartlyFailed(_, status, version):
                return msgspec.structs.replace(attempts, status=status, executed_version=version, function_error=None)
            case _:
                return attempts

    def resume(self, batch: Batch) -> Work:
        """Return the work that goes on with these records."""
        last = FunctionFailed("before a restart", self.function_error, self.status, self.executed_version)
        return Work(batch, self.failures, self.invocations, self.failures, last)


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
            works.append(Work(part) if attempts is None else attempts.resume(part))
            at = end
        return works[::-1]

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

    def next(self, now_ms: float) -> Invoke | Discard | Park | None:
        """Return the next step; None when everything is finished. `now_ms` is epoch time, for the age of records.

        After `Discard` the records are gone from the work; call `next` again once they are given up.
        """
        self._giving_up = None
        if not self._todo:
            return None
        work = self._todo[-1]
        if self._is_to_park(work):
            return Park(work.batch.records.order_keys[0], work)
        condition, count = self._to_give_up(work, now_ms)
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

    def _to_give_up(self, work: Work, now_ms: float) -> tuple[Condition | None, int]:
        records, policy = work.batch.records, self._policy
        if work.batch.size > MAX_EVENT_BYTES:
            return Condition.MAXIMUM_PAYLOAD_SIZE_EXCEEDED, len(records)
        if policy.maximum_retry_attempts is not None and work.failures > policy.maximum_retry_attempts:
            return Condition.RETRY_ATTEMPTS_EXHAUSTED, len(records)
        if policy.maximum_record_age_s is not None:
            oldest_ms = now_ms - policy.maximum_record_age_s * 1000
            expired = next(
                (at for at, arrival_ms in enumerate(records.arrivals_ms) if arrival_ms >= oldest_ms), len(records)
            )
            if expired:  # only the leading ones: younger records of the batch are still delivered (spec 4.2)
                return Condition.RECORD_AGE_EXCEEDED, expired
        return None, 0

    def expires_in_s(self, now_ms: float) -> float:
        """How long until `next` gives records of the present work up for their age; infinite: never."""
        records = self._todo[-1].batch.records
        return self._policy.expires_in_s(records.arrivals_ms[0], now_ms) if records else inf

    def learn(self, outcome: Outcome) -> Verdict:
        """Take in what came of the last `Invoke`."""
        work = self._todo[-1]
        work.last = outcome
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
        failures, delay_s = (0, 0.0) if parking else (work.failures, self._backoff_s(work))
        self._todo.pop()
        half = len(records) // 2
        for part in (records[half:], records[:half]):  # the first half is next
            self._todo.append(replace(work, batch=self._batch(part), failures=failures, parkable=True))
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
            return self._first_failed(work) if self._policy.park_after is not None else self._counted(work)
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
