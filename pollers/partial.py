"""Read a partial batch response (ReportBatchItemFailures, spec section 4.3). Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from model.outcome import Delivered, FunctionFailed, Outcome, PartlyFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

_SUCCESS: tuple[object, ...] = (None, "", [], {})
_SHOWN = 80


class UnreadableError(Exception):
    """The response spoils the whole batch; the text says why."""


def read_response(
    answered: Delivered, item_ids: Iterable[Hashable], parse_item_id: Callable[[object], Hashable | None]
) -> Outcome:
    """Return what the function's answer means for a mapping that has ReportBatchItemFailures.

    One bad identifier fails the whole batch. That is no function error: `function_error` is None then, as the
    on-failure document shows it.
    """
    try:
        failed = _failed_items(answered.body, item_ids, parse_item_id)
    except UnreadableError as exc:
        return unreadable(answered, f"invalid partial batch response: {exc}")
    return outcome_of(answered, failed)


def unreadable(answered: Delivered, error: str) -> FunctionFailed:
    """Return what an answer means that does not say what it must."""
    return FunctionFailed(
        error, function_error=None, status=answered.status, executed_version=answered.executed_version
    )


def outcome_of(answered: Delivered, failed: frozenset[Any]) -> Outcome:
    """Return what a readable answer means that names these items."""
    if not failed:
        return answered
    return PartlyFailed(failed, status=answered.status, executed_version=answered.executed_version)


def _failed_items(
    body: bytes, item_ids: Iterable[Hashable], parse_item_id: Callable[[object], Hashable | None]
) -> frozenset[Any]:
    if not body.strip():
        return frozenset()
    try:
        response = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise UnreadableError("the body is not JSON") from exc
    if response in _SUCCESS:
        return frozenset()
    if not isinstance(response, dict) or "batchItemFailures" not in response:
        raise UnreadableError("no batchItemFailures")
    return named_items(response["batchItemFailures"], item_ids, parse_item_id)


def named_items(
    failures: Any, item_ids: Iterable[Hashable], parse_item_id: Callable[[object], Hashable | None]
) -> frozenset[Any]:
    """Read the list of a response's batchItemFailures. Raises `UnreadableError`."""
    if failures is None:
        return frozenset()
    if not isinstance(failures, list):
        raise UnreadableError("batchItemFailures is not a list")
    known = set(item_ids)
    failed = set()
    for failure in failures:
        identifier = failure.get("itemIdentifier") if isinstance(failure, dict) else None
        item_id = parse_item_id(identifier)
        if item_id is None or item_id not in known:
            raise UnreadableError(f"itemIdentifier {str(identifier)[:_SHOWN]!r} names no record of the batch")
        failed.add(item_id)
    return frozenset(failed)
