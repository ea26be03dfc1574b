"""The page of errors: exceptions and statuses asked of the code, answers of the API found in its source."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from controlplane.lambda_errors import refused, unavailable
from docs.making.words import code, grid, head
from invocation.function_errors import (
    RESPONSE_TOO_LARGE,
    TRUNCATED_RESPONSE,
    Exited,
    NotStarted,
    OutOfMemory,
    TimedOut,
    Unstartable,
    explain,
)
from invocation.invoking import TOO_MANY
from model import errors
from node.exits import ending_for
from node.guard import status_of
from node.openapi.operation import ANY
from node.openapi.own_operations import operations

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from invocation.function_errors import Ended

ROOT = Path(__file__).parents[2]
PACKAGES = ("model", "controlplane", "invocation", "node")

_ELLIPSES = re.compile("…(?:[ :]*…)+")
_OK = 200
_REQUEST = "1c0f…"
_ENDINGS = (
    ("It took longer than its `timeout`", TimedOut(30)),
    ("It used more memory than it has", OutOfMemory()),
    ("Its runtime ended, with status 1", Exited(1)),
    ("Its runtime was killed", Exited(-9)),
    ("Its command cannot be run", NotStarted(Unstartable.COMMAND, "no bootstrap in the code's folder")),
    ("Its folder is not there", NotStarted(Unstartable.FOLDER, "no such folder: …")),
    ("No sandbox could be made", NotStarted(Unstartable.SANDBOX, "…")),
)

_INTRODUCTION = """
Where an error shows: as the exit status of a command, as an answer over HTTP, as a function's error, or as the last
result of a mapping. What the *faults* behind them look like, and what a fleet does about them, is in
[Operations](../operations.md#faults). The last results of mappings are
[AWS's sentences](../specification.md#74-result-texts).
"""

_OF_THE_API = """
Answers of the [Lambda API](../control-plane.md#the-lambda-api) and of the [Invoke
API](../functions.md#invoking-them), in AWS's types. `…` stands for what a request brought. Problems of parameters
come as one `InvalidParameterValueException` or `ValidationException` with all sentences. 429 and 5xx are worth
another try, and AWS's clients do that by themselves.
"""

_OF_FUNCTIONS = """
What a caller gets as `{"errorType": …, "errorMessage": …}` with the header `X-Amz-Function-Error`, and a mapping as
`last_error`, when a function that a node runs did not answer by itself. Errors that the function's own code raises
have the type its runtime gives them. All count against `MaximumRetryAttempts`.
"""

_OF_NODES = """
Answers of esmd's own paths, `/esmd/v1/…`: a document `{"message": …}`, and these statuses. Commands make an exit
status of them.
"""


class Found(NamedTuple):
    """An error of the API in the source: its type, its status, and the message as far as it is written down."""

    type: str
    status: int
    message: str


def page() -> str:
    """Return the page."""
    exceptions = [(code(name), about, str(status)) for name, about, status in _exceptions()]
    away = unavailable("")
    answers = sorted(
        {one for path in _sources() for one in found(ast.parse(path.read_text()))}
        | {Found(away.type, away.status, "… (Redis is away)")}
    )
    rows = []
    for at, answer in enumerate(answers):
        same = at > 0 and answers[at - 1][:2] == answer[:2]
        rows.append(("" if same else code(answer.type), "" if same else str(answer.status), answer.message))
    functions = [(when, code(ended.error_type), ended.message) for when, ended in _endings()]
    functions += [("Its response is over 6 MB", *_coded(RESPONSE_TOO_LARGE))]
    functions += [("Its response broke off", *_coded(TRUNCATED_RESPONSE))]
    return "".join(
        (
            head(__name__, "Errors"),
            _INTRODUCTION,
            "\n## Exceptions and exit statuses\n\n",
            "In the log and in code. A command that fails with one ends with this status; bad usage ends with 2.\n\n",
            grid(("Exception", "Meaning", "Exit status"), exceptions),
            "\n## Answers of the API\n",
            _OF_THE_API,
            "\n",
            grid(("Type", "Status", "Message"), rows),
            "\n## Answers of esmd's own paths\n",
            _OF_NODES,
            "\n",
            grid(("Status", "Means"), _node_statuses()),
            "\n## Errors of functions\n",
            _OF_FUNCTIONS,
            "\n",
            grid(("What happened", "`errorType`", "`errorMessage`"), functions),
        )
    )


def _node_statuses() -> list[tuple[str, str]]:
    """Return what `/esmd/v1` answers with besides 200, as the OpenAPI document has it."""
    found: dict[int, dict[str, None]] = {}
    for operation in operations():
        if operation.path.startswith("/esmd/v1/"):
            for status, told in operation.answers.items():
                found.setdefault(status, {})[told.about] = None
    return [(str(status), "; ".join(abouts)) for status, abouts in sorted(found.items()) if status not in {ANY, _OK}]


def _exceptions() -> Iterator[tuple[str, str, int]]:
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.EsmdError):
            about = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
            plain = kind.__new__(kind)
            yield name, about, int(ending_for(plain).status)


def _endings() -> Iterator[tuple[str, Ended]]:
    for when, ending in _ENDINGS:
        yield when, explain(ending, _REQUEST)


def _coded(error: tuple[str, str]) -> tuple[str, str]:
    return code(error[0]), error[1]


def _sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def found(tree: ast.Module) -> Iterator[Found]:
    """Return the errors that a module makes with a type that is written there."""
    shared = _texts(tree.body)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for place in (*functions, *(node for node in tree.body if isinstance(node, ast.Assign))):
        texts = {**shared, **_texts(ast.walk(place))}
        for call in ast.walk(place):
            if isinstance(call, ast.Call) and (error := _error(call, texts)) is not None:
                yield error


def _error(call: ast.Call, texts: Mapping[str, ast.expr]) -> Found | None:
    """Return the error that a call makes; None for any other call, or where its type is not written down."""
    match call:
        case ast.Call(func=ast.Name(id="refused"), args=[ast.Constant(value=kind), message, *_]):
            made = refused(str(kind), "")
            return Found(made.type, made.status, _message(message, texts))
        case ast.Call(func=ast.Name(id="Refusal"), args=[ast.Constant(value=kind), message]):
            return Found(str(kind), status_of(str(kind)), _message(message, texts))
        case ast.Call(func=ast.Name(id="NotInvoked"), args=[ast.Constant(value=status), kind, message, *_]):
            named = str(kind.value) if isinstance(kind, ast.Constant) else TOO_MANY
            return Found(named, int(str(status)), _message(message, texts))
        case _:
            return None


def _texts(nodes: Iterable[ast.AST]) -> dict[str, ast.expr]:
    """Return what is assigned to names."""
    return {
        target.id: node.value
        for node in nodes
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _message(node: ast.expr, texts: Mapping[str, ast.expr]) -> str:
    """Return a message as far as the source has it; what is put in is `…`."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            words = (str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts)
            return _ELLIPSES.sub("…", "".join(words))
        case ast.Name(id=name) if name in texts and not isinstance(texts[name], ast.Name):
            return _message(texts[name], texts)
        case _:
            return "…"
