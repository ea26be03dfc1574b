"""The operations of the Lambda API on functions: concurrency, settings of asynchronous invocation (spec section 6.3).

Functions themselves are made by files: only those that the asked node's files list are there. What is said of them is
in the store, part by part, so an API and a file, or two APIs, that change different parts do not meet. Left to others:
HTTP (`node.lambda_functions_api`), and what only a node knows (`FunctionSurroundings`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from controlplane.function_parts import put_decided
from controlplane.lambda_errors import invalid, refused
from model.concurrency import LEAST_UNRESERVED, unreserved
from model.definition_rules import MAX_ALL_CODE_BYTES, MAX_ARCHIVE_BYTES, MAX_CODE_BYTES
from model.errors import ConflictError
from model.function_config import FunctionPart
from model.function_definition import code_sizes
from model.function_rules import (
    CONCURRENCY,
    EVENT_INVOKE,
    destinations,
    document_of,
    event_invoke_problem,
)
from model.rules.checking import INVALID, Checker
from model.rules.parameters import FUNCTION, PARAMETERS
from model.rules.shapes import Integer
from model.rules.wording import AwsVoice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from model.function_config import FunctionTable, StoredPart
    from statemgr.stores import FunctionConfigs

_LATEST = "$LATEST"
_RESERVED = "ReservedConcurrentExecutions"
_MOST_ITEMS = 50
_NUMBER = re.compile(r"-?[0-9]{1,9}")
_UNQUALIFIED_ONLY = (
    "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. "
    "Please specify either a function name or an unqualified function ARN."
)


class FunctionSurroundings(Protocol):
    """What only the node that is asked can tell."""

    @property
    def account_concurrency(self) -> int:
        """Invocations of all functions at one time."""

    @property
    def function_count(self) -> int:
        """How many functions the node's files list."""

    def listed_name(self, function_name: str) -> str | None:
        """Return the name of the listed function that a FunctionName means; None if it means none."""

    def function_arn(self, function_name: str) -> str:
        """Return the ARN by which a function is named in documents."""

    def is_known(self, function_name: str) -> bool:
        """Whether a function can be invoked from here, listed or not."""


class LambdaFunctions:
    """The operations. Each raises `ApiError`, and `StoreUnavailableError`. `by` names the caller for the audit log."""

    def __init__(self, store: FunctionConfigs, around: FunctionSurroundings) -> None:
        self._store = store
        self._around = around

    # Concurrency

    async def put_concurrency(self, function_name: str, wish: Mapping[str, Any], *, by: str) -> dict[str, Any]:
        """Reserve concurrency for a function, which must leave some for the others; 0 stops it."""
        name = self._unqualified(function_name)
        checker = Checker(AwsVoice())
        checker.unknown_keys(wish, {_RESERVED: None, "FunctionName": None}, ())
        if _RESERVED not in wish:
            checker.report((_RESERVED,), AwsVoice().missing((_RESERVED,)))
        else:
            checker.check(CONCURRENCY, wish[_RESERVED], (_RESERVED,))
        if checker.problems:
            raise invalid(checker.problems)
        number = int(wish[_RESERVED])

        def decide(table: FunctionTable) -> bytes:
            others = sum(reserved for other, reserved in table.reserved().items() if other != name)
            if self._around.account_concurrency - others - number < LEAST_UNRESERVED:
                raise refused(
                    "InvalidParameterValueException",
                    f"Specified {_RESERVED} for function decreases account's UnreservedConcurrentExecution below its "
                    f"minimum value of [{LEAST_UNRESERVED}].",
                )
            return document_of(number)

        await self._change(name, FunctionPart.CONCURRENCY, decide, by=by)
        return {_RESERVED: number}

    async def get_concurrency(self, function_name: str) -> dict[str, Any]:
        """Return what is reserved for a function: nothing, if nothing is."""
        name = self._unqualified(function_name)
        document = (await self._store.functions()).document(name, FunctionPart.CONCURRENCY)
        return {} if document is None else {_RESERVED: msgspec.json.decode(document, type=int)}

    async def delete_concurrency(self, function_name: str, *, by: str) -> None:
        """Have a function take of what is not reserved."""
        name = self._unqualified(function_name)
        if (await self._store.functions()).document(name, FunctionPart.CONCURRENCY) is not None:
            await self._change(name, FunctionPart.CONCURRENCY, lambda _: None, by=by)

    async def account_settings(self) -> dict[str, Any]:
        """Return the limits of the account, and what is used. The code of files' functions is nobody's concern."""
        account = self._around.account_concurrency
        table = await self._store.functions()
        reserved = sum(table.reserved().values())
        return {
            "AccountLimit": {
                "TotalCodeSize": MAX_ALL_CODE_BYTES,
                "CodeSizeUnzipped": MAX_CODE_BYTES,
                "CodeSizeZipped": MAX_ARCHIVE_BYTES,
                "ConcurrentExecutions": account,
                "UnreservedConcurrentExecutions": unreserved(account, reserved),
            },
            "AccountUsage": {
                "TotalCodeSize": sum(code_sizes(table).values()),
                "FunctionCount": self._around.function_count,
            },
        }

    # Asynchronous invocation

    async def put_event_invoke(
        self, function_name: str, qualifier: str | None, wish: Mapping[str, Any], *, by: str
    ) -> dict[str, Any]:
        """Replace the settings of a function; return them."""
        name = self._latest(function_name, qualifier)
        given = self._checked(name, wish)
        stored = await self._change(name, FunctionPart.EVENT_INVOKE, lambda _: document_of(given), by=by)
        return self._event_invoke(name, stored)

    async def update_event_invoke(
        self, function_name: str, qualifier: str | None, wish: Mapping[str, Any], *, by: str
    ) -> dict[str, Any]:
        """Change what the wish names; return the settings."""
        name = self._latest(function_name, qualifier)
        given = self._checked(name, wish)

        def decide(table: FunctionTable) -> bytes:
            present = table.document(name, FunctionPart.EVENT_INVOKE)
            if present is None:
                raise self._no_settings(name)
            return document_of({**msgspec.json.decode(present), **given})

        return self._event_invoke(name, await self._change(name, FunctionPart.EVENT_INVOKE, decide, by=by))

    async def get_event_invoke(self, function_name: str, qualifier: str | None) -> dict[str, Any]:
        """Return the settings of a function that has any."""
        name = self._latest(function_name, qualifier)
        return self._event_invoke(name, self._present(await self._store.functions(), name))

    async def delete_event_invoke(self, function_name: str, qualifier: str | None, *, by: str) -> None:
        """Have the defaults hold for a function that has settings."""
        name = self._latest(function_name, qualifier)

        def decide(table: FunctionTable) -> None:
            self._present(table, name)

        await self._change(name, FunctionPart.EVENT_INVOKE, decide, by=by)

    async def list_event_invoke(self, function_name: str, most: str | None) -> dict[str, Any]:
        """Return the settings of a function's versions: of `$LATEST`, the only one there is, if it has any."""
        name = self._latest(function_name, None)
        checker = Checker(AwsVoice())
        if most:
            number = int(most) if _NUMBER.fullmatch(most) else most
            checker.check(Integer(1, _MOST_ITEMS), number, ("MaxItems",))
        if checker.problems:
            raise invalid(checker.problems)
        stored = (await self._store.functions()).functions.get(name, {}).get(FunctionPart.EVENT_INVOKE)
        found = [] if stored is None or stored.document is None else [self._event_invoke(name, stored)]
        return {"FunctionEventInvokeConfigs": found}

    def _checked(self, name: str, wish: Mapping[str, Any]) -> dict[str, Any]:
        members = {key: value for key, value in wish.items() if key not in ("FunctionName", "Qualifier")}
        checker = Checker(AwsVoice())
        given: Any = checker.table(EVENT_INVOKE, members, ())
        if checker.problems:
            raise invalid(checker.problems)
        problem = event_invoke_problem(given, function=name, exists=self._around.is_known)
        if problem is not None:
            raise refused("InvalidParameterValueException", problem)
        return dict(given)

    def _present(self, table: FunctionTable, name: str) -> StoredPart:
        stored = table.functions.get(name, {}).get(FunctionPart.EVENT_INVOKE)
        if stored is None or stored.document is None:
            raise self._no_settings(name)
        return stored

    def _no_settings(self, name: str) -> Exception:
        why = f"The function {self._latest_arn(name)} doesn't have an EventInvokeConfig"
        return refused("ResourceNotFoundException", why)

    def _event_invoke(self, name: str, stored: StoredPart) -> dict[str, Any]:
        said: dict[str, Any] = msgspec.json.decode(stored.document or b"{}")
        ends = {side: {"Destination": end} if end else {} for side, end in destinations(said).items()}
        about = {"LastModified": round(stored.modified_time, 3), "FunctionArn": self._latest_arn(name)}
        return {**about, **said, "DestinationConfig": ends}

    # Functions

    async def _change(
        self, name: str, part: FunctionPart, decide: Callable[[FunctionTable], bytes | None], *, by: str
    ) -> StoredPart:
        """Put what is decided on the present table, and on no other."""
        try:
            return await put_decided(self._store, name, part, decide, by=by)
        except ConflictError as exc:
            raise refused("ResourceConflictException", str(exc)) from exc

    def _unqualified(self, function_name: str) -> str:
        """Return the listed function's name. Raises `ApiError` for none, and for a version of one."""
        if self._parts(function_name)[1] is not None:
            raise refused("InvalidParameterValueException", _UNQUALIFIED_ONLY)
        name = self._around.listed_name(function_name)
        if name is None:
            why = f"Function not found: {self._around.function_arn(function_name)}"
            raise refused("ResourceNotFoundException", why)
        return name

    def _latest(self, function_name: str, qualifier: str | None) -> str:
        """Return the listed function's name. Raises `ApiError` for none, and for versions: there is only the latest."""
        _, own = self._parts(function_name)
        if own is not None and qualifier is not None and own != qualifier:
            why = "The derived qualifier from the function name does not match the specified qualifier."
            raise refused("InvalidParameterValueException", why)
        name = self._around.listed_name(function_name)
        if name is None or (own or qualifier or _LATEST) != _LATEST:
            raise refused("ResourceNotFoundException", "The function doesn't exist.")
        return name

    def _parts(self, function_name: str) -> tuple[str, str | None]:
        checker = Checker(AwsVoice())
        shape = PARAMETERS["FunctionName"].shape
        parts = FUNCTION.fullmatch(function_name)
        if checker.check(shape, function_name, ("FunctionName",)) is INVALID or parts is None:
            raise invalid(checker.problems)
        return parts["name"], parts["qualifier"]

    def _latest_arn(self, name: str) -> str:
        arn = self._around.function_arn(name)
        parts = FUNCTION.fullmatch(arn)
        return arn if parts is not None and parts["qualifier"] else f"{arn}:{_LATEST}"
