"""`esmd demo` as people run it: a process of its own with servers of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from controlplane.status import LedgerStatus, MappingStatus, NodeStatus, ShardStatus, Status
from invocation.runtimes import runtime_command
from invocation.settings import HandlerFunction
from model.errors import RefusedError
from tests.support.missing import skip_or_fail
from tests.support.node_client import with_node_client
from tests.support.processes import wait_gone
from tests.support.servers import ServerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent.parent
LIMIT_S = 90
ORDERS = [f"orders-{at}" for at in range(3)]
SHARDS = {
    "paid-orders": ORDERS,
    "archive": ORDERS,
    "clicks": [f"shardId-{at:012}" for at in range(2)],
    "mails": ["poller-0", "poller-1"],
    "tidy": ["schedule"],
}
EXAMPLE = ROOT / "examples/functions/demo.yaml"
KINDS = {"orders": "kafka", "clicks": "kinesis", "mails": "sqs"}
SERVERS = 3  # Redis, Kafka and AWS's services
WITHOUT_RUNTIME_CLIENT = 'import sys\n\nsys.modules["awslambdaric"] = None\n'


@pytest.fixture
def demo(open_folder: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start demos whose files go to `open_folder`, and end what is left of them."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str, before: str = "") -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": f"{before}{ROOT}", "TMPDIR": str(open_folder)}
        environment["ESMD_REDIS_URL"] = "redis://127.0.0.1:1/0"  # somebody's real one: the demo keeps away from it
        environment["AWS_PROFILE"] = "not-there"  # nor is anything of the AWS configuration used
        process = subprocess.Popen(
            [sys.executable, "-m", "node", "demo", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=open_folder,
            env=environment,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def flowing(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Wait until events were delivered; return the demo's children."""
    assert process.stderr is not None
    before = []
    for told in process.stderr:
        before.append(told)
        if "in all" in told and " 0 in all" not in told:  # every mapping delivers
            break
    else:
        pytest.fail(f"the demo ended by itself:\n{''.join(before)}")
    return psutil.Process(process.pid).children(recursive=True)


def test_the_document(demo: Callable[..., subprocess.Popen[str]], open_folder: Path, record_property: Any) -> None:
    """`--json` ends with the contract's document: something delivered, nothing in flight, every ledger balanced."""
    process = demo("--seconds", "3", "--json")
    children = flowing(process)
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, err
    document = json.loads(out)
    assert set(document) == {*Status.__struct_fields__, "seconds"}
    assert document["seconds"] >= 3
    assert [set(node) for node in document["nodes"]] == [set(NodeStatus.__struct_fields__)]
    assert {mapping["name"] for mapping in document["mappings"]} == set(SHARDS)
    for mapping in document["mappings"]:
        assert set(mapping) == {*MappingStatus.__struct_fields__, "latency_ms"}
        assert mapping["state"] == "Enabled"
        ledger = mapping["ledger"]
        assert set(ledger) == set(LedgerStatus.__struct_fields__)
        assert ledger["balanced"]
        assert ledger["in_flight"] == 0
        assert ledger["polled"] == ledger["delivered"] + ledger["filtered"]
        assert set(mapping["latency_ms"]) == {"p50", "p99"}
        if mapping["name"] != "tidy":  # it may not have been time for it
            assert ledger["delivered"] > 0
            assert 0 <= mapping["latency_ms"]["p50"] <= mapping["latency_ms"]["p99"]
        assert [shard["id"] for shard in mapping["shards"]] == SHARDS[mapping["name"]]
        assert all(set(shard) == set(ShardStatus.__struct_fields__) for shard in mapping["shards"])
    polled = {mapping["name"]: mapping["ledger"]["polled"] for mapping in document["mappings"]}
    assert polled["archive"] == polled["paid-orders"] > polled["clicks"] > polled["mails"]
    first = next(told for told in err.splitlines() if "first event delivered after" in told)
    record_property("first_event", first)  # reported, not judged: a busy machine may take long
    assert len(children) > SERVERS + 2  # at least one sandbox, and what keeps it
    for child in children:
        wait_gone(child)
    assert list(open_folder.iterdir()) == []


@pytest.fixture
def node_js_code(open_folder: Path) -> Path:
    """Give the example's function for Node.js, with AWS's client where that can be had: it may lack on a laptop."""
    example = ROOT / "examples/functions/nodejs"
    try:
        return with_node_client(example, open_folder / "nodejs")
    except ServerUnavailableError as why:
        if os.environ.get("CI") == "true":
            skip_or_fail(why)
        return example


@pytest.mark.timeout(1200)  # AWS's client for Node.js may have to be compiled first
def test_added_functions_run_on_every_source(
    demo: Callable[..., subprocess.Popen[str]], open_folder: Path, node_js_code: Path
) -> None:
    """What `make demo` adds: each function of the example takes events of topic, stream and queue; none is lost."""
    text = EXAMPLE.read_text().replace("code: examples/functions/nodejs", f"code: {node_js_code}")
    (open_folder / "added.yaml").write_text(text.replace("code: examples", f"code: {ROOT}/examples"))
    process = demo("--seconds", "3", "--json", "--functions", "added.yaml")
    flowing(process)
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, err
    document = json.loads(out)
    functions = {one["name"]: one for one in document["functions"]}
    lacks = node_js_lacks(node_js_code)
    assert {name: one["missing"] for name, one in functions.items()} == {"local": None, "nodejs": lacks, "shell": None}
    mappings = {one["name"]: one for one in document["mappings"]}
    assert set(SHARDS) < set(mappings)
    assert ("nodejs-orders" in mappings) == (lacks is None)
    for name, one in functions.items():
        if one["missing"] is not None:
            continue
        assert all(one["delivered"][source] > 0 for source in ("kafka", "kinesis", "sqs")), one
        assert one["calls"] >= 3
        assert one["errors"] == 0
        for source in ("orders", "clicks", "mails"):
            mapping = mappings[f"{name}-{source}"]
            assert mapping["latency_ms"]["p50"] <= mapping["latency_ms"]["p99"]
            assert mapping["ledger"]["delivered"] == one["delivered"][KINDS[source]]
    for mapping in mappings.values():
        ledger = mapping["ledger"]
        assert (ledger["balanced"], ledger["in_flight"]) == (True, 0)
    polled = {name: mapping["ledger"]["polled"] for name, mapping in mappings.items()}
    assert polled["local-orders"] == polled["shell-orders"] == polled["archive"]
    assert polled["local-clicks"] == polled["shell-clicks"] == polled["clicks"]
    assert {path.name for path in open_folder.iterdir()} <= {"added.yaml", "nodejs"}


def node_js_lacks(code: Path) -> str | None:
    """Return why a function for Node.js cannot run here."""
    try:
        runtime_command(HandlerFunction("nodejs", "index.handler", str(code), "nodejs"))
    except RefusedError as exc:
        return str(exc).removeprefix("function nodejs: ")
    return None


def test_what_is_wrong_with_added_functions_is_told_at_once(
    demo: Callable[..., subprocess.Popen[str]], open_folder: Path
) -> None:
    """With file and line, before anything is started."""
    (open_folder / "added.yaml").write_text("functions:\n  mine: {handler: app.handler}\n")
    process = demo("--functions", "added.yaml")
    _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 2
    assert "added.yaml:2: functions.mine" in err


def test_without_the_runtime_client_functions_run_beside_the_node(
    demo: Callable[..., subprocess.Popen[str]], open_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The demo says so, and why, and all the rest is the same."""
    folder = tmp_path_factory.mktemp("without")
    (folder / "sitecustomize.py").write_text(WITHOUT_RUNTIME_CLIENT)
    process = demo("--seconds", "2", before=f"{folder}{os.pathsep}")
    children = flowing(process)
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, err
    said = " ".join(out.split())
    assert "Every event was delivered or filtered out" in said
    assert "Note: the functions run in a process beside the node, not in its sandboxes:" in said
    assert "pip install 'esmd[functions]'" in said
    assert len(children) == SERVERS + 1
    assert list(open_folder.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_a_summary(
    demo: Callable[..., subprocess.Popen[str]], open_folder: Path, number: signal.Signals
) -> None:
    """Without `--seconds` it runs until Ctrl-C or SIGTERM, delivers the rest, tells how it went, leaves nothing."""
    process = demo("--rate", "200")
    children = flowing(process)
    process.send_signal(number)
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, err
    assert "Every event was delivered or filtered out" in " ".join(out.split())
    for child in children:
        wait_gone(child)
    assert list(open_folder.iterdir()) == []


def test_a_signal_while_starting_is_a_clean_end(demo: Callable[..., subprocess.Popen[str]], open_folder: Path) -> None:
    """Ctrl-C before events flow ends everything at once, with status 0 and nothing on standard output."""
    process = demo("--json")
    assert process.stderr is not None
    for told in process.stderr:
        if "starting" in told:
            break
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, err
    assert out == "" or json.loads(out)  # the signal may have come just too late
    for child in children:
        wait_gone(child)
    assert list(open_folder.iterdir()) == []


def test_nothing_outlives_a_killed_demo(demo: Callable[..., subprocess.Popen[str]]) -> None:
    """After a SIGKILL of the demo its servers and functions end by themselves."""
    process = demo()
    children = flowing(process)
    assert len(children) > SERVERS + 2
    process.kill()
    for child in children:
        wait_gone(child)


def test_a_closed_pipe_ends_it(demo: Callable[..., subprocess.Popen[str]], open_folder: Path) -> None:
    """When nobody reads its lines any more (`2>&1 | head`), the demo ends rather than go on unseen."""
    process = demo()
    children = flowing(process)
    assert process.stderr is not None
    process.stderr.close()
    assert process.wait(timeout=LIMIT_S) == 0
    for child in children:
        wait_gone(child)
    assert list(open_folder.iterdir()) == []
