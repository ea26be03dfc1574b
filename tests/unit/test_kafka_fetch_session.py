"""What a broker is told in a fetch session, against a broker that keeps to KIP-227."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from pollers.sources.kafka_fetch_session import FetchSession
from tests.support.fetch_broker import EPOCH_INVALID, SESSION_NOT_FOUND, SessionCache

if TYPE_CHECKING:
    from pollers.sources.kafka_fetch_session import Ask

_SEEDS = range(200)


def begun(*, session_id: int = 7, told: dict[int, int] | None = None) -> FetchSession:
    """Return a session with places that the broker has taken."""
    session = FetchSession()
    places = {0: 10, 1: 20, 2: 30} if told is None else told
    session.ask(places)
    assert session.answered(session_id, 0, [(partition, 0) for partition in places], now_ms=1)
    return session


def flat(ask: Ask) -> tuple[int, int, dict[int, int], set[int]]:
    """Make it comparable."""
    return ask.session_id, ask.epoch, dict(ask.changed), set(ask.forgotten)


def test_the_first_request_names_everything_and_asks_for_a_session() -> None:
    """Number and epoch zero ask for one."""
    assert flat(FetchSession().ask({0: 10, 1: 20})) == (0, 0, {0: 10, 1: 20}, set())


def test_later_requests_name_only_what_changed() -> None:
    """A moved place, a new partition and one to forget; the epoch counts requests."""
    session = begun()
    assert flat(session.ask({0: 10, 1: 20, 2: 30})) == (7, 1, {}, set())
    assert session.answered(7, 0, [], now_ms=2)
    assert flat(session.ask({0: 15, 2: 30, 3: 0})) == (7, 2, {0: 15, 3: 0}, {1})
    assert session.answered(7, 0, [(0, 0)], now_ms=3)
    assert flat(session.ask({0: 15, 1: 20, 2: 30, 3: 0})) == (7, 3, {1: 20}, set())


def test_without_a_session_every_request_names_everything() -> None:
    """A broker without room for one answers with number zero."""
    session = begun(session_id=0)
    assert flat(session.ask({0: 10, 1: 20, 2: 31})) == (0, 0, {0: 10, 1: 20, 2: 31}, set())


def test_a_request_without_an_answer_ends_the_session() -> None:
    """The broker may have seen it or not: the next one ends that session and begins another."""
    session = begun()
    session.ask({0: 11, 1: 20, 2: 30})
    assert flat(session.ask({0: 11, 1: 20, 2: 30})) == (7, 0, {0: 11, 1: 20, 2: 30}, set())
    assert session.answered(8, 0, [(0, 0), (1, 0), (2, 0)], now_ms=2)
    assert flat(session.ask({0: 11, 1: 20, 2: 30})) == (8, 1, {}, set())


@pytest.mark.parametrize(("error", "session_id"), [(SESSION_NOT_FOUND, 0), (EPOCH_INVALID, 7), (-1, 7)])
def test_an_error_of_the_whole_answer_begins_anew(error: int, session_id: int) -> None:
    """A session that is not there is not named again; one that is there is ended."""
    session = begun()
    session.ask({0: 11, 1: 20, 2: 30})
    assert not session.answered(0, error, [], now_ms=2)
    assert flat(session.ask({0: 11, 1: 20, 2: 30})) == (session_id, 0, {0: 11, 1: 20, 2: 30}, set())


@pytest.mark.parametrize(("session_id", "named"), [(7, [(3, 0)]), (7, [(-1, 0), (0, 0)]), (9, [(0, 0)])])
def test_an_answer_that_does_not_fit_is_not_believed(session_id: int, named: list[tuple[int, int]]) -> None:
    """Partitions that were forgotten or never asked for, and the answer of another session."""
    session = begun(told={0: 10, 1: 20, 3: 30})
    session.ask({0: 11, 1: 20})
    assert not session.answered(session_id, 0, named, now_ms=2)
    assert flat(session.ask({0: 11, 1: 20})) == (7, 0, {0: 11, 1: 20}, set())


def test_a_session_that_did_not_take_all_partitions_is_not_gone_on_with() -> None:
    """Its first answer names them all; what is in it may be used."""
    session = FetchSession()
    session.ask({0: 10, 1: 20})
    assert session.answered(7, 0, [(0, 0)], now_ms=1)
    assert flat(session.ask({0: 10, 1: 20})) == (7, 0, {0: 10, 1: 20}, set())


def test_a_session_that_the_broker_ends_is_over() -> None:
    """It says so with number zero; what came with it may be used."""
    session = begun()
    session.ask({0: 11, 1: 20, 2: 30})
    assert session.answered(0, 0, [(0, 0)], now_ms=2)
    assert flat(session.ask({0: 12, 1: 20, 2: 30})) == (0, 0, {0: 12, 1: 20, 2: 30}, set())


def test_it_begins_anew_when_asked_to() -> None:
    """Once; also when a request is under way, whose answer does not hide the wish."""
    session = begun()
    session.begin_anew()
    assert flat(session.ask({0: 10, 1: 20, 2: 30})) == (7, 0, {0: 10, 1: 20, 2: 30}, set())
    session.begin_anew()
    assert session.answered(8, 0, [(0, 0), (1, 0), (2, 0)], now_ms=2)
    assert flat(session.ask({0: 10, 1: 20, 2: 30})) == (8, 0, {0: 10, 1: 20, 2: 30}, set())
    assert session.answered(9, 0, [(0, 0), (1, 0), (2, 0)], now_ms=3)
    assert flat(session.ask({0: 10, 1: 20, 2: 30})) == (9, 1, {}, set())


def test_the_epoch_goes_round_and_leaves_out_zero() -> None:
    """After the largest number comes one, which is in the middle of a session; zero would begin another."""
    session = begun()
    session._epoch = 2**31 - 1  # two thousand million requests later
    assert flat(session.ask({0: 10, 1: 20, 2: 30}))[1] == 2**31 - 1
    assert session.answered(7, 0, [], now_ms=2)
    assert flat(session.ask({0: 10, 1: 20, 2: 30}))[:2] == (7, 1)


def test_an_answer_is_one_for_all_partitions_but_those_that_fail() -> None:
    """Failing ones are named in each answer until they are well; those asked for in vain are not heard of."""
    session = begun()
    assert session.heard_ms(0) is None  # the answer named it: whoever reads answers knows
    session.ask({0: 10, 1: 20, 2: 30})
    assert session.answered(7, 0, [(1, 6)], now_ms=100)
    assert [session.heard_ms(partition) for partition in (0, 1, 2, 3)] == [100, None, 100, None]
    session.ask({0: 10, 1: 20, 2: 30})
    assert not session.answered(7, EPOCH_INVALID, [], now_ms=200)
    session.ask({0: 10, 1: 20, 2: 30})
    assert [session.heard_ms(partition) for partition in (0, 1, 2)] == [100, None, 100]
    assert session.answered(8, 0, [(0, 0), (1, 6), (2, 0)], now_ms=300)
    session.ask({0: 10, 1: 20, 2: 30})
    assert session.answered(8, 0, [(1, 0)], now_ms=400)
    assert [session.heard_ms(partition) for partition in (0, 1, 2)] == [400, 400, 400]


@pytest.mark.parametrize("seed", _SEEDS)
def test_the_broker_serves_what_is_wanted_whatever_is_lost(seed: int) -> None:
    """Requests and answers get lost, sessions are evicted, the broker restarts or has no room: never another set."""
    random = Random(seed)
    cache, session = SessionCache(room=random.random() < 0.9), FetchSession()
    wanted: dict[int, int] = {}
    served = incremental = 0
    for _ in range(100):
        wanted = dict(wanted)
        for partition in random.sample(range(12), random.randint(0, 4)):
            if partition in wanted and random.random() < 0.3:
                del wanted[partition]
            else:
                wanted[partition] = random.randint(0, 50)
        if random.random() < 0.05:
            cache.forget()
        ask = session.ask(wanted)
        lost = random.random()
        if lost < 0.05:
            continue
        context = cache.take(ask.session_id, ask.epoch, dict(ask.changed), set(ask.forgotten))
        if lost < 0.1:
            continue
        if context.error:
            assert not session.answered(0, context.error, [], now_ms=1)
            continue
        assert context.places == wanted
        served += 1
        incremental += ask.epoch > 0
        named = list(wanted) if ask.epoch == 0 else random.sample(sorted(wanted), min(2, len(wanted)))
        assert session.answered(context.session_id, 0, [(partition, 0) for partition in named], now_ms=1)
    assert served > 60
    assert (incremental > 40) == cache.room
