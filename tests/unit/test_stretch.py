"""The latest values of a course, and what rates are made of."""

from __future__ import annotations

from node.stretch import Stretch


def test_what_is_kept_covers_the_stretch() -> None:
    """One older value stays, so that a rate is over all of it; there are two at least."""
    kept = Stretch[int](4.0)
    for at in range(10):
        kept.add(float(at), at * at)
    assert kept.first == 25
    assert kept.ends() == ((5.0, 25), (9.0, 81))
    kept.add(100.0, 0)
    assert kept.ends() == ((9.0, 81), (100.0, 0))


def test_a_shorter_stretch_may_be_asked_for() -> None:
    """Of what was seen in the last so many seconds alone."""
    kept = Stretch[str](10.0)
    for at in (0.0, 5.0, 8.5, 9.0, 10.0):
        kept.add(at, str(at))
    assert kept.ends(2.0) == ((8.5, "8.5"), (10.0, "10.0"))
    assert kept.ends(0.5) is None


def test_one_moment_makes_no_stretch() -> None:
    """Neither nothing, nor one value, nor two that were seen at once."""
    kept = Stretch[int](4.0)
    assert kept.ends() is None
    kept.add(1.0, 7)
    assert kept.ends() is None
    kept.add(1.0, 8)
    assert kept.ends() is None
