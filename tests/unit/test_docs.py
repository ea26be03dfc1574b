"""What the documentation says is there is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from config.load import load

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _pytest.mark import ParameterSet

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def yaml_blocks() -> Iterable[ParameterSet]:
    """Find the complete configurations shown in the README and in docs/configuration.md."""
    found = []
    for page in (ROOT / "README.md", ROOT / "docs/configuration.md"):
        for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)):
            if "event_source_mappings:" in block:
                found.append(pytest.param(block, id=f"{page.name}-{number}"))
    return found


@pytest.mark.parametrize("block", yaml_blocks())
def test_every_configuration_shown_is_valid(block: str, tmp_path: Path) -> None:
    """What a reader copies works."""
    file = tmp_path / "shown.yaml"
    file.write_text(block)
    assert load([file], environ={}).event_source_mappings


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    """No link within the repository is broken."""
    prose = re.sub(r"`[^`\n]*`", "", page.read_text())
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", prose)
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_file_map_names_only_what_exists() -> None:
    """docs/architecture.md keeps up with the code."""
    text = (ROOT / "docs/architecture.md").read_text()
    table = text[text.index("## File map") : text.index("## Decisions")]
    folder, missing = "", []
    for line in table.splitlines():
        if heading := re.match(r"\| \*\*(\w+)/\*\*", line):
            folder = heading[1]
        elif line.startswith("| `"):
            first_column = line.split("|")[1]
            missing += [
                f"{folder}/{name}"
                for name in re.findall(r"`([^`]+)`", first_column)
                if not any(ROOT.glob(f"{folder}/{name.rstrip('/')}"))
            ]
    assert missing == []


def test_the_file_map_names_every_module() -> None:
    """A new module finds its place in the map."""
    text = (ROOT / "docs/architecture.md").read_text()
    unnamed = [
        str(path.relative_to(ROOT))
        for package in ("leasing", "pollers", "invocation", "config", "controlplane", "node")
        for path in ROOT.glob(f"{package}/*.py")
        if not path.name.startswith("_") and f"`{path.name}`" not in text
    ]
    assert unnamed == []


def test_every_test_that_the_documentation_names_is_there() -> None:
    """A claim about leases is worth as much as the test that checks it."""
    there = {path.name for path in ROOT.glob("tests/*/test_*.py")}
    for path in ROOT.glob("tests/*/test_*.py"):
        there.update(re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text(), re.MULTILINE))
    named = {page.name: re.findall(r"\btest_\w+(?:\.py)?", page.read_text()) for page in PAGES}
    assert len(named["leases.md"]) > 20
    assert {page: absent for page, names in named.items() if (absent := set(names) - there)} == {}


def test_every_claim_about_leases_names_its_test() -> None:
    """Nothing is guaranteed in docs/leases.md that is not checked."""
    text = (ROOT / "docs/leases.md").read_text()
    claims = re.findall(r"^\| \d+[ ◆]*\|.*$", text, re.MULTILINE)
    assert len(claims) >= 13
    assert [claim for claim in claims if "`test_" not in claim.split("|")[-2]] == []
