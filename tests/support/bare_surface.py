"""What a node shows over HTTP, with nothing behind it but the routes that a test is about."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from node.health import Readiness
from node.options import ListenAddress
from node.serve import Surface, application, serving
from node.telemetry import Exposition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from aiohttp import web


async def unasked(*_: Any) -> Any:
    """Stand for what no request of the test should ask for."""
    raise NotImplementedError


def bare_surface(routes: Sequence[web.AbstractRouteDef] = (), **more: Any) -> Surface:
    """Return a surface with these routes, of a node that is ready; `more` are further fields of `Surface`."""
    fields: dict[str, Any] = {
        "alive": lambda: True,
        "ready": Readiness,
        "metrics": lambda _accept: Exposition("text/plain", b""),
        "status": unasked,
        **more,
    }
    return Surface(routes=routes, **fields)


@asynccontextmanager
async def bare_node(routes: Sequence[web.AbstractRouteDef], **more: Any) -> AsyncIterator[ListenAddress]:
    """Serve such a surface on a free port of this machine; yield its address."""
    async with serving(application(bare_surface(routes, **more)), ListenAddress("127.0.0.1", 0)) as address:
        yield address
