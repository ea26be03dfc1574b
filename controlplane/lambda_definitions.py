"""The operations of the Lambda API that read and make functions (AWS Lambda API reference; errors: spec section 6.2).

A function that the API makes is in the store, definition and archive, so that every node has it. One that a file of the
asked node lists is that file's: it can be read here, and not changed. Left to others: HTTP
(`node.lambda_definitions_api`), and what only a node knows (`DefinitionSurroundings`).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from base64 import b64decode
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from controlplane.function_documents import LATEST, architecture, listed, made, time_text
from controlplane.function_parts import log_part_change, put_decided
from controlplane.lambda_errors import invalid, refused
from controlplane.lambda_listing import read_marker, write_marker
from invocation.settings import HandlerFunction
from model.definition_rules import (
    CREATE,
    MAX_ALL_CODE_BYTES,
    UPDATE_CODE,
    UPDATE_CONFIGURATION,
    environment_problems,
    heeded,
)
from model.errors import ConflictError, RefusedError
from model.function_config import FunctionPart
from model.function_definition import FunctionDefinition, code_sizes, definition_of, definitions, shown_digest
from model.rules.checking import Checker
from model.rules.parameters import FUNCTION
from model.rules.shapes import Integer
from model.rules.wording import AwsVoice
from model.secret import REFERENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from controlplane.function_documents import Standing
    from invocation.code_facts import CodeFacts
    from invocation.settings import FunctionSettings
    from model.function_config import FunctionTable
    from model.rules.shapes import Table
    from statemgr.stores import CodeStore, FunctionConfigs

PAGE = 50
"""The most functions that one answer holds, as in AWS."""

GRACE_S = 600.0
"""How long an archive may be in the store before a definition names it: longer than a request takes."""

_MAX_ITEMS = Integer(1, 10_000)
_OFF = (
    "This node takes no code by its API. Set control_plane: {create_functions: true} in its file, on all nodes alike."
)


class DefinitionSurroundings(Protocol):
    """What only the node that is asked can tell, or do."""

    @property
    def creating(self) -> bool:
        """Whether functions may be made by the API."""

    @property
    def file_functions(self) -> Mapping[str, FunctionSettings]:
        """The functions that the node's files list."""

    def own_name(self, function_name: str) -> str | None:
        """Return the name in a FunctionName of this region and account; None: it is of another, or none at all."""

    def function_arn(self, function_name: str) -> str:
        """Return the ARN by which a function is named in documents."""

    async def facts(self, function: HandlerFunction) -> CodeFacts:
        """Return what can be said of a listed function's code."""

    async def unpack(self, name: str, archive: bytes) -> str:
        """Unpack an archive for a function; return its SHA-256. Raises `RefusedError`, OSError."""

    def problem(self, name: str, definition: FunctionDefinition) -> str | None:
        """Return why this machine cannot run a function whose code is unpacked; None: it can."""

    def standing(self, name: str, definition: FunctionDefinition) -> Standing:
        """Tell whether this node can run the function now."""

    async def refresh(self) -> None:
        """Have the node know the store's functions as they are now. Raises `StoreUnavailableError`."""


class LambdaDefinitions:
    """The operations. Each raises `ApiError`, and `StoreUnavailableError`. `by` names the caller for the audit log.

    `writer`: the caller may change functions, and so sees their environment variables.
    """

    def __init__(self, store: FunctionConfigs, code: CodeStore, around: DefinitionSurroundings) -> None:
        self._store = store
        self._code = code
        self._around = around

    # Reading

    async def get(self, function_name: str, qualifier: str | None, *, writer: bool) -> dict[str, Any]:
        """Return all there is to say of a function. Its code cannot be downloaded."""
        name, table = await self._found(function_name, qualifier)
        definition = None if name in self._around.file_functions else definition_of(table, name)
        document: dict[str, Any] = {"Configuration": await self._document(name, table, writer=writer)}
        if definition is not None and definition.tags:
            document["Tags"] = definition.tags
        reserved = table.document(name, FunctionPart.CONCURRENCY)
        if reserved is not None:
            document["Concurrency"] = {"ReservedConcurrentExecutions": msgspec.json.decode(reserved, type=int)}
        return document

    async def configuration(self, function_name: str, qualifier: str | None, *, writer: bool) -> dict[str, Any]:
        """Return a function's configuration."""
        name, table = await self._found(function_name, qualifier)
        return await self._document(name, table, writer=writer)

    async def page(self, marker: str | None, most: str | None, *, writer: bool) -> dict[str, Any]:
        """Return a page of all functions, in the order of their names."""
        wanted = _max_items(most)
        after = read_marker(marker) if marker else ""
        table = await self._store.functions()
        names = sorted(name for name in {*self._around.file_functions, *definitions(table)} if name > after)
        here = names[:wanted]
        documents = [await self._document(name, table, writer=writer) for name in here]
        more = {"NextMarker": write_marker(here[-1])} if len(names) > len(here) else {}
        return {"Functions": documents, **more}

    async def versions(self, function_name: str, *, writer: bool) -> dict[str, Any]:
        """Return a function's versions: `$LATEST`, the only one there is."""
        name, table = await self._found(function_name, None)
        return {"Versions": [await self._document(name, table, writer=writer)]}

    async def tags(self, function_name: str) -> dict[str, str]:
        """Return a function's tags: those it was made with. Functions of files have none."""
        name, table = await self._found(function_name, None)
        definition = None if name in self._around.file_functions else definition_of(table, name)
        return {} if definition is None else definition.tags

    # Making

    async def create(self, wish: Mapping[str, Any], *, by: str) -> dict[str, Any]:
        """Make a function."""
        self._check_on()
        given = self._checked(CREATE, wish)
        name = self._own_name(given["FunctionName"])
        if given.get("PackageType", "Zip") != "Zip" or "Runtime" not in given or "Handler" not in given:
            raise _parameter("Only functions of PackageType Zip can be made, with Runtime and Handler.")
        self._check_absent(await self._store.functions(), name)
        archive, digest = await self._unpacked(name, given["Code"])
        definition = FunctionDefinition(
            code_sha256=shown_digest(digest),
            code_size=len(archive),
            tags=given.get("Tags", {}),
            **{**_said(given), **_stamps()},
        )
        self._check_runs(name, definition)
        await self._code.put_code(digest, archive)

        def decide(table: FunctionTable) -> bytes:
            self._check_absent(table, name)
            _check_room(table, name, definition)
            return definition.encode()

        return await self._put(name, decide, by=by)

    async def update_code(self, function_name: str, wish: Mapping[str, Any], *, by: str) -> dict[str, Any]:
        """Replace a function's code, or see whether that could be done."""
        self._check_on()
        given = self._checked(UPDATE_CODE, wish)
        name, table = await self._changeable(function_name)
        _check_revision(self._present(table, name), given)
        archive, digest = await self._unpacked(name, given)
        code = {"code_sha256": shown_digest(digest), "code_size": len(archive)}
        after = msgspec.structs.replace(self._present(table, name), **code)
        self._check_runs(name, after)
        _check_room(table, name, after)
        if given.get("DryRun"):
            return made(name, self._arn(name), after, self._around.standing(name, after), show_variables=True)
        await self._code.put_code(digest, archive)
        return await self._put(name, lambda table: self._changed(table, name, given, code), by=by)

    async def update_configuration(self, function_name: str, wish: Mapping[str, Any], *, by: str) -> dict[str, Any]:
        """Change how a function runs: what the wish does not name stays."""
        self._check_on()
        given = self._checked(UPDATE_CONFIGURATION, wish)
        name, table = await self._changeable(function_name)
        said, present = _said(given), self._present(table, name)
        await self._around.refresh()  # the code that it is checked with may come from another node
        standing = self._around.standing(name, present)
        if not standing.ready:
            why = f"The function's code is not on this node yet. {standing.problem}".rstrip()
            raise refused("ResourceConflictException", why)
        self._check_runs(name, msgspec.structs.replace(present, **said))
        return await self._put(name, lambda table: self._changed(table, name, given, said), by=by)

    async def delete(self, function_name: str, qualifier: str | None, *, by: str) -> None:
        """Remove a function with all that was said of it. Its mappings stay, as in AWS."""
        self._check_on()
        if qualifier not in (None, LATEST):
            raise _parameter("There are no versions that could be deleted.")
        name, _ = await self._changeable(function_name)
        await self._store.forget_function(name)
        log_part_change(name, FunctionPart.DEFINITION, by=by)
        await self._around.refresh()

    async def sweep(self) -> None:
        """Drop from the store the code that no function has. For whoever follows the store: each change is one."""
        used = {definition.digest for definition in definitions(await self._store.functions()).values()}
        await self._code.keep_only(used, older_than_s=GRACE_S)

    async def _put(self, name: str, decide: Callable[[FunctionTable], bytes], *, by: str) -> dict[str, Any]:
        try:
            await put_decided(self._store, name, FunctionPart.DEFINITION, decide, by=by)
        except ConflictError as exc:
            raise refused("ResourceConflictException", str(exc)) from exc
        await self._around.refresh()
        return await self._document(name, await self._store.functions(), writer=True)

    def _changed(self, table: FunctionTable, name: str, given: Mapping[str, Any], changes: Mapping[str, Any]) -> bytes:
        present = self._present(table, name)
        _check_revision(present, given)
        after = msgspec.structs.replace(present, **changes, **_stamps())
        _check_room(table, name, after)
        return after.encode()

    async def _unpacked(self, name: str, code: Mapping[str, Any]) -> tuple[bytes, str]:
        """Return the archive of a request, unpacked on this node, and its SHA-256."""
        if "ZipFile" not in code or len(code.keys() - {"Architectures", "Publish", "RevisionId", "DryRun"}) > 1:
            raise _parameter("Code is taken as ZipFile only: not from S3, and no images.")
        try:
            archive = await asyncio.to_thread(b64decode, code["ZipFile"], validate=True)
        except ValueError as exc:
            raise _parameter("ZipFile must be base64") from exc
        try:
            return archive, await self._around.unpack(name, archive)
        except RefusedError as exc:
            raise _parameter(str(exc)) from exc
        except OSError as exc:
            why = f"The node could not keep the code: {exc.strerror or type(exc).__name__}"
            raise refused("ServiceException", why) from exc

    # Rules

    def _checked(self, shape: Table, wish: Mapping[str, Any]) -> dict[str, Any]:
        """Return a wish in normal form."""
        left, asked = heeded(wish)
        if asked:
            raise _parameter(f"{', '.join(asked)}: not available here")
        checker = Checker(AwsVoice())
        given: Any = checker.table(shape, left, ())
        if checker.problems:
            raise invalid(checker.problems)
        if given.get("Publish"):
            raise _parameter("Publish: there are no versions here; $LATEST is the only one.")
        if given.get("Architectures", [architecture()]) != [architecture()]:
            raise _parameter(f"Architectures: this node is {architecture()}, and so are its functions")
        variables = given.get("Environment", {}).get("Variables", {})
        for variable, rule in environment_problems(variables):
            checker.report(("Environment", "Variables", *(() if variable is None else (variable,))), rule)
        for variable, value in variables.items():
            if REFERENCE.search(value):  # it would be the node's secret
                checker.report(("Environment", "Variables", variable), "must not refer to a secret; files may")
        if checker.problems:
            raise invalid(checker.problems)
        return dict(given)

    def _check_on(self) -> None:
        if not self._around.creating:
            raise refused("AccessDeniedException", _OFF)

    def _check_absent(self, table: FunctionTable, name: str) -> None:
        if name in self._around.file_functions:
            raise refused("ResourceConflictException", f"Function already exist: {name}. {_of_file(name)}")
        if definition_of(table, name) is not None:
            raise refused("ResourceConflictException", f"Function already exist: {name}")

    def _check_runs(self, name: str, definition: FunctionDefinition) -> None:
        problem = self._around.problem(name, definition)
        if problem is not None:
            raise _parameter(problem)

    async def _changeable(self, function_name: str) -> tuple[str, FunctionTable]:
        """Return the name of a function that the API made, and the table it is in."""
        name, table = await self._found(function_name, None)
        if name in self._around.file_functions:
            raise refused("ResourceConflictException", _of_file(name))
        return name, table

    async def _found(self, function_name: str, qualifier: str | None) -> tuple[str, FunctionTable]:
        table = await self._store.functions()
        name = self._own_name(function_name)
        parts = FUNCTION.fullmatch(function_name)
        own = parts["qualifier"] if parts is not None else None
        known = name in self._around.file_functions or definition_of(table, name) is not None
        if not known or {own, qualifier} - {None, LATEST}:
            raise self._not_found(name, own or qualifier)
        return name, table

    def _own_name(self, function_name: str) -> str:
        name = self._around.own_name(function_name)
        if name is None:
            if FUNCTION.fullmatch(function_name) is None:
                raise _parameter("FunctionName must be a function's name or ARN")
            raise self._not_found(function_name, None)
        return name

    def _present(self, table: FunctionTable, name: str) -> FunctionDefinition:
        present = definition_of(table, name)
        if present is None:
            raise self._not_found(name, None)
        return present

    def _not_found(self, name: str, qualifier: str | None) -> Exception:
        arn = self._around.function_arn(name)
        return refused("ResourceNotFoundException", f"Function not found: {arn}{f':{qualifier}' if qualifier else ''}")

    # Documents

    async def _document(self, name: str, table: FunctionTable, *, writer: bool) -> dict[str, Any]:
        function = self._around.file_functions.get(name)
        if function is not None:
            facts = await self._around.facts(function) if isinstance(function, HandlerFunction) else None
            return listed(function, self._arn(name), facts)
        definition = self._present(table, name)
        standing = self._around.standing(name, definition)
        return made(name, self._arn(name), definition, standing, show_variables=writer)

    def _arn(self, name: str) -> str:
        return self._around.function_arn(name)


def _parameter(why: str) -> Exception:
    return refused("InvalidParameterValueException", why)


def _of_file(name: str) -> str:
    return f"Function {name} is listed in a file of this node: change it there."


def _said(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checked wish says of how a function runs, by the definition's names."""
    said = {
        field: given[name]
        for name, field in (
            ("Runtime", "runtime"),
            ("Handler", "handler"),
            ("Timeout", "timeout"),
            ("MemorySize", "memory_size"),
            ("Description", "description"),
            ("Role", "role"),
        )
        if name in given
    }
    if "Environment" in given:
        said["environment"] = given["Environment"].get("Variables", {})
    return said


def _stamps() -> dict[str, str]:
    return {"last_modified": time_text(time.time()), "revision_id": str(uuid.uuid4())}


def _check_revision(present: FunctionDefinition, given: Mapping[str, Any]) -> None:
    if given.get("RevisionId", present.revision_id) != present.revision_id:
        why = (
            "The RevisionId provided does not match the latest RevisionId. Call the GetFunction/GetAlias API to "
            "retrieve the latest RevisionId"
        )
        raise refused("PreconditionFailedException", why)


def _check_room(table: FunctionTable, name: str, definition: FunctionDefinition) -> None:
    """See that all code has room. The same archive of several functions is kept once, and counts once."""
    sizes = {**code_sizes(table, without=name), definition.digest: definition.code_size}
    if sum(sizes.values()) > MAX_ALL_CODE_BYTES:
        raise refused("CodeStorageExceededException", f"Code storage limit exceeded: {MAX_ALL_CODE_BYTES} bytes.")


def _max_items(most: str | None) -> int:
    if not most:
        return PAGE
    checker = Checker(AwsVoice())
    number: object = int(most) if most.isascii() and most.lstrip("-").isdigit() and len(most) < 10 else most  # noqa: PLR2004 digits
    checker.check(_MAX_ITEMS, number, ("MaxItems",))
    if checker.problems:
        raise invalid(checker.problems)
    return min(int(most), PAGE)
