"""What the Lambda API says of functions: of those it made, and of those that files list. Pure.

Nothing is made up: a function behind a URL has no handler, no memory and no code that anybody here knows of.
"""

from __future__ import annotations

import math
import platform
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, assert_never

from invocation.settings import HandlerFunction, LambdaFunction, RieFunction, UrlFunction, known_timeout_s
from model.function_definition import shown_digest

if TYPE_CHECKING:
    from invocation.code_facts import CodeFacts
    from invocation.settings import FunctionSettings
    from model.function_definition import FunctionDefinition

LATEST = "$LATEST"
_HIDDEN = {
    "Error": {
        "ErrorCode": "AccessDeniedException",
        "Message": "Environment variables may be secrets; they are shown to those who may change them, of functions "
        "that this API made.",
    }
}


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether the node that is asked can run a function that the API made.

    `ready`: it has the present code. `runs`: it has some code of it. `problem`: why the present one cannot be had.
    """

    ready: bool
    runs: bool
    problem: str = ""


def architecture() -> str:
    """Return the architecture of this machine in AWS's words."""
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "aarch64": "arm64"}.get(machine, machine)


def time_text(epoch_s: float) -> str:
    """Return a time as AWS writes it for functions."""
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "+0000")


def made(
    name: str, arn: str, definition: FunctionDefinition, standing: Standing, *, show_variables: bool
) -> dict[str, Any]:
    """Return the configuration of a function that the API made."""
    variables = {"Variables": definition.environment} if show_variables else _HIDDEN
    return {
        **_common(name, arn),
        **_local(definition.runtime, definition.handler, definition.timeout, definition.memory_size),
        **({"Role": definition.role} if definition.role else {}),
        "Description": definition.description,
        "CodeSize": definition.code_size,
        "CodeSha256": definition.code_sha256,
        "LastModified": definition.last_modified,
        "RevisionId": definition.revision_id,
        **({"Environment": variables} if definition.environment else {}),
        **_state(standing),
    }


def listed(function: FunctionSettings, arn: str, facts: CodeFacts | None) -> dict[str, Any]:
    """Return what can be said of a function that a file lists. `facts` are those of a handler's code."""
    document = _common(function.name, arn)
    timeout_s = known_timeout_s(function)
    match function:
        case HandlerFunction():
            document |= _local(
                _runtime(function.runtime), function.handler, math.ceil(function.timeout_s), function.memory_mb
            )
            if facts is not None:
                document["CodeSize"] = facts.size
                document["LastModified"] = time_text(facts.modified_time)
                if facts.digest is not None:
                    document["CodeSha256"] = shown_digest(facts.digest)
            if function.environment:
                document["Environment"] = _HIDDEN
            return {
                **document,
                "Description": "Listed in a file of this node",
                **_state(Standing(ready=True, runs=True)),
            }
        case UrlFunction():
            where = "A function behind a URL"
        case RieFunction():
            where = "A function in containers with the Runtime Interface Emulator"
        case LambdaFunction():
            where = f"A function elsewhere: {function.function}"
        case _:
            assert_never(function)
    if timeout_s is not None:
        document["Timeout"] = math.ceil(timeout_s)
    return {**document, "Description": f"{where}, listed in a file of this node"}


def _common(name: str, arn: str) -> dict[str, Any]:
    return {"FunctionName": name, "FunctionArn": arn, "Version": LATEST}


def _local(runtime: str, handler: str, timeout_s: int, memory_mb: int) -> dict[str, Any]:
    return {
        "Runtime": runtime,
        "Handler": handler,
        "Timeout": timeout_s,
        "MemorySize": memory_mb,
        "PackageType": "Zip",
        "Architectures": [architecture()],
        "EphemeralStorage": {"Size": 512},
        "TracingConfig": {"Mode": "PassThrough"},
    }


def _state(standing: Standing) -> dict[str, str]:
    if standing.ready:
        return {"State": "Active", "LastUpdateStatus": "Successful"}
    update = "Failed" if standing.problem else "InProgress"
    if standing.runs:
        why = {"LastUpdateStatusReason": standing.problem} if standing.problem else {}
        return {"State": "Active", "LastUpdateStatus": update, **why}
    why = {"StateReason": standing.problem} if standing.problem else {"StateReason": "The function is being created."}
    return {"State": "Failed" if standing.problem else "Pending", "LastUpdateStatus": update, **why}


def _runtime(configured: str) -> str:
    """Return AWS's name of a runtime where it is known which one that is: the node's own interpreter."""
    return f"python{sys.version_info.major}.{sys.version_info.minor}" if configured == "python3" else configured
