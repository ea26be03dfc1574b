"""One node's side of functions on a store in memory, served over HTTP to AWS's own client; no sandbox is started."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from config.settings import ControlPlaneSettings, Settings
from node.function_side import FunctionSide
from node.lambda_definitions_api import upload_room
from statemgr.memory_store import MemoryStore
from tests.support.archives import handler
from tests.support.bare_surface import bare_node
from tests.support.lambda_client import lambda_calls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from invocation.settings import FunctionSettings
    from node.guard import Credentials

RUNTIME = f"python3.{sys.version_info.minor}"
ARN = "arn:aws:lambda:us-east-1:000000000000:function:"


def made(name: str = "up", code: Any = None, **more: Any) -> dict[str, Any]:
    """Return what makes a function."""
    zipped = {"ZipFile": handler(1) if code is None else code}
    least = {"FunctionName": name, "Runtime": RUNTIME, "Handler": "app.handler", "Role": "arn:aws:iam::0:role/r"}
    return {**least, "Code": zipped, **more}


class DefinitionsRig:
    """The node's side, and a client."""

    def __init__(self, folder: Path, store: MemoryStore, functions: Mapping[str, FunctionSettings], on: bool) -> None:  # noqa: FBT001
        plane = ControlPlaneSettings(create_functions=on)
        self.store = store
        self.side = FunctionSide(Settings(data_dir=folder, functions=functions, control_plane=plane), store)
        self.folder = folder / "functions"
        self.url = ""
        self.client: Any = None

    async def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Call an operation of boto3's client, which blocks."""
        answer = await asyncio.to_thread(getattr(self.client, operation), **parameters)
        assert isinstance(answer, dict)
        answer.pop("ResponseMetadata")
        return answer

    async def refusal(self, operation: str, **parameters: Any) -> tuple[int, str, str]:
        """Return the status, type and message of a refusal."""
        with pytest.raises(ClientError) as caught:
            await self.call(operation, **parameters)
        response = caught.value.response
        return (
            response["ResponseMetadata"]["HTTPStatusCode"],
            response["Error"]["Code"],
            response["Error"]["Message"],
        )


@asynccontextmanager
async def definitions_rig(
    folder: Path,
    *,
    store: MemoryStore | None = None,
    functions: Mapping[str, FunctionSettings] | None = None,
    on: bool = True,
    credentials: Sequence[Credentials] = (),
) -> AsyncIterator[DefinitionsRig]:
    """Serve the API on a free port."""
    rig = DefinitionsRig(folder, store or MemoryStore(), functions or {}, on)
    before = [upload_room(lambda: rig.side.uploaded.creating)]
    routes = [route for api in rig.side.apis() for route in api.routes()]
    async with bare_node(routes, credentials=credentials, before=before) as address:
        rig.url = f"http://{address}"
        async with lambda_calls(rig.url) as rig.client:
            yield rig
