"""The OpenAPI document over HTTP: `GET /esmd/v1/openapi.json`, of what the node that is asked serves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import structlog
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Sequence

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

PATH = "/esmd/v1/openapi.json"


class OpenApi:
    """The handler. `guarded`: callers have to prove who they are. The document is made when it is asked for first."""

    def __init__(self, *, guarded: bool) -> None:
        self._guarded = guarded
        self._making = asyncio.Lock()
        self._made: bytes | None = None

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the route, for `node.serve.Surface`."""
        return [web.get(PATH, self._get)]

    async def _get(self, request: web.Request) -> web.Response:
        async with self._making:
            if self._made is None:
                # Reading AWS's model takes longer than a node's loop may.
                self._made = await asyncio.to_thread(self._make, list(request.app.router.routes()))
        answer = web.Response(body=self._made, content_type="application/json")
        answer.enable_compression()
        return answer

    def _make(self, routes: Sequence[web.AbstractRoute]) -> bytes:
        from node.openapi.document import document, served, undescribed  # noqa: PLC0415 - not before somebody asks
        from node.openapi.lambda_model import lambda_model  # noqa: PLC0415 - same

        there = served(routes)
        if missing := undescribed(there):
            log.error("openapi.undescribed", routes=missing)
        try:
            return msgspec.json.encode(document(there, guarded=self._guarded))
        finally:
            lambda_model.cache_clear()  # some megabytes that nobody needs any more
