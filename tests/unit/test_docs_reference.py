"""The reference is what the code is: made from it, up to date, and complete."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from config.functions import KINDS
from config.sections import SECTIONS
from docs.making import errors, metrics, settings, words
from docs.making.__main__ import FOLDER, PAGES
from model.rules.parameters import EXTENSION_PARAMETERS, PARAMETERS
from model.rules.shapes import Boolean, Choice, Field, Integer, ListOf, MapOf, Table, Text
from node.cli import esmd

if TYPE_CHECKING:
    from model.rules.shapes import Shape

ROOT = Path(__file__).parents[2]
CODE = ("model", "statemgr", "leasing", "pollers", "invocation", "controlplane", "config", "node")


def page(name: str) -> str:
    """Return a page as it is in the repository."""
    return (FOLDER / name).read_text()


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_up_to_date(name: str) -> None:
    """`python -m docs.making` writes what is there."""
    assert PAGES[name]() == page(name)


def test_nothing_else_is_among_them() -> None:
    """A page that is not made any more is taken away."""
    assert {path.name for path in FOLDER.iterdir()} == set(PAGES)


def test_every_parameter_is_there() -> None:
    """Of mappings, functions and nodes."""
    names = {row.name for row in PARAMETERS.values()} - {"extensions"}
    assert {name for name in names | set(EXTENSION_PARAMETERS) if f"`{name}`" not in page("mappings.md")} == set()
    of_functions = {field.name for table in KINDS.values() for field in table.fields}
    assert {name for name in of_functions if f"| `{name}` |" not in page("functions.md")} == set()
    assert {name for name in SECTIONS if f"| `{name}` |" not in page("settings.md")} == set()


def test_every_command_and_option_is_there() -> None:
    """Those inside of groups too; hidden options are not for readers."""
    text, missing = page("commands.md"), []
    commands: list[tuple[str, click.Command]] = [("esmd", esmd)]
    while commands:
        path, command = commands.pop()
        if isinstance(command, click.Group):
            context = click.Context(command)
            inner = {name: command.get_command(context, name) for name in command.list_commands(context)}
            commands += [(f"{path} {name}", one) for name, one in inner.items() if one is not None]
        if path == "esmd":
            continue
        section = text.partition(f"# {path}\n")[2].partition("\n#")[0]
        options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
        missing += [f"{path} {name}" for one in options for name in one.opts if f"`{name}" not in section]
        if not section:
            missing.append(path)
    assert missing == []


def test_every_variable_that_is_read_is_there() -> None:
    """What the code looks up in the environment under a name of ours."""
    read = {
        name
        for package in CODE
        for path in ROOT.glob(f"{package}/**/*.py")
        for name in re.findall(r'"(ESMD_[A-Z_]+)"', path.read_text())
    }
    assert read == set(settings.VARIABLES)


def test_metrics_are_those_of_the_contract() -> None:
    """Nothing is told that is not promised there, and everything promised is told."""
    section = (ROOT / "docs/contract.md").read_text().partition("## 6. Metrics")[2].partition("\n## ")[0]
    promised = set(re.findall(r"`(esm_\w+)", section))
    told = {metrics.name_of(family) for family in metrics.families()}
    assert promised == told
    assert {name for name in told if f"| `{name}` |" not in page("metrics.md")} == set()


def test_answers_of_the_api_are_found_in_its_source() -> None:
    """With the status that AWS gives their type, and the message as far as it is written down."""
    source = """
OFF = "Not here."
def f(name):
    why = f"No {name}: {name}."
    if name:
        raise refused("ResourceNotFoundException", why)
    return NotInvoked(408, "RequestTimeoutException", OFF), refused("AccessDeniedException", str(name))
"""
    assert sorted(errors.found(ast.parse(source))) == [
        ("AccessDeniedException", 403, "…"),
        ("RequestTimeoutException", 408, "Not here."),
        ("ResourceNotFoundException", 404, "No …."),
    ]


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (Integer(1, 10000), "integer, 1 to 10,000"),
        (Integer(60, 100, also=(-1,)), "integer, 60 to 100, or -1"),
        (Integer(65536, 2**40), "integer, 65,536 to 2^40"),
        (Choice(("A", "B")), "`A` or `B`"),
        (ListOf(Boolean(), 1, 1), "list of 1: boolean"),
        (ListOf(Table(()), 0, 10), "list of up to 10"),
        (
            MapOf(Text(1, 128), Text(0, 256), 50),
            "map, up to 50: text, up to 128 characters → text, up to 256 characters",
        ),
    ],
)
def test_shapes_in_words(shape: Shape, said: str) -> None:
    """A range reads as one."""
    assert words.shape_words(shape) == said


def test_fields_inside_are_named_by_their_path() -> None:
    """Also those in the entries of a list."""
    inner = Field("Pattern", Text(), "", required=True)
    fields = (Field("Filters", ListOf(Table((inner,))), ""),)
    assert [row.path for row in words.flat(fields)] == ["Filters", "Filters[].Pattern"]


def test_defaults_have_a_column_of_their_own() -> None:
    """What is said in brackets is not said twice; a bare one stands behind the value that it means."""
    assert words.without_default("How long (default 300)") == ("How long", "300")
    assert words.without_default("-1 any (default)") == ("-1 any", "")
    assert words.without_default("How long") == ("How long", "")


def test_no_default_is_lost() -> None:
    """What is said of a parameter to be its default stands in the column of defaults; of a choice it is one of it."""
    rows = [line.split(" | ") for line in page("mappings.md").splitlines() if line.startswith("| `")]
    told = {cells[0].strip("|` "): cells for cells in rows}
    wrong = []
    for parameter in (*PARAMETERS.values(), *EXTENSION_PARAMETERS.values()):
        if "(default" not in parameter.about or parameter.name not in told:
            continue
        default = told[parameter.name][3].strip("` ")
        choice = parameter.shape.values if isinstance(parameter.shape, Choice) else (default,)
        if not default or default not in choice:
            wrong.append((parameter.name, default))
    assert wrong == []


def test_every_type_of_an_answer_is_there() -> None:
    """Whatever module has it in its source."""
    named = {
        name
        for package in errors.PACKAGES
        for path in ROOT.glob(f"{package}/**/*.py")
        for name in re.findall(r'"(\w+Exception)"', path.read_text())
    }
    assert {name for name in named if f"`{name}`" not in page("errors.md")} == set()
