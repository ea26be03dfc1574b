"""What stands in examples/ is valid, and the README names all of it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from config.load import load

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted(EXAMPLES.rglob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(EXAMPLES)))
def test_every_configuration_is_valid(file: Path) -> None:
    """It loads without a problem, and every mapping's function is in it."""
    settings = load([file], environ={})
    assert settings.mappings
    assert all(settings.target_for(mapping.function_name) is not None for mapping in settings.mappings)


def test_there_are_examples_and_the_readme_names_each() -> None:
    """A folder that nobody is told of would be found by nobody."""
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "__pycache__"}
    text = (EXAMPLES / "README.md").read_text()
    assert FILES
    assert [name for name in folders if f"]({name}/" not in text] == []


@pytest.mark.parametrize("file", sorted(EXAMPLES.rglob("*.py")), ids=lambda file: str(file.relative_to(EXAMPLES)))
def test_every_program_is_valid_for_the_oldest_python(file: Path) -> None:
    """Syntax that esmd's own code may use."""
    ast.parse(file.read_text(), feature_version=(3, 11))
