"""How answers move the number of batches that may be with the function."""

from __future__ import annotations

from pollers.queue_limit import ConcurrencyLimit


def test_function_errors_lower_it_by_one_unless_items_are_reported() -> None:
    """Gradually, and not at all with ReportBatchItemFailures."""
    limit, reporting = ConcurrencyLimit(3, reduces_on_errors=True), ConcurrencyLimit(3, reduces_on_errors=False)
    for _ in range(5):
        limit.failed()
        reporting.failed()
    assert (limit.now, reporting.now) == (1, 3)


def test_the_share_is_the_ceiling() -> None:
    """A smaller share counts at once; a larger one too, unless the limit was reduced."""
    limit = ConcurrencyLimit(4, reduces_on_errors=True)
    limit.share = 8
    assert limit.now == 8
    for _ in range(4):
        limit.failed()
    limit.share = 16
    assert limit.now == 4
    limit.share = 2
    assert limit.now == 2
    limit.share = 0
    assert limit.now == 0


def test_a_poller_with_a_share_of_one_tells_that_the_function_has_no_room() -> None:
    """It tries one batch all the same, and success takes the word back; reported items are no want of room."""
    limit, reporting = ConcurrencyLimit(1, reduces_on_errors=True), ConcurrencyLimit(1, reduces_on_errors=False)
    assert (limit.now, limit.room) == (1, 1)
    limit.failed()
    assert (limit.now, limit.room) == (1, 0)
    limit.share = 2
    assert (limit.now, limit.room) == (1, 0)
    limit.share = 1
    limit.took()
    reporting.failed()
    assert (reporting.now, reporting.room) == (1, 1)
    limit.share = 0
    limit.failed()
    assert (limit.now, limit.room) == (0, 0)
