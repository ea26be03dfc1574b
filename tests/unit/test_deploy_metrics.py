"""What deploy/ asks Prometheus: every expression is PromQL, and asks for what a node tells."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import promql_parser as promql
import pytest
import yaml

from config.settings import Settings
from leasing.held import Reason
from node.async_queue import AsyncCollector
from node.function_side import FunctionSide
from node.invoke_metrics import InvokeMeters
from node.sandboxing import SandboxCollector
from node.telemetry import NodeCollector
from node.watchdog import LoopLag
from pollers.async_counters import AsyncMeters
from pollers.counters import Meters
from statemgr.memory_store import MemoryStore
from tests.support.deploy_files import DEPLOY
from tests.unit.test_telemetry import Leasing

ALERTS = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((DEPLOY / "grafana" / "esmd.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
GRAFANA = {"$__rate_interval": "1m", "$mapping": ".*"}
SCRAPED: dict[str, set[str]] = {"process_cpu_seconds_total": set(), "process_resident_memory_bytes": set()}
"""What prometheus_client tells of every process."""

VALUES: dict[tuple[str, str], set[str]] = {
    ("esm_lease_transitions_total", "reason"): set(Reason),
    ("esm_api_functions", "state"): {"ready", "failed"},
}
"""What labels may be, where expressions ask for some."""

SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
    "summary": ("_sum", "_count"),
}


def told() -> dict[str, set[str]]:
    """Return what a node tells: labels by the name of the series."""
    workers: Any = SimpleNamespace(counts=dict, counters={})
    names: dict[str, set[str]] = dict(SCRAPED)
    for collector in (
        NodeCollector(Meters(), leasing=Leasing(), loop_lag=LoopLag(), labels=lambda _mapping: None),
        SandboxCollector(workers),
        InvokeMeters(),
        FunctionSide(Settings(), MemoryStore()),
        AsyncCollector(AsyncMeters()),
    ):
        for family in collector.collect():
            labels = set(getattr(family, "_labelnames", ()))
            for suffix in SUFFIXES[family.type]:
                names[family.name + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
    return names


def expressions() -> list[Any]:
    """Return every expression with its name."""
    found = [pytest.param(rule["expr"], id=rule["alert"]) for rule in ALERTS]
    for panel in PANELS:
        for target in panel.get("targets", ()):
            text = target["expr"]
            for variable, value in GRAFANA.items():
                text = text.replace(variable, value)
            found.append(pytest.param(text, id=f"{panel['title']} {target['refId']}"))
    return found


def selectors(expression: Any) -> list[Any]:
    """Return the series an expression selects."""
    found: list[Any] = []

    def look(node: Any) -> bool:
        if isinstance(node, promql.VectorSelector):
            found.append(node)
        return True

    promql.walk(expression, look)
    return found


@pytest.mark.parametrize("text", expressions())
def test_an_expression_asks_for_what_a_node_tells(text: str) -> None:
    """Names of metrics and of the labels that they are selected and summed by."""
    expression = promql.parse(text)
    known = told()
    chosen = selectors(expression)
    assert chosen
    for selector in chosen:
        assert selector.name in known, selector.name
        for matcher in selector.matchers.matchers:
            assert matcher.name in known[selector.name], (selector.name, matcher.name)
            if (selector.name, matcher.name) in VALUES:
                assert set(matcher.value.split("|")) <= VALUES[selector.name, matcher.name]
    grouped = {label.strip() for by in re.findall(r"\bby \(([^)]*)\)", text) for label in by.split(",")}
    labels = set().union(*(known[selector.name] for selector in chosen))
    assert grouped <= labels | {"instance"}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong(rule: dict[str, Any]) -> None:
    """Each has a severity, a sentence, and only labels that are left in its result."""
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    grouped = {label for by in re.findall(r"\bby \(([^)]*)\)", rule["expr"]) for label in by.split(", ")}
    for text in rule["annotations"].values():
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= grouped
    assert rule["annotations"].keys() == {"summary", "description"}


def test_the_dashboard_is_what_its_program_prints() -> None:
    """Whoever changes one changes the other."""
    printed = subprocess.run(
        [sys.executable, DEPLOY / "grafana" / "dashboard.py"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert printed == (DEPLOY / "grafana" / "esmd.json").read_text()


def test_no_panel_lies_on_another() -> None:
    """Grafana would move them about; every panel has an id of its own and is within the grid."""
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


def test_every_metric_of_a_mapping_is_shown_or_watched() -> None:
    """What nobody looks at need not be told. Redrives and replays have a progress bar of their own."""
    texts = " ".join(parameters.values[0] for parameters in expressions())
    unseen = {name for name in told() if not name.endswith(("_sum", "_count")) and name not in texts}
    assert unseen <= {
        "esm_redriven_event_count_total",
        "esm_replayed_event_count_total",
        "esm_circuit_transitions_total",
        "esm_deleted_event_count_total",
    }


def test_every_metric_named_elsewhere_is_one_that_a_node_tells() -> None:
    """Autoscalers and the page on deployment ask for nothing that nobody measures."""
    pages = [*DEPLOY.rglob("*.yaml"), DEPLOY.parent / "docs/deployment.md"]
    asked = {name for page in pages for name in re.findall(r"\besm_\w+", page.read_text())}
    assert "esm_iterator_age_seconds" in asked
    assert asked <= told().keys()
