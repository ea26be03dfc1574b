"""A node against its own OpenAPI document: schemathesis asks everything that it allows and forbids.

No answer is a defect's, none takes for ever, and each is of a kind that the document tells. `ESMD_API_EXAMPLES=100`
asks for longer, and each time something else.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from model.mapping_rules import mapping_id
from node.openapi.document import document
from tests.support.api_fuzzing import EXAMPLES, Fuzzed, fuzz
from tests.support.node_process import NodeProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CODE = 'def handler(event, context):\n    return {"event": event}\n'
ADMIN, READER = "t-admin", "t-reader"
ARN = "arn:aws:lambda:us-east-1:000000000000"
NIGHTLY = mapping_id("nightly")
KNOWN = (
    "function=local",
    "function=billing",
    "function=hello",  # the document's example of one that the API makes
    "mapping=nightly",
    f"uuid={NIGHTLY}",
    f"arn={ARN}:function:local",
    f"arn={ARN}:event-source-mapping:{NIGHTLY}",
)
GUARDED: dict[str, Any] = {"auth": {"tokens": [ADMIN], "read_only_tokens": [READER], "failed_logins": 0}}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600 + EXAMPLES * 60)]


@asynccontextmanager
async def node(folder: Path, redis_url: str, **more: Any) -> AsyncIterator[NodeProcess]:
    """Run a node with functions, a mapping, and AWS's sources; it must not be hurt by anything."""
    code = folder / "code"
    code.mkdir()
    (code / "app.py").write_text(CODE)
    function = {"handler": "app.handler", "code": str(code), "timeout": 10, "http": True}
    limits = {"reads": 0, "changes": 0}
    plane = {"rate_limits": limits, **more.pop("control_plane", {})}
    text = {
        "redis": {"url": redis_url},
        "functions": {"local": function, "billing": function},
        "embedded": {"aws": {}},
        "event_source_mappings": [{"Name": "nightly", "schedule": "cron(0 3 * * ? *)", "FunctionName": "local"}],
        "control_plane": plane,
        **more,
    }
    async with NodeProcess(folder, text) as it:
        await it.start()
        yield it
        assert (await it.get("/healthz"))[0] == 200
        assert [line for line in it.log() if line["level"] == "error"] == []
        assert it.find("api.changed", status=500) == []
        assert await it.stop() == 0


def changes(it: NodeProcess) -> Counter[int | None]:
    """Return how requests that may change something were answered."""
    return Counter(line["status"] for line in it.find("api.changed"))


def operations_asked(came: Fuzzed) -> int:
    """Return how many operations were asked."""
    (line,) = [line for line in came.report.splitlines() if line.strip().startswith("Tested:")]
    return int(line.rpartition(":")[2])


async def test_an_administrator_asks_everything(tmp_path: Path, redis_url: str) -> None:
    """With API functions: what is made, changed, called and deleted is as the document of the node says, all of it."""
    async with node(tmp_path, redis_url, control_plane={"create_functions": True}, **GUARDED) as it:
        _, text = await it.get("/esmd/v1/openapi.json", {"Authorization": f"Bearer {ADMIN}"})
        assert json.loads(text) == json.loads(json.dumps(document()))
        assert it.find("openapi.undescribed") == []
        came = await fuzz(it, tmp_path, token=ADMIN, known=KNOWN)
        assert came.passed, came.report
        assert operations_asked(came) >= sum(len(methods) for methods in document()["paths"].values()) - 2
        answered = changes(it)
        assert answered[202] + answered[200] + answered[201] + answered[204] > 50, answered
        assert answered[400] > 500, answered
        assert it.find("function.changed", function="hello", part="definition")


async def test_a_reader_changes_nothing(tmp_path: Path, redis_url: str) -> None:
    """Whatever he sends: he is refused, or told what there is."""
    async with node(tmp_path, redis_url, **GUARDED) as it:
        came = await fuzz(
            it,
            tmp_path,
            token=READER,
            known=KNOWN,
            phases="examples,fuzzing",
            unfit=["unsupported_method"],  # he is refused before it is looked whether there is such a method
        )
        assert came.passed, came.report
        assert [line for line in it.find("mapping.changed") if line["by"].startswith("api")] == []
        assert set(changes(it)) <= {403, 404, 405, 413, 415}, changes(it)


async def test_programs_of_the_machine_need_no_credentials(tmp_path: Path, redis_url: str) -> None:
    """Without `auth`, and without API functions: what is not available is refused as the document says."""
    async with node(tmp_path, redis_url) as it:
        _, text = await it.get("/esmd/v1/openapi.json")
        assert "securitySchemes" not in json.loads(text)["components"]
        came = await fuzz(it, tmp_path, known=KNOWN, phases="examples,fuzzing,stateful")
        assert came.passed, came.report
