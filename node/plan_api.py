"""Plan and apply over HTTP, for `esmd plan` and `esmd apply`: files' mappings, compared with and put into the store.

`POST /esmd/v1/plan` and `/esmd/v1/apply` take `{"mappings": [document, …], "prune": false, "reset": false}` and answer
with a `controlplane.differences.Differences`. What is wrong with the documents is answered with 400 and all problems.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from controlplane.differences import differences, refused_change
from controlplane.lambda_documents import local_secrets
from controlplane.mappings import ChangeKind, Desired, apply, drifted, plan
from model.errors import ConflictError, RefusedError
from model.mapping_rules import canonical_document, check_together, parse_mapping
from model.problem import InvalidConfigurationError, Problem
from node.admission import asked_of
from node.guard import refusal
from node.lambda_api import caller

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controlplane.differences import Differences
    from controlplane.lambda_mappings import Surroundings
    from controlplane.mappings import Change
    from model.mapping import EventSourceMapping, MappingRecord
    from statemgr.stores import MappingStore

_LIMIT_S = 30.0
_ELSEWHERE = "\0"  # path of mappings that are not spoken of


class PlanRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client asks for.

    `prune`: mappings that files asked for before and these do not name shall go. `reset`: what the API changed since
    shall be as the files say.
    """

    mappings: list[dict[str, Any]]
    prune: bool = False
    reset: bool = False


class PlanApi:
    """The handlers."""

    def __init__(self, store: MappingStore, around: Surroundings) -> None:
        self._store = store
        self._around = around

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes, for `node.serve.Surface`."""
        return [web.post("/esmd/v1/plan", self._plan), web.post("/esmd/v1/apply", self._apply)]

    async def _plan(self, request: web.Request) -> web.Response:
        return await self._answer(request, make=False)

    async def _apply(self, request: web.Request) -> web.Response:
        return await self._answer(request, make=True)

    async def _answer(self, request: web.Request, *, make: bool) -> web.Response:
        try:
            asked = await asked_of(request, PlanRequest, "plan")
            async with asyncio.timeout(_LIMIT_S):
                answer = await self.compare(asked, make=make, by=caller(request))
        except RefusedError as error:
            return refusal(400, str(error))
        except InvalidConfigurationError as error:
            problems = [{"path": problem.path, "rule": problem.rule} for problem in error.problems]
            return web.json_response({"message": str(error), "problems": problems}, status=400)
        except ConflictError as error:
            return refusal(409, str(error))
        except TimeoutError:
            return refusal(503, f"the store did not answer within {_LIMIT_S:g} s")
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

    async def compare(self, asked: PlanRequest, *, make: bool, by: str) -> Differences:
        """Return what is, or has been, changed. Raises `InvalidConfigurationError` and `ConflictError`."""
        parsed = _parse(asked.mappings)
        desired = [
            Desired(
                mapping.id,
                mapping.name,
                document,
                mapping.enabled,
                mapping.extensions.renamed_from,
                insist=asked.reset,
            )
            for mapping, document in parsed
        ]
        names = {mapping.name for mapping in desired}
        _, present = await self._store.mappings()
        gone = {record.name for record in present if asked.prune and record.applied and record.name not in names}
        changes = plan(present, desired, gone=gone)
        self._check(changes, parsed, present)
        if make:
            changes = await apply(self._store, desired, gone=gone, by=by)
        return differences(changes, present, names, drifted(present, desired))

    def _check(
        self,
        changes: Sequence[Change],
        parsed: Sequence[tuple[EventSourceMapping, bytes]],
        present: Sequence[MappingRecord],
    ) -> None:
        """Check what only this node and the present mappings can tell. Raises `InvalidConfigurationError`."""
        problems = []
        for mapping, _ in parsed:
            unfit = self._around.function_problem(mapping)
            if unfit is not None:
                problems.append(Problem(f"{mapping.name}.FunctionName", f"{unfit} on the node that was asked"))
        for change in changes:
            refused = refused_change(change)
            if refused is not None:
                problems.append(Problem(change.record.name, refused))
            told = local_secrets(msgspec.json.decode(change.record.document))
            before = {} if change.before is None else msgspec.json.decode(change.before.document)
            if told and told != local_secrets(before) and not self._around.trusted:
                rule = "a secret in a file or variable of the nodes can be named here only where `auth` is set"
                problems.append(Problem(f"{change.record.name}.SourceAccessConfigurations", rule))
        problems += _together(changes, present)
        if problems:
            raise InvalidConfigurationError(problems)


def _together(changes: Sequence[Change], present: Sequence[MappingRecord]) -> list[Problem]:
    """Hold what would change against each other and against what stays."""
    changed = {change.record.id for change in changes}
    staying = [record for record in present if record.id not in changed]
    coming = [change.record for change in changes if change.kind is not ChangeKind.REMOVE]
    others = [one for one in map(_as_mapping, staying) if one is not None]
    planned = [one for one in map(_as_mapping, coming) if one is not None]
    paths = [_ELSEWHERE] * len(others) + [one.name for one in planned]
    problems = check_together([*others, *planned], paths=paths)
    return [problem for problem in problems if not problem.path.startswith(_ELSEWHERE)]


def _parse(documents: Sequence[dict[str, Any]]) -> list[tuple[EventSourceMapping, bytes]]:
    """Return the mappings and their canonical documents. Raises `InvalidConfigurationError` with every problem."""
    problems: list[Problem] = []
    parsed = []
    for number, document in enumerate(documents):
        name = document.get("Name")
        try:
            mapping = parse_mapping(document, path=name if isinstance(name, str) else f"mappings[{number}]")
            parsed.append((mapping, canonical_document(document)))
        except InvalidConfigurationError as exc:
            problems += exc.problems
    problems += check_together([mapping for mapping, _ in parsed])
    if problems:
        raise InvalidConfigurationError(problems)
    return parsed


def _as_mapping(record: MappingRecord) -> EventSourceMapping | None:
    try:
        return parse_mapping(msgspec.json.decode(record.document), require_name=False)
    except InvalidConfigurationError:
        return None
