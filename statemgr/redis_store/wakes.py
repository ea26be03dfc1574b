"""Listens on the fleet's channel, for ever: reconnects, checks that a silent connection still lives, joins messages."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from statemgr.cancelling import cancellation_kept

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from redis.asyncio.client import PubSub

    from statemgr.redis_store.connect import RedisClients

_CHECK_S = 5.0  # silence after which the connection is asked whether it lives
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0


async def listen(
    clients: RedisClients, channel: bytes, *, timeout_s: float
) -> AsyncGenerator[frozenset[bytes] | None, None]:
    """Yield the messages published since the last yield, each once; None after each subscribing: any may have been."""
    pause_s = _FIRST_PAUSE_S
    while True:
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            async with contextlib.aclosing(clients.listener()) as client, client.pubsub() as pubsub:
                with cancellation_kept():  # looking up a primary, redis-py may lose one
                    async with asyncio.timeout(timeout_s):
                        await pubsub.subscribe(channel)
                        while (await pubsub.get_message(timeout=timeout_s) or {}).get("type") != "subscribe":
                            pass
                pause_s = _FIRST_PAUSE_S
                yield None
                while True:
                    told = {await _message(pubsub, timeout_s)}
                    while (message := await _next(pubsub, 0, timeout_s)) is not None:
                        if message["type"] == "message":
                            told.add(message["data"])
                    yield frozenset(told)
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads the nodes' attempts
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


async def _message(pubsub: PubSub, timeout_s: float) -> bytes:
    """Wait for a message and return its content. Raises when the connection is lost, or silent even when asked."""
    while True:
        message = await _next(pubsub, _CHECK_S, timeout_s)
        if message is None:
            await pubsub.ping()
            message = await _next(pubsub, timeout_s, timeout_s)
            if message is None:
                raise TimeoutError("the subscription does not answer")
        if message["type"] == "message":
            content: bytes = message["data"]
            return content


async def _next(pubsub: PubSub, wait_s: float, timeout_s: float) -> dict[str, Any] | None:
    async with asyncio.timeout(wait_s + timeout_s):  # redis-py's own limit covers the first byte only
        message: dict[str, Any] | None = await pubsub.get_message(timeout=wait_s)
    return message
