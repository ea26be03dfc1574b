"""Prometheus's own tools over what nodes tell it and what deploy/ has it watch: promtool, and both of its formats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text_format

from tests.support.alert_table import CASES
from tests.support.deploy_files import DEPLOY
from tests.support.missing import skip_or_fail
from tests.support.node_process import NodeProcess, kafka_document
from tests.support.promtool import Promtool
from tests.support.servers import ServerUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.alert_table import Case
    from tests.support.embedded_broker import EmbeddedBroker

RULES = DEPLOY / "prometheus" / "alerts.yaml"
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
}
CONTRACT = {"esm_parked_event_count"}
"""Gauges whose names end like a histogram's count: they are the contract's, after AWS's."""

OPENMETRICS = "application/openmetrics-text; version=1.0.0"

pytestmark = pytest.mark.timeout(600)  # a machine of continuous integration may have to fetch promtool


@pytest.fixture(scope="module")
def tool() -> Promtool:
    """Return promtool."""
    try:
        return Promtool()
    except ServerUnavailableError as why:
        skip_or_fail(why)


def test_the_rules_are_rules(tool: Promtool) -> None:
    """All of them, none of them twice."""
    status, said = tool("check", "rules", "--lint=all", "--lint-fatal", str(RULES))
    assert (status, f"{len(ALERTS)} rules found" in said) == (0, True), said


def test_every_alert_has_its_case() -> None:
    """One each."""
    assert sorted(case.alert for case in CASES) == sorted(ALERTS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_an_alert_fires_for_its_trouble_alone(tool: Promtool, case: Case, tmp_path: Path) -> None:
    """With its words filled in; and not for what passes, or is as it should be."""
    assert tool.test_rules(tmp_path, RULES, case.tests(ALERTS[case.alert])) == ""


def test_a_case_that_is_wrong_is_noticed(tool: Promtool, tmp_path: Path) -> None:
    """The judge judges: series of the quiet half do not fire."""
    fires, quiet = CASES[0].tests(ALERTS[CASES[0].alert])
    fires["input_series"] = quiet["input_series"]
    assert "FAILED" in tool.test_rules(tmp_path, RULES, [fires])


async def test_what_a_node_tells_is_in_order(
    tool: Promtool, embedded_kafka: EmbeddedBroker, redis_url: str, tmp_path: Path
) -> None:
    """Names, types and help as Prometheus wants them, in the format that it asks for first and in the other."""
    topic = embedded_kafka.new_topic(1)
    functions = {"f": {"url": "http://127.0.0.1:9", "timeout": 20}}
    document = kafka_document(embedded_kafka.bootstrap_servers, topic, redis_url=redis_url, functions=functions)
    async with NodeProcess(tmp_path, document) as node:
        await node.start()
        _, text = await node.get("/metrics")
        _, modern = await node.get("/metrics", {"Accept": OPENMETRICS})
    _, said = tool("check", "metrics", given=text)
    complaints = {line.split()[0] for line in said.splitlines() if line.strip()}
    assert complaints == CONTRACT, said
    assert modern.endswith("# EOF\n")
    families = {family.name for family in openmetrics(modern)}  # type: ignore[no-untyped-call]
    assert families == {family.name for family in text_format(text) if not family.name.endswith("_created")}
    assert "esm_polled_event_count" in families
