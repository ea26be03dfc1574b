"""When visibility is extended, and what has become visible."""

from __future__ import annotations

import pytest

from pollers.visibility import Visibility, hidden_until, too_short, visible
from tests.support.queue_rig import message


def test_messages_are_extended_shortly_before_they_become_visible() -> None:
    """Not earlier than a third of the timeout, or half a minute, before the end."""
    visibility = Visibility(30, extends=True)
    one, two = message(1, None, until_at=30), message(2, None, until_at=35)
    visibility.hold([two, one])
    assert visibility.due_at() == 20
    assert visibility.due(19.9, 10) == []
    assert visibility.due(25, 10) == [one, two]
    visibility.extended(one, 55)
    visibility.again(two)
    assert visibility.due_at() == 25
    visibility.drop([two])
    assert visibility.due_at() == 45
    assert not visible(one, 54.9)
    assert visible(one, 55)
    assert Visibility(600, extends=True).margin_s == 30


def test_what_is_past_its_end_is_told_and_not_extended() -> None:
    """The queue would refuse, or others have it already."""
    visibility = Visibility(30, extends=True)
    late, fine = message(1, None, until_at=10), message(2, None, until_at=40)
    visibility.hold([late, fine])
    assert visibility.due(10, 10) == []
    assert visibility.lapsed(10)
    assert not visibility.lapsed(10)
    visibility.gone(fine)
    assert (visibility.lapsed(10), len(visibility), visible(fine, 0)) == (True, 0, True)


def test_without_the_heartbeat_nothing_is_due_and_ends_are_noticed() -> None:
    """Off: no extension, only the end."""
    visibility = Visibility(30, extends=False)
    visibility.hold([message(1, None, until_at=30)])
    assert (visibility.due_at(), visibility.due(29, 10), visibility.lapsed(29.9)) == (None, [], False)
    assert visibility.lapsed(30)


def test_an_extension_ends_where_the_queue_allows_no_more() -> None:
    """Twelve hours from the receive on."""
    visibility = Visibility(30, extends=True)
    old = message(1, None, until_at=100)
    old.last_at = 112.5
    assert visibility.extension_s(95, [old]) == 17
    old.last_at = 100
    visibility.hold([old])
    assert visibility.due(99.5, 10) == []


def test_the_queue_counted_from_before_the_answer() -> None:
    """A little is taken off the end."""
    assert hidden_until(100, 30) == 129
    assert hidden_until(100, 1) == 100.9


@pytest.mark.parametrize(
    ("visibility_s", "function_timeout_s", "said"),
    [
        (30, 300.0, "Queue visibility timeout: 30 seconds is less than Function timeout: 300 seconds"),
        (0, 0.5, "Queue visibility timeout: 0 seconds is less than Function timeout: 0.5 seconds"),
        (30, 30.0, None),
        (30, None, None),
    ],
)
def test_a_function_may_not_run_for_longer_than_messages_are_hidden(
    visibility_s: int, function_timeout_s: float | None, said: str | None
) -> None:
    """AWS's words; as long is long enough, and of what nobody knows nothing is said."""
    assert too_short(visibility_s, function_timeout_s) == said
