"""The AWS CLI as a user has it: a program of its own, installed apart from our dependencies by `make test`."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.aws_servers import CREDENTIALS
from tests.support.missing import skip_or_fail
from tests.support.servers import ServerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = Path(sys.prefix) / "awscli" / "bin"
"""Where `make test` puts it."""

_LIMIT_S = 60.0


def aws_program() -> str:
    """Return where the program is. Skips the test on a laptop without it."""
    program = shutil.which("aws", path=os.pathsep.join([str(FOLDER), os.environ.get("PATH", "")]))
    if program is None:
        skip_or_fail(ServerUnavailableError("the AWS CLI is not installed; `make test` does it"))
    return program


class AwsCliError(Exception):
    """The command failed; the message is what it printed."""


class AwsCli:
    """Runs `aws` commands against servers of this machine."""

    def __init__(self, folder: Path, endpoints: Mapping[str, str]) -> None:
        """`endpoints`: URL by service. Nothing of the user's own configuration is read."""
        self._program = aws_program()
        self._endpoints = endpoints
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON"))},
            **CREDENTIALS,
            "AWS_DEFAULT_REGION": CREDENTIALS["AWS_REGION"],
            "AWS_CONFIG_FILE": str(folder / "none"),
            "AWS_SHARED_CREDENTIALS_FILE": str(folder / "none"),
            "AWS_MAX_ATTEMPTS": "1",
        }

    async def __call__(self, service: str, *arguments: str) -> Any:
        """Run a command; return the document it prints, None for none. Raises `AwsCliError`."""
        process = await asyncio.create_subprocess_exec(
            self._program,
            service,
            *arguments,
            *("--endpoint-url", self._endpoints[service], "--output", "json"),
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(_LIMIT_S):
                out, words = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise AwsCliError(words.decode().strip())
        return json.loads(out) if out.strip() else None
