"""An aiohttp application on the loopback interface, for as long as a test wants it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def served(app: web.Application, *, port: int = 0, **options: Any) -> AsyncIterator[str]:
    """Serve on a port, a free one by default; give the URL without a path. `options` are those of `web.AppRunner`."""
    runner = web.AppRunner(app, **options)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
