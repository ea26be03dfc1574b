"""What the documentation says is there is there."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")])


def anchors(page: Path) -> set[str]:
    """Return what a page's headings can be linked by, as GitHub makes it of their words."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    found: Counter[str] = Counter()
    made = set()
    for heading in re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        made.add(f"{slug}-{found[slug]}" if found[slug] else slug)
        found[slug] += 1
    return made


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    """No link to a page, or to a heading of one, is broken."""
    prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    broken = []
    for link in re.findall(r"\]\((?!https?://)([^) ]+)", prose):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


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
