"""The functions that the API made, on this node: their code, and what they are to the node's parts.

The store has the definitions and the archives; each node that may run them keeps the code in its data folder, so a
function that is there runs also while Redis is away. A new version is used from when it is complete; until then the one
before goes on. A node whose file does not allow such functions runs none.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog
from prometheus_client.core import GaugeMetricFamily

from controlplane.function_documents import Standing
from invocation.code_facts import FolderFacts
from invocation.code_folders import UNUSED_S, CodeFolders
from invocation.sandboxes import check_function
from invocation.settings import HandlerFunction, Isolation
from model.errors import EsmdError, RefusedError, UnavailableError
from model.function_definition import FunctionDefinition, definitions
from model.rules.parameters import FUNCTION
from model.secret import SecretText

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from prometheus_client.metrics_core import Metric

    from config.settings import Settings
    from invocation.code_facts import CodeFacts
    from invocation.settings import FunctionSettings
    from statemgr.function_view import FunctionView
    from statemgr.stores import CodeStore

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_LOOK_S = UNUSED_S / 5
_AGAIN_S = 5.0


class UploadedFunctions:
    """`controlplane.lambda_definitions.DefinitionSurroundings`, and what keeps the code here as the store has it.

    `files` are the settings as the node's files say them. `changed` is called when other functions can be run: see
    `functions`. Run `run()`, with what drops from the store the code of no function.
    """

    def __init__(self, files: Callable[[], Settings], code: CodeStore, view: FunctionView) -> None:
        self._files = files
        self._code = code
        self._view = view
        self._folders = CodeFolders(files().data_dir / "functions")
        self._facts = FolderFacts()
        self._wake = asyncio.Event()
        self._one = asyncio.Lock()
        self._digests: dict[str, str] = {}  # of the versions in `functions`
        self._problems: dict[str, str] = {}
        self.functions: Mapping[str, HandlerFunction] = {}
        """Those that can be run here now; another mapping when there is a change."""
        self.changed: Callable[[], None] = lambda: None
        view.changed = self._wake.set

    async def run(self, sweep: Callable[[], Awaitable[None]]) -> None:
        """Follow the store until cancelled."""
        while True:
            wait_s = _AGAIN_S if self._problems else _LOOK_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            self._wake.clear()
            await self.follow()
            with contextlib.suppress(UnavailableError):
                await sweep()

    async def follow(self) -> None:
        """Have what the view of the store has: fetch, unpack, use; and tidy up. Raises nothing but CancelledError."""
        async with self._one:
            wanted = definitions(self._view.table) if self.creating else {}
            found: dict[str, HandlerFunction] = {}
            digests: dict[str, str] = {}
            problems: dict[str, str] = {}
            for name, definition in wanted.items():
                try:
                    await self._fetch(name, definition.digest)
                    found[name] = self._function(name, definition, definition.digest)
                    digests[name] = definition.digest
                except (EsmdError, OSError) as exc:
                    problems[name] = str(exc)
                    if name in self.functions:
                        found[name], digests[name] = self.functions[name], self._digests[name]
                        with contextlib.suppress(OSError):
                            await asyncio.to_thread(self._folders.use, name, digests[name])
                    if self._problems.get(name) != str(exc):
                        log.error("function.not_fetched", function=name, error=str(exc))  # noqa: TRY400 says what is wrong
            self._problems, self._digests = problems, digests
            if found != self.functions:
                self.functions = found
                self.changed()
            await self._tidy(wanted)

    async def _fetch(self, name: str, digest: str) -> None:
        """See that a version is here. Raises `EsmdError`, OSError."""
        if await asyncio.to_thread(self._folders.use, name, digest):
            return
        archive = await self._code.code(digest)
        if archive is None:
            raise UnavailableError("its code is not in the store")
        await asyncio.to_thread(self._folders.put, name, archive)
        log.info("function.fetched", function=name, digest=digest)

    async def _tidy(self, wanted: Mapping[str, FunctionDefinition]) -> None:
        """Give the store what it lost, and remove here what nobody uses."""
        try:
            there = await self._code.digests() if wanted else ()
            for name, definition in wanted.items():
                if definition.digest in there:
                    continue
                archive = await asyncio.to_thread(self._folders.archive, name, definition.digest)
                if archive is not None:
                    await self._code.put_code(definition.digest, archive)
                    log.warning("function.code_published_again", function=name)
            used = {(name, definition.digest) for name, definition in wanted.items()} | set(self._digests.items())
            for version in await asyncio.to_thread(self._folders.sweep, used):
                log.info("function.version_removed", version=version)
        except (UnavailableError, OSError) as exc:
            log.debug("function.not_tidied", error=str(exc))  # looked at again soon

    def _function(self, name: str, definition: FunctionDefinition, digest: str) -> HandlerFunction:
        plane = self._files().control_plane
        return HandlerFunction(
            name,
            definition.handler,
            str(self._folders.path(name, digest)),
            definition.runtime,
            float(definition.timeout),
            definition.memory_size,
            {variable: SecretText(value) for variable, value in definition.environment.items()},
            plane.isolation,
            plane.network and plane.isolation is Isolation.BUBBLEWRAP,
        )

    # `controlplane.lambda_definitions.DefinitionSurroundings`

    @property
    def creating(self) -> bool:
        """Whether functions may be made by the API, and run here."""
        return self._files().control_plane.create_functions

    @property
    def file_functions(self) -> Mapping[str, FunctionSettings]:
        """The functions that the node's files list."""
        return self._files().functions

    def own_name(self, function_name: str) -> str | None:
        """Return the name in a FunctionName of this region and account; None: it is of another, or none at all."""
        parts, aws = FUNCTION.fullmatch(function_name), self._files().aws
        if parts is None or parts["region"] not in (None, aws.region):
            return None
        return parts["name"] if (parts["account"] or parts["account_only"]) in (None, aws.account_id) else None

    def function_arn(self, function_name: str) -> str:
        """Return the ARN by which a function is named in documents."""
        return self._files().function_arn(function_name)

    async def facts(self, function: HandlerFunction) -> CodeFacts:
        """Return what can be said of a listed function's code."""
        return await asyncio.to_thread(self._facts.of, function.code)

    async def unpack(self, name: str, archive: bytes) -> str:
        """Unpack an archive for a function; return its SHA-256. Raises `RefusedError`, OSError."""
        return await asyncio.to_thread(self._folders.put, name, archive)

    def problem(self, name: str, definition: FunctionDefinition) -> str | None:
        """Return why this machine cannot run a function whose code is unpacked; None: it can."""
        try:
            check_function(self._function(name, definition, definition.digest))
        except RefusedError as exc:
            return str(exc)
        return None

    def standing(self, name: str, definition: FunctionDefinition) -> Standing:
        """Tell whether this node can run the function now."""
        if not self.creating:
            return Standing(ready=False, runs=False, problem="This node runs no functions that the API made.")
        ready = self._digests.get(name) == definition.digest
        problem = self._problems.get(name, "") or (self.problem(name, definition) or "" if ready else "")
        return Standing(ready=ready and not problem, runs=name in self.functions, problem=problem)

    async def refresh(self) -> None:
        """Have the node know the store's functions as they are now. Raises `StoreUnavailableError`."""
        await self._view.read()
        await self.follow()

    def metric(self) -> Metric:
        """Return how many functions of the API are here, and how many are not to be had."""
        functions = GaugeMetricFamily(
            "esm_api_functions", "Functions made by the API, by whether this node has their code.", labels=["state"]
        )
        functions.add_metric(["ready"], len(self.functions))
        functions.add_metric(["failed"], len(self._problems))
        return functions
