"""`esmd mappings`, `esmd plan` and `esmd apply`, on the API of a node with a store in memory."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from model.mapping import MappingState
from node.cli import run
from statemgr.memory_store import MemoryStore
from tests.support.fake_node import fake_node
from tests.support.lambda_rig import QUEUE, STREAM, LambdaRig, lambda_rig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
    from pathlib import Path

    from model.ids import ShardKey
    from model.progress import ShardProgress

ORDERS: dict[str, Any] = {"Name": "orders", "EventSourceArn": QUEUE, "FunctionName": "f"}
CLICKS: dict[str, Any] = {
    "Name": "clicks", "EventSourceArn": STREAM, "FunctionName": "f", "StartingPosition": "LATEST",
}  # fmt: skip


@pytest.fixture
async def rig() -> AsyncIterator[LambdaRig]:
    """Serve the API."""
    async with lambda_rig() as served:
        yield served


class Command:
    """Runs commands against a node, and returns status, output and errors."""

    def __init__(self, rig: LambdaRig, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self._rig = rig
        self._capsys = capsys
        self._folder = folder

    async def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Run one."""
        self._capsys.readouterr()
        status = await asyncio.to_thread(run, [*arguments, "--url", self._rig.url])
        return (status, *self._capsys.readouterr())

    def file(self, *mappings: dict[str, Any]) -> str:
        """Write a configuration file."""
        path = self._folder / "esmd.yaml"
        functions = {name: {"url": "http://127.0.0.1:9"} for name in ("f", "g", "h")}
        path.write_text(json.dumps({"functions": functions, "event_source_mappings": list(mappings)}, indent=1))
        return str(path)


@pytest.fixture
def command(rig: LambdaRig, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Command]:
    """Return what runs commands; the node's log does not mix with what they print."""
    with capture_logs():
        yield Command(rig, capsys, tmp_path)


async def names_and_states(rig: LambdaRig) -> dict[str, str]:
    """Return what the store has."""
    return {record.name: str(record.state) for record in (await rig.store.mappings())[1]}


async def test_what_is_applied_is_listed_and_operated(rig: LambdaRig, command: Command) -> None:
    """Add by file, list, disable, enable and delete by name."""
    assert (await command("apply", command.file(ORDERS)))[0] == 0
    (record,) = (await rig.store.mappings())[1]
    await rig.settle(record.id)
    status, out, _ = await command("mappings", "list")
    assert status == 0
    assert all(word in out for word in ("orders", "Enabled", QUEUE, record.id))
    status, out, _ = await command("mappings", "list", "--json")
    assert [one["UUID"] for one in json.loads(out)["EventSourceMappings"]] == [record.id]
    assert json.loads((await command("mappings", "get", "orders", "--json"))[1])["State"] == "Enabled"
    assert "BatchSize" in (await command("mappings", "get", record.id))[1]
    assert (await command("mappings", "disable", "orders"))[:2] == (0, "orders  Disabling\n")
    await rig.settle(record.id, MappingState.DISABLED)
    assert (await command("mappings", "enable", record.id))[:2] == (0, "orders  Enabling\n")
    await rig.settle(record.id)
    assert (await command("mappings", "delete", "orders"))[:2] == (0, "orders  Deleting\n")


class WatchedStore(MemoryStore):
    """Tells when somebody asks how a mapping fares: whoever does finds it on its way."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()

    async def load(self, keys: Sequence[ShardKey]) -> Mapping[ShardKey, ShardProgress]:
        """See `ProgressStore.load`."""
        self.asked.set()
        return await super().load(keys)


async def test_a_mapping_that_is_just_changing_is_waited_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The command goes through once the mapping has settled."""
    store = WatchedStore()
    with capture_logs():
        async with lambda_rig(store) as rig:
            command = Command(rig, capsys, tmp_path)
            await command("apply", command.file(ORDERS))
            (record,) = (await store.mappings())[1]
            async with asyncio.TaskGroup() as tasks:
                disabling = tasks.create_task(command("mappings", "disable", "orders"))
                await store.asked.wait()
                await rig.settle(record.id)
    assert disabling.result()[:2] == (0, "orders  Disabling\n")


async def test_an_unknown_mapping_is_named(command: Command) -> None:
    """Status 1, and where to look."""
    status, _, err = await command("mappings", "get", "nobody")
    assert (status, err) == (1, "esmd: no mapping nobody; `esmd mappings list` shows those there are\n")


def test_a_node_that_does_not_answer_is_status_3(capsys: pytest.CaptureFixture[str]) -> None:
    """As for every client command."""
    with fake_node() as node:
        url = node.url
    assert run(["mappings", "list", "--url", url]) == 3
    assert "no node answers" in capsys.readouterr().err


async def test_a_plan_changes_nothing_and_an_application_only_what_it_says(rig: LambdaRig, command: Command) -> None:
    """Added, changed, kept, left alone; and afterwards there is nothing to do."""
    made = await rig.call("create_event_source_mapping", EventSourceArn=QUEUE, FunctionName="g")
    await command("apply", command.file(ORDERS))
    file = command.file({**ORDERS, "BatchSize": 5}, CLICKS)
    status, out, _ = await command("plan", file)
    assert (status, out.splitlines()) == (
        0,
        [
            "~ orders: what is under way is finished first",
            "    BatchSize: (default) -> 5",
            "+ clicks: reads from its starting position",
            "1 to add, 1 to change, 0 to remove, 0 unchanged; 1 not in these files stays",
        ],
    )
    assert set(await names_and_states(rig)) == {"orders", made["UUID"]}
    status, out, _ = await command("apply", file)
    assert out.splitlines()[-1] == "1 added, 1 changed, 0 being removed, 0 unchanged; 1 not in these files stays"
    assert set(await names_and_states(rig)) == {"orders", "clicks", made["UUID"]}
    status, out, _ = await command("plan", file, "--json")
    assert json.loads(out) == {"changes": [], "unchanged": 2, "drifted": [], "others": [made["UUID"]]}


async def test_what_the_api_changed_since_is_told_and_undone_only_on_request(rig: LambdaRig, command: Command) -> None:
    """The file asks for nothing new, so it is left alone; --reset is heeded."""
    file = command.file(ORDERS)
    await command("apply", file)
    (record,) = (await rig.store.mappings())[1]
    await rig.settle(record.id)
    await command("mappings", "disable", "orders")
    await rig.settle(record.id, MappingState.DISABLED)
    status, out, _ = await command("apply", file)
    assert (status, out.splitlines()) == (
        0,
        [
            "  orders: was changed by the API since, and stays so (--reset: as the file says)",
            "0 added, 0 changed, 0 being removed, 1 unchanged",
        ],
    )
    assert await names_and_states(rig) == {"orders": "Disabled"}
    status, out, _ = await command("apply", "--reset", file)
    assert out.splitlines() == [
        "~ orders",
        "    Enabled: false -> (default)",
        "0 added, 1 changed, 0 being removed, 0 unchanged",
    ]
    assert await names_and_states(rig) == {"orders": "Enabling"}


async def test_pruning_removes_what_files_asked_for_before(rig: LambdaRig, command: Command) -> None:
    """Not what the API made."""
    made = await rig.call("create_event_source_mapping", EventSourceArn=QUEUE, FunctionName="g")
    await command("apply", command.file(ORDERS, CLICKS))
    status, out, _ = await command("apply", "--prune", command.file(CLICKS))
    assert (status, out.splitlines()[0]) == (0, "- orders: what is under way is finished first")
    assert await names_and_states(rig) == {"orders": "Deleting", "clicks": "Creating", made["UUID"]: "Creating"}


async def test_a_renamed_mapping_keeps_its_position(rig: LambdaRig, command: Command) -> None:
    """One change, of the same mapping."""
    await command("apply", command.file(CLICKS))
    (before,) = (await rig.store.mappings())[1]
    renamed = {**CLICKS, "Name": "taps", "extensions": {"renamed_from": "clicks"}}
    status, out, _ = await command("apply", command.file(renamed))
    assert (status, out.splitlines()[0]) == (
        0,
        "~ taps (was clicks): the position is kept; what is under way is finished first",
    )
    (after,) = (await rig.store.mappings())[1]
    assert (after.id, after.name) == (before.id, "taps")
    assert (await command("plan", command.file({**CLICKS, "Name": "taps"})))[1].startswith("0 to add, 0 to change")


async def test_what_the_node_knows_better_is_told_with_the_line(rig: LambdaRig, command: Command) -> None:
    """A function the node has not, a duplicate of a mapping made by the API, another stream: status 2, nothing done."""
    made = await rig.call("create_event_source_mapping", EventSourceArn=QUEUE, FunctionName="f")
    await command("apply", command.file(CLICKS))
    other = {**CLICKS, "EventSourceArn": STREAM + "2"}
    file = command.file(ORDERS, other, {**ORDERS, "Name": "more", "FunctionName": "h"})
    status, _, err = await command("apply", file)
    lines = err.splitlines()
    assert status == 2
    assert all(line.startswith(f"{file}:") for line in lines)
    assert any("more.FunctionName: Function does not exist on the node that was asked" in line for line in lines)
    assert any(f"existing mapping with UUID {made['UUID']}" in line for line in lines)
    assert any("clicks: a mapping keeps its stream" in line for line in lines)
    assert set(await names_and_states(rig)) == {"clicks", made["UUID"]}


async def test_a_bad_file_is_not_sent(command: Command, tmp_path: Path) -> None:
    """What is wrong without a node is told without one."""
    file = tmp_path / "bad.yaml"
    file.write_text("event_source_mappings: [{Name: a}]\n")
    status, _, err = await command("plan", str(file))
    assert (status, "bad.yaml:1:" in err) == (2, True)
