"""The demo's orders and clicks, and how its functions behave."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from config.load import load
from model.mapping import KafkaSource, KinesisSource, SqsSource
from model.pattern import compile_pattern
from node.demo.clicks import Click, Clicks
from node.demo.handlers.behaviour import BURST_S, FIRST_BURST_S, FIRST_ERROR_S, Answer, Behaviour
from node.demo.orders import Order, Orders
from node.demo.play import BROKER
from node.demo.producers import QUEUE_ARN, QUEUE_VISIBILITY_S, STREAM_ARN, TOPIC
from node.demo.sandboxed import SHIPPED_ADDRESS, SHIPPED_CODE
from node.demo.show import SHIPPED

if TYPE_CHECKING:
    from collections.abc import Iterator

WAY = ["placed", "paid", "shipped", "delivered"]


def story(seed: int, events: int) -> Iterator[Order]:
    """Return what an own shop tells."""
    shop = Orders(seed)
    for _ in range(events):
        key, value = shop.event("2026-01-02T03:04:05.678+00:00")
        order = msgspec.json.decode(value, type=Order)
        assert order.order_id.encode() == key
        yield order


def test_a_seed_tells_the_same_story_again() -> None:
    """Two shops with one seed produce the same events, with another seed others."""
    assert list(story(7, 500)) == list(story(7, 500))
    assert list(story(7, 500)) != list(story(8, 500))


@given(seed=st.integers(0, 2**32), events=st.integers(1, 800))
def test_an_order_goes_its_way(seed: int, events: int) -> None:
    """The events of an order begin with `placed`, go forward step by step or end cancelled, and keep its amount."""
    orders: dict[str, list[Order]] = defaultdict(list)
    for order in story(seed, events):
        orders[order.order_id].append(order)
    for course in orders.values():
        statuses = [order.status for order in course]
        assert statuses in (WAY[: len(statuses)], ["placed", "cancelled"])
        assert {order.amount for order in course} == {
            round(sum(item.quantity * item.price for item in course[0].items), 2)
        }
        assert len({(order.customer, order.currency) for order in course}) == 1


def test_orders_under_way_are_bounded() -> None:
    """However long the shop is open, it does not remember more than a fixed number of orders."""
    shop = Orders()
    for _ in range(20_000):
        shop.event("")
    assert len(shop._open) <= 600


def test_a_visitor_goes_from_page_to_page() -> None:
    """A seed tells the same clicks again; each comes from the page the visitor was on, and has the visitor's key."""
    first, second = (Clicks(3), Clicks(3))
    at: dict[str, str] = {}
    for _ in range(2000):
        key, data = first.event("2026-01-02T03:04:05.678+00:00")
        assert second.event("2026-01-02T03:04:05.678+00:00") == (key, data)
        click = msgspec.json.decode(data, type=Click)
        assert click.visitor == key
        assert click.came_from == at.get(key, "/") != click.page
        at[key] = click.page
    assert len(at) == 250


def test_the_shipped_filter_takes_some_orders() -> None:
    """The configuration's filter passes a part of the orders that can be seen: neither next to none nor most."""
    mappings = {mapping.name: mapping for mapping in load([SHIPPED], environ={}).mappings}
    (pattern,) = mappings["paid-orders"].filter_patterns
    value = msgspec.json.decode(pattern)["value"]
    compiled = compile_pattern(msgspec.json.encode(value).decode())
    orders = [msgspec.to_builtins(order) for order in story(1, 5000)]
    share = sum(not compiled.explain(order) for order in orders) / len(orders)
    assert 0.05 < share < 0.3


def test_the_shipped_file_has_the_addresses_that_the_demo_replaces() -> None:
    """What the demo puts its own addresses in for stands in the file, as often as there are functions and mappings."""
    settings = load([SHIPPED], environ={})
    text = SHIPPED.read_text()
    assert text.count(SHIPPED_CODE) == len(settings.functions)
    assert text.count(SHIPPED_ADDRESS) == 1
    sources = [mapping.source for mapping in settings.mappings]
    assert text.count(BROKER) == sum(isinstance(source, KafkaSource) for source in sources)
    assert [source.arn for source in sources if isinstance(source, KinesisSource)] == [STREAM_ARN]
    assert [source.arn for source in sources if isinstance(source, SqsSource)] == [QUEUE_ARN]
    assert settings.functions["mailer"].timeout_s == QUEUE_VISIBILITY_S
    assert settings.embedded.aws is not None
    assert settings.embedded.kafka is not None
    assert set(settings.embedded.kafka.topics) == {TOPIC}


@given(st.lists(st.floats(0, 0.2), min_size=1, max_size=400), st.booleans(), st.integers(0, 100))
def test_nothing_fails_twice(pauses_s: list[float], partial: bool, seed: int) -> None:  # noqa: FBT001
    """A call that is a retry is never failed, and partial responses come only from a function that gives them."""
    behaviour, now = Behaviour(partial_responses=partial, seed=seed), 100.0
    for pause_s in pauses_s:
        now += pause_s
        assert behaviour.answer(attempt=2, now=now) in {Answer.TAKE, Answer.TURN_AWAY}
        assert behaviour.answer(attempt=1, now=now) is not Answer.FAIL_ONE or partial


def test_trouble_comes_early_and_ends() -> None:
    """Three seconds of calls see an error, and a burst of calls turned away that is over after its time."""
    behaviour = Behaviour(partial_responses=False)
    answers = {now: behaviour.answer(attempt=1, now=now / 64) for now in range(192)}
    turned_away = [now / 64 for now, answer in answers.items() if answer is Answer.TURN_AWAY]
    assert (min(turned_away), max(turned_away)) == (FIRST_BURST_S, FIRST_BURST_S + BURST_S - 1 / 64)
    assert min(now / 64 for now, answer in answers.items() if answer is Answer.FAIL) == FIRST_ERROR_S
