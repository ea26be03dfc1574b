"""The embedded Kafka broker for synchronous fixtures: its event loop runs in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Self, TypeVar

from node.embedded_kafka import FETCH_MAX_WAIT_MS, EmbeddedKafka
from tests.support.servers import unique_name

if TYPE_CHECKING:
    from collections.abc import Coroutine

_T = TypeVar("_T")
_ANSWER_S = 20.0


class EmbeddedBroker:
    """`EmbeddedKafka`, callable from any thread and from inside a running loop (it answers within milliseconds)."""

    fetch_max_wait_ms = FETCH_MAX_WAIT_MS

    def __init__(self) -> None:
        self._kafka = EmbeddedKafka()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="embedded kafka", daemon=True)

    @property
    def bootstrap_servers(self) -> str:
        """`host:port` of the broker."""
        return self._kafka.bootstrap_servers

    def new_topic(self, partitions: int = 1, *, prefix: str = "topic") -> str:
        """Create a topic with a name no other test uses."""
        name = unique_name(prefix)
        self.create_topic(name, partitions)
        return name

    def create_topic(self, name: str, partitions: int) -> None:
        """Create a topic."""
        self._wait(self._kafka.create_topic(name, partitions))

    def go_down(self) -> None:
        """Refuse connections, keeping data."""
        self._wait(self._kafka.go_down())

    def come_up(self) -> None:
        """Serve again."""
        self._wait(self._kafka.come_up())

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._wait(self._kafka.start())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._wait(self._kafka.stop())
        finally:
            self._end()

    def _wait(self, work: Coroutine[object, object, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_ANSWER_S)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_ANSWER_S)
        self._loop.close()
