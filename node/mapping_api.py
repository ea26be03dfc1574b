"""What the HTTP surface says about one mapping, and does for it: our own paths under `/esmd/v1/mappings/`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from aiohttp import web

from model.errors import ConflictError, EsmdError, NotFoundError, RefusedError, UnavailableError
from node.admission import asked_of
from node.guard import refusal
from node.lambda_api import caller
from node.redrive import RedriveRequest
from node.replay import ReplayRequest
from node.seek import SeekRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from controlplane.explain import Explanation
    from node.redrive import Redrives, RunningRedrive
    from node.replay import Replays
    from node.seek import Seeks

log = structlog.get_logger(__name__)

_LIMIT_S = 10.0
_HEARTBEAT_S = 1.0


class MappingApi:
    """The handlers. `explain` reads the store, given a mapping's name or id."""

    def __init__(
        self,
        *,
        explain: Callable[[str], Awaitable[Explanation]],
        redrives: Redrives,
        replays: Replays,
        seeks: Seeks,
    ) -> None:
        self._explain = explain
        self._redrives = redrives
        self._replays = replays
        self._seeks = seeks

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes, for `node.serve.Surface`."""
        return [
            web.get("/esmd/v1/mappings/{mapping}/explain", self._get_explanation),
            web.post("/esmd/v1/mappings/{mapping}/redrive", self._redrive),
            web.post("/esmd/v1/mappings/{mapping}/replay", self._replay),
            web.post("/esmd/v1/mappings/{mapping}/seek", self._seek),
        ]

    async def _get_explanation(self, request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(_LIMIT_S):
                explanation = await self._explain(request.match_info["mapping"])
        except NotFoundError as error:
            return refusal(404, str(error))
        except TimeoutError:
            return refusal(503, f"the store did not answer within {_LIMIT_S:g} s")
        return web.Response(body=msgspec.json.encode(explanation), content_type="application/json")

    async def _seek(self, request: web.Request) -> web.Response:
        """Move a mapping's position; the answer comes when that is done, or the wish for it stands (202)."""
        try:
            asked = await asked_of(request, SeekRequest, "seek")
            answer = await self._seeks.seek(request.match_info["mapping"], asked, by=caller(request))
        except EsmdError as error:
            return refusal(_status(error), str(error))
        stands = not answer.done and not answer.dry_run
        return web.Response(
            body=msgspec.json.encode(answer), content_type="application/json", status=202 if stands else 200
        )

    async def _redrive(self, request: web.Request) -> web.StreamResponse:
        """Redrive while the client listens."""
        try:
            asked = await asked_of(request, RedriveRequest, "redrive", nothing=b"{}")
        except RefusedError as error:
            return refusal(400, str(error))
        return await _listened(request, lambda mapping: self._redrives.prepare(mapping, asked))

    async def _replay(self, request: web.Request) -> web.StreamResponse:
        """Replay while the client listens."""
        try:
            asked = await asked_of(request, ReplayRequest, "replay")
        except RefusedError as error:
            return refusal(400, str(error))
        return await _listened(request, lambda mapping: self._replays.prepare(mapping, asked))


async def _listened(request: web.Request, prepare: Callable[[str], RunningRedrive]) -> web.StreamResponse:
    """Do it while the client listens: each line of the answer is a document, the last one an end or an error."""
    lines = _Lines(request)
    try:
        running = prepare(request.match_info["mapping"])
        lines.stop = running.stop
        await _with_heartbeat(running, lines)
    except EsmdError as error:
        if not lines.begun:
            return refusal(_status(error), str(error))
        await lines.say({"event": "error", "message": str(error), "unreachable": _status(error) == _AWAY})
    except Exception:  # a supervision point: the answer has begun, so that the middleware cannot say it any more
        if not lines.begun:
            raise
        log.exception("mapping.job_failed", mapping=request.match_info["mapping"])
        await lines.say({"event": "error", "message": "internal error; the node's log has it", "unreachable": False})
    return lines.response


_AWAY = 503


def _status(error: EsmdError) -> int:
    match error:
        case NotFoundError():
            return 404
        case ConflictError():
            return 409
        case UnavailableError():
            return _AWAY
        case _:
            return 400


async def _with_heartbeat(running: RunningRedrive, lines: _Lines) -> None:
    """Run a redrive; look now and then whether the client is still there."""
    failure: EsmdError | None = None
    async with asyncio.TaskGroup() as tasks:
        beating = tasks.create_task(lines.beat(), name="heartbeat of a redrive")
        try:
            await running.run(lines.say)
        except EsmdError as error:
            failure = error  # raised bare, not in the group's
        beating.cancel()
    if failure is not None:
        raise failure


class _Lines:
    """An answer of JSON lines, begun with the first of them. A client that is gone stops the redrive."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._writing = asyncio.Lock()
        self.response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        self.begun = False
        self.stop: asyncio.Event | None = None
        self._gone = False

    async def say(self, document: dict[str, Any]) -> None:
        """Send a line, if there is still somebody to read it."""
        async with self._writing:
            if self._gone:
                return
            try:
                if not self.begun:
                    self.begun = True
                    await self.response.prepare(self._request)
                await self.response.write(msgspec.json.encode(document) + b"\n")
            except ConnectionError:
                self._gone = True
                if self.stop is not None:
                    self.stop.set()

    async def beat(self) -> None:
        """Send a line every second, until cancelled, so that both sides notice when the other one is gone."""
        while True:
            await asyncio.sleep(_HEARTBEAT_S)
            if self.begun:
                await self.say({"event": "alive"})
