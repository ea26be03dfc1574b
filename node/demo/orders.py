"""Orders of an imaginary shop: customers, items, amounts, and an order's way from placed to delivered. Pure.

The same seed tells the same story. Events of one order share a key, so they stay in order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

import msgspec

_CURRENCIES = {"DE": "EUR", "FR": "EUR", "ES": "EUR", "US": "USD", "GB": "GBP", "JP": "JPY", "CH": "CHF"}
_COUNTRIES = (*("DE",) * 4, *("FR",) * 3, *("US",) * 5, *("GB",) * 3, "ES", "JP", "CH")
_ITEMS = (
    ("tea-250", "Darjeeling, 250 g", 14.9),
    ("cof-1000", "Espresso beans, 1 kg", 27.5),
    ("mug-02", "Mug, stoneware", 12.0),
    ("ket-01", "Electric kettle", 49.0),
    ("gri-07", "Burr grinder", 129.0),
    ("scl-03", "Brewing scale", 59.0),
    ("fil-100", "Paper filters, 100", 5.4),
    ("pot-11", "Teapot, cast iron", 74.0),
    ("esp-90", "Espresso machine", 649.0),
    ("cle-05", "Cleaning tablets", 9.9),
)
_WEIGHTS = (12, 14, 8, 4, 3, 3, 10, 3, 1, 6)
_NEXT = {"placed": "paid", "paid": "shipped", "shipped": "delivered"}
_CUSTOMERS = 400
_MOST_OPEN = 600  # orders under way; beyond, old ones move on before new ones are placed
_NEW_SHARE = 0.32  # of the events, while there is room
_CANCELLED_SHARE = 0.04  # of the orders that would be paid


class OrderEvent(NamedTuple):
    """What happened to an order, as it goes to Kafka."""

    key: bytes
    value: bytes


class Item(msgspec.Struct, frozen=True):
    """A line of an order."""

    sku: str
    name: str
    quantity: int
    price: float


class Customer(msgspec.Struct, frozen=True):
    """Who ordered."""

    id: str
    country: str


class Order(msgspec.Struct):
    """The document of an event: the whole order after the change."""

    order_id: str
    status: str
    customer: Customer
    items: list[Item]
    amount: float
    currency: str
    changed_time: str


@dataclass(slots=True)
class Orders:
    """The shop. Remembers the orders under way, at most `_MOST_OPEN`."""

    seed: int = 1
    _random: Random = field(init=False)
    _open: list[Order] = field(init=False, default_factory=list)
    _placed: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._random = Random(self.seed)  # noqa: S311 - a story, no secret

    def event(self, changed_time: str) -> OrderEvent:
        """Return what happens next; `changed_time` is ISO 8601."""
        share = self._random.random()
        place = not self._open or (share < _NEW_SHARE and len(self._open) < _MOST_OPEN)
        order = self._place() if place else self._advance()
        order.changed_time = changed_time
        return OrderEvent(order.order_id.encode(), msgspec.json.encode(order))

    def _place(self) -> Order:
        self._placed += 1
        number = self._random.randrange(_CUSTOMERS)
        country = _COUNTRIES[number % len(_COUNTRIES)]
        kinds = self._random.choices(_ITEMS, _WEIGHTS, k=self._random.choice((1, 1, 1, 2, 2, 3)))
        items = [Item(sku, name, self._random.choice((1, 1, 1, 2, 3)), price) for sku, name, price in kinds]
        amount = round(sum(item.quantity * item.price for item in items), 2)
        customer = Customer(f"c-{number:04}", country)
        order = Order(f"o-{self._placed:07}", "placed", customer, items, amount, _CURRENCIES[country], "")
        self._open.append(order)
        return order

    def _advance(self) -> Order:
        at = self._random.randrange(len(self._open))
        order = self._open[at]
        cancelled = order.status == "placed" and self._random.random() < _CANCELLED_SHARE
        order.status = "cancelled" if cancelled else _NEXT[order.status]
        if order.status not in _NEXT:
            self._open[at] = self._open[-1]
            self._open.pop()
        return order
