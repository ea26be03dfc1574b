"""Requests that carry events, let in as far as there is room: what the Invoke API and function URLs have in common."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

import msgspec
from aiohttp import ClientPayloadError, hdrs, web

from invocation.front_answers import error_answer
from invocation.invoke_request import MAX_EVENT_BYTES, too_large
from invocation.invoking import NotInvoked, out_of_service, throttled
from model.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from invocation.classify import Answer
    from invocation.frontend import Room

_Asked = TypeVar("_Asked")

BODY_LIMIT_S = 60.0
"""How long a caller may take to send a body."""


async def admitted(
    request: web.Request,
    room: Room,
    take: Callable[[bytes], Awaitable[Answer]],
    *,
    most: int = MAX_EVENT_BYTES,
    growth: float = 1.0,
    limit_s: float = BODY_LIMIT_S,
) -> Answer:
    """Read a request's body and have it taken, if there is room for it; else answer why it is not.

    `growth`: bytes of the event for each byte of the body. What `room` has no place for is throttled; once that is
    closed, everything is refused.
    """
    length = request.content_length
    if length is not None and length > most:
        return error_answer(too_large(most))
    if room.closed:
        return error_answer(out_of_service("the node is stopping"))
    size = int(body_room(request, most) * growth)
    if not room.enter(size):
        return error_answer(throttled(own_limit=False))
    try:
        body = await read_body(request, limit_s, most)
        return error_answer(body) if isinstance(body, NotInvoked) else await take(body)
    finally:
        room.leave(size)


def body_room(request: web.Request, most: int) -> int:
    """Return how large a body may be. One that the check of a signature has read already is still in memory."""
    if not request.body_exists:
        return 0
    length = request.content_length
    return most if length is None or hdrs.CONTENT_ENCODING in request.headers else length


async def body_of(request: web.Request) -> bytes:
    """Return the body of a request that holds no event, sent within `BODY_LIMIT_S`. The request keeps it.

    Raises `web.HTTPException`: too large, too slow, or broken off.
    """
    try:
        async with asyncio.timeout(BODY_LIMIT_S):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    except (ClientPayloadError, web.RequestPayloadError, ConnectionError) as exc:
        raise web.HTTPBadRequest from exc


async def asked_of(request: web.Request, type_: type[_Asked], what: str, *, nothing: bytes = b"") -> _Asked:
    """Return what the JSON of a request asks for. `nothing` stands for no body.

    Raises `RefusedError` for what is no such document, and as `body_of`.
    """
    try:
        return msgspec.json.decode(await body_of(request) or nothing, type=type_)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise RefusedError(f"not a {what}: {error}") from error


async def read_body(request: web.Request, limit_s: float, most: int = MAX_EVENT_BYTES) -> bytes | NotInvoked:
    """Return the body, of so many bytes at most, or why it is not taken."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limit_s):
            async for part in request.content.iter_any():
                size += len(part)
                if size > most:
                    return too_large(most)
                parts.append(part)
            if not parts:  # none, or read by who checked the signature
                body = await request.read()
                return body if len(body) <= most else too_large(most)
    except TimeoutError:
        why = f"the event did not come within {limit_s:g} s"
        return NotInvoked(408, "RequestTimeoutException", why)
    except (ClientPayloadError, web.RequestPayloadError, ConnectionError):
        return NotInvoked(400, "InvalidRequestContentException", "the request ended before its body did")
    return parts[0] if len(parts) == 1 else b"".join(parts)
