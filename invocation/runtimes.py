"""Which program runs a function, by its `runtime`. The file system is looked at; nothing is started."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from model.errors import RefusedError

if TYPE_CHECKING:
    from invocation.settings import HandlerFunction

PROVIDED = frozenset({"provided", "provided.al2", "provided.al2023"})
_NODE_CLIENT = "aws-lambda-ric"


@dataclass(frozen=True, slots=True)
class RuntimeCommand:
    """How a runtime is started. `TASK` in a word stands for the folder of the code, wherever the sandbox shows it."""

    TASK: ClassVar[str] = "{task}"

    name: str  # as in AWS_EXECUTION_ENV
    command: tuple[str, ...]
    folder: str  # LAMBDA_RUNTIME_DIR
    prefix: str | None = None  # the installation that the program is part of, when it must be shown as a whole
    packages: tuple[str, ...] = ()  # folders for PYTHONPATH


def runtime_command(function: HandlerFunction) -> RuntimeCommand:
    """Return how the function's runtime is started. Raises `RefusedError` with the reason when it cannot be."""
    code = Path(function.code)
    if not code.is_dir():
        raise RefusedError(f"function {function.name}: code: {function.code} is no folder")
    if function.runtime in PROVIDED:
        if not os.access(code / "bootstrap", os.X_OK):
            raise RefusedError(f"function {function.name}: runtime {function.runtime} needs an executable `bootstrap`")
        return RuntimeCommand("provided", (f"{RuntimeCommand.TASK}/bootstrap",), RuntimeCommand.TASK)
    if function.runtime.startswith("python"):
        return _python(function)
    if function.runtime.startswith("nodejs"):
        return _node(function, code)
    raise RefusedError(
        f"function {function.name}: runtime {function.runtime} is not run; there are python3, nodejs and provided"
    )


def _python(function: HandlerFunction) -> RuntimeCommand:
    """Run with the node's own interpreter, which AWS's runtime client is installed for."""
    own = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if function.runtime not in ("python3", own):
        raise RefusedError(f"function {function.name}: runtime {function.runtime}: this node has {own}")
    found = importlib.util.find_spec("awslambdaric")
    if found is None or found.origin is None:
        raise RefusedError(
            f"function {function.name}: runtime {function.runtime} needs AWS's runtime client: "
            "pip install 'esmd[functions]'"
        )
    packages = str(Path(found.origin).parent.parent)
    interpreter = os.path.realpath(sys.executable)
    return RuntimeCommand(
        own, (interpreter, "-m", "awslambdaric", function.handler), packages, sys.base_prefix, (packages,)
    )


def _node(function: HandlerFunction, code: Path) -> RuntimeCommand:
    """Run with the Node.js on PATH and AWS's client, from the function's own packages or installed globally."""
    node = shutil.which("node")
    if node is None:
        raise RefusedError(f"function {function.name}: runtime {function.runtime} needs Node.js on PATH")
    prefix = Path(node).resolve().parent.parent
    installed = prefix / "lib" / "node_modules"
    for modules, shown in [
        (code / "node_modules", f"{RuntimeCommand.TASK}/node_modules"),
        *[
            (path, str(path))
            for path in (installed, Path("/usr/lib/node_modules"), Path("/usr/local/lib/node_modules"))
        ],
    ]:
        package = modules / _NODE_CLIENT / "package.json"
        try:
            program = json.loads(package.read_bytes())["bin"]
        except (OSError, ValueError, KeyError):
            continue
        if isinstance(program, dict):
            program = program.get(_NODE_CLIENT)
        if isinstance(program, str):
            folder = f"{shown}/{_NODE_CLIENT}"
            command = (os.path.realpath(node), f"{folder}/{program.removeprefix('./')}", function.handler)
            return RuntimeCommand("nodejs", command, folder, str(prefix))
    raise RefusedError(
        f"function {function.name}: runtime {function.runtime} needs AWS's runtime client: "
        f"npm install {_NODE_CLIENT} in {function.code}"
    )
