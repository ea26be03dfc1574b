"""The JSON Schema for editors, and the sample files against it and against the validator."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

import config
from config.load import load
from config.schema import json_schema
from config.yaml_document import read_document
from model.problem import InvalidConfigurationError
from node.commands.schema import schema_command
from node.commands.validate import validate_command
from tests.support.mapping_documents import document

SAMPLES = sorted(Path(config.__file__).parent.glob("*.yaml"))
SCHEMA = jsonschema.Draft202012Validator(json_schema())
LISTED: dict[str, Any] = {"functions": {"f": {"url": "http://f"}}}


def _plain(value: object) -> Any:
    return json.loads(json.dumps(value, default=str))


def _mapping(source: str, **changes: object) -> dict[str, Any]:
    return {**LISTED, "event_source_mappings": [document(source, **changes)]}


def test_there_are_samples() -> None:
    """The samples the documentation names exist."""
    assert {"kafka.yaml", "lambda-endpoint.yaml", "kafka-secured.yaml", "all-sources.yaml"} <= {p.name for p in SAMPLES}


def test_the_schema_is_a_schema() -> None:
    """The schema obeys its own dialect."""
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_samples_are_valid(path: Path) -> None:
    """Every sample file loads without secrets at hand, and fits the schema."""
    assert load([path], environ={}).event_source_mappings
    SCHEMA.validate(_plain(read_document(path).value))


BAD: list[dict[str, Any]] = [
    {"redi": "embedded"}, {"redis": "x"}, {"redis": {"url": "x"}}, {"listen": 9001}, {"listen": "x"},
    {"leasing": {"ttl": 2}},
    {"drain_timeout": "30"}, {"aws": {"account_id": 1}}, {"invoke": {"endpoint": "x"}}, {"embedded": {"sqs": {}}},
    {"auth": {"tokens": []}}, {"functions": {"f": {}}}, {"functions": {"a b": {"url": "http://x"}}},
    {"functions": {"f": {"url": "http://x", "arn": "x"}}}, {"functions": {"f": {"handler": "a.b"}}},
    {"functions": {"f": {"url": "http://x", "timeout": 901}}}, {"event_source_mappings": {}},
    _mapping("S", Name=...), _mapping("S", FunctionName=...), _mapping("S", EventSourceArn=...),
    _mapping("K", StartingPosition=...),
    _mapping("A", Topics=...), _mapping("M", StartingPosition=...), _mapping("S", BatchSize=0),
    _mapping("F", BatchSize=11),
    _mapping("S", StartingPosition="LATEST"), _mapping("K", Topics=["t"]), _mapping("S", DestinationConfig={}),
    _mapping("A", TumblingWindowInSeconds=1), _mapping("K", ScalingConfig={}), _mapping("S", Batchsize=1),
    _mapping("K", MaximumRecordAgeInSeconds=59), _mapping("A", extensions={"visibility_heartbeat": True}),
    _mapping("S", extensions={"x": 1}), _mapping("K", MetricsConfig={"Metrics": ["KafkaMetrics"]}),
    _mapping("S", Queues=["q"]), _mapping("S", ProvisionedPollerConfig={"MinimumPollers": 1}),
    _mapping("A", SelfManagedEventSource={"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["kafka"]}}),
    _mapping("M", SourceAccessConfigurations=[{"Type": "BASIC_AUTH", "URI": "${env:X}"}]),
    _mapping("T", schedule=...), _mapping("T", EventSourceArn="arn:aws:sqs:us-east-1:000000000000:orders"),
    _mapping("T", missed="twice"), _mapping("T", BatchSize=1), _mapping("T", schedule_timezone=2),
    _mapping("S", input={}), _mapping("S", missed="once"), _mapping("T", extensions={"park_failing_keys": True}),
]  # fmt: skip


@pytest.mark.parametrize("content", BAD, ids=range(len(BAD)))
def test_bad_files_are_refused_by_both(tmp_path: Path, content: dict[str, Any]) -> None:
    """What the schema refuses the validator refuses, and the other way round where one field alone is wrong."""
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    assert not SCHEMA.is_valid(_plain(content))
    with pytest.raises(InvalidConfigurationError):
        load([tmp_path / "c.yaml"], environ={})


@pytest.mark.parametrize("source", "KSFAMT")
def test_smallest_mappings_fit_the_schema(source: str) -> None:
    """The smallest mapping of each source fits."""
    SCHEMA.validate(_mapping(source))


def test_cloudformations_spellings_fit_the_schema() -> None:
    """What CloudFormation spells differently is accepted by editors too."""
    servers = {"Endpoints": {"KafkaBootstrapServers": ["k:1"]}}
    SCHEMA.validate(_mapping("A", SelfManagedEventSource=servers, KmsKeyArn="", Tags=[{"Key": "a", "Value": "b"}]))


def test_the_schema_command_prints_it() -> None:
    """`esmd schema` prints one JSON document."""
    result = CliRunner().invoke(schema_command)
    assert (result.exit_code, json.loads(result.output)) == (0, json_schema())


def test_validate_counts_what_it_found() -> None:
    """`esmd validate` answers OK with counts on standard output."""
    (path,) = [path for path in SAMPLES if path.name == "all-sources.yaml"]
    result = CliRunner().invoke(validate_command, [str(path)])
    assert result.exit_code == 0
    assert result.stdout == "OK: 1 file, 4 event source mappings (1 kafka, 1 kinesis, 1 schedule, 1 sqs), 4 functions\n"


def test_validate_raises_every_problem(tmp_path: Path) -> None:
    """A broken file leaves the command as the error that becomes exit status 2."""
    (tmp_path / "c.yaml").write_text("listen: x\nredi: y\n")
    result = CliRunner().invoke(validate_command, [str(tmp_path / "c.yaml")])
    assert isinstance(result.exception, InvalidConfigurationError)
    assert [problem.path for problem in result.exception.problems] == ["listen", "redi"]


def test_validating_loads_no_client_library() -> None:
    """Checking configuration stays quick: no source's or cloud's client is imported for it."""
    heavy = {"aiokafka", "aiohttp", "aioboto3", "botocore", "redis", "rich", "structlog", "asyncio"}
    code = (
        "import sys;from pathlib import Path;from config.load import load; from node.commands import validate, schema;"
        f"load([Path({str(SAMPLES[0])!r})], environ={{}});"
        f"print(*({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
