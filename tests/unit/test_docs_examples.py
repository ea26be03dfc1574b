"""What readers copy out of the documentation works: configurations, commands, code.

Commands are parsed by the command line's own parser, not run; most are run by
`tests/integration/test_docs_commands.py` and `tests/integration/test_docs_run.py`.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, NamedTuple

import click
import pytest

from config.load import load
from node.cli import esmd
from tests.unit.test_docs import PAGES, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_COMMANDS = frozenset(esmd.list_commands(click.Context(esmd)))
UNKNOWN = click.Command("unknown")
_OTHERS = ("hcl", "ini")  # languages of blocks that nothing here can read


class Block(NamedTuple):
    """A fenced block."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}-{self.line}"


def blocks() -> Iterator[Block]:
    """Find every fenced block of every page."""
    for page in PAGES:
        text = page.read_text()
        for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            yield Block(page, text.count("\n", 0, found.start()) + 1, found[1], found[2])


BLOCKS = list(blocks())


def of(*languages: str) -> pytest.MarkDecorator:
    """Run a test for each block in one of these languages."""
    return pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in languages], ids=str)


def test_every_block_is_looked_at() -> None:
    """No block is left out for being in another language, or indented."""
    assert {block.language for block in BLOCKS} <= {"", "yaml", "json", "python", "console", *_OTHERS}
    fences = {page: len(re.findall(r"^ *```", page.read_text(), re.MULTILINE)) for page in PAGES}
    assert fences == {page: 2 * sum(block.page == page for block in BLOCKS) for page in PAGES}


def followed(page: Path) -> bool:
    """Whether a page is followed as a whole: `tests/integration/test_docs_run.py`."""
    return page.name == "tutorial.md" or page.parent.name == "howto"


OURS = [block for block in BLOCKS if block.language == "yaml" and not followed(block.page)]


@pytest.mark.parametrize("block", OURS, ids=str)
def test_every_configuration_shown_is_valid(block: Block, tmp_path: Path) -> None:
    """Whole files and sections of them alike."""
    file = tmp_path / "shown.yaml"
    file.write_text(block.text)
    settings = load([file], environ={})
    assert bool(settings.event_source_mappings) == ("event_source_mappings:" in block.text)


@of("json", "python")
def test_documents_and_code_shown_can_be_read(block: Block) -> None:
    """JSON is JSON, Python is Python."""
    if block.language == "json":
        assert json.loads(block.text.replace("{…}", "{}"))  # what is left out
    else:
        compile(block.text, str(block), "exec")


def lines(block: Block) -> Iterator[str]:
    """Return what is typed, without prompts and comments; continued lines are one."""
    for found in re.finditer(r"^[$#] (.*)$", block.text.replace("\\\n", " "), re.MULTILINE):
        yield re.sub(r"\s+#.*", "", found[1])


def esmd_calls(line: str) -> Iterator[list[str]]:
    """Find the arguments of each call of `esmd` in a line, also of one inside of a container or a shell."""
    words = shlex.split(line)
    for at, word in enumerate(words):
        if " esmd " in f" {word} " and " " in word:
            yield from esmd_calls(word)
        rest = words[at + 1 :]
        if word == "esmd" and (at == 0 or (rest and rest[0] in _COMMANDS)):
            end = next((place for place, text in enumerate(rest) if text in {"&", "&&", "|", ">", ";"}), len(rest))
            yield rest[:end]


def parse(arguments: Sequence[str]) -> None:
    """Have the command line read these arguments, as when they are typed. Raises `click.UsageError`."""
    command: click.Command = esmd
    context = click.Context(esmd, info_name="esmd")
    rest = list(arguments)
    if rest == ["--version"]:
        return
    while isinstance(command, click.Group):
        _, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command = found
    try:
        command.make_context(command.name, rest, parent=context)
    except click.BadParameter as exc:
        if not re.search("does not exist|No such file", str(exc)):  # the reader's files are not here
            raise


CALLS = [
    (block, call)
    for block in BLOCKS
    if block.language == "console"
    for line in lines(block)
    for call in esmd_calls(line)
]


@pytest.mark.parametrize(("block", "call"), CALLS, ids=[f"{block}-{number}" for number, (block, _) in enumerate(CALLS)])
def test_every_command_shown_can_be_typed(block: Block, call: list[str]) -> None:
    """It exists, and takes these options and arguments."""
    try:
        parse(call)
    except click.UsageError as exc:
        pytest.fail(f"{block}: esmd {shlex.join(call)}: {exc.format_message()}")


def test_commands_are_found_wherever_they_stand() -> None:
    """First on the line, in a container, in a shell in a container; a thing named esmd is no command."""
    found = [
        list(esmd_calls(line))
        for line in (
            "esmd run a.yaml &",
            "docker compose exec node-1 esmd status",
            "kubectl exec deploy/esmd -- sh -c 'T=$(cat f) esmd explain orders'",
            "docker build --tag esmd .",
            "esmd sekk",
        )
    ]
    assert found == [[["run", "a.yaml"]], [["status"]], [["explain", "orders"]], [], [["sekk"]]]
    assert len(CALLS) > 15
    with pytest.raises(click.UsageError, match="No such command"):
        parse(["sekk"])
    with pytest.raises(click.NoSuchOption):
        parse(["redrive", "orders", "--untill", "2h"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_named_in_prose_exist(page: Path) -> None:
    """`esmd …` in a sentence or a table names a command, with options that it has."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    absent = set()
    for span in re.findall(r"`esmd ([^`]+)`", text):
        names = iter(re.sub(r"[\[\]…]", " ", span.replace("\\|", "|")).split())
        command: click.Command = esmd
        while isinstance(command, click.Group) and (word := next(names, None)) is not None:
            found = {name: command.get_command(click.Context(command), name) for name in word.split("|")}
            absent |= {name for name, one in found.items() if one is None}
            command = next((one for one in found.values() if one is not None), UNKNOWN)
        if command is UNKNOWN:
            continue
        known = {option for one in command.params for option in [*one.opts, *one.secondary_opts]} | {"--help"}
        absent |= {word for word in names if word.startswith("--")} - known
    assert not absent


@of("console")
def test_targets_and_files_that_commands_name_are_there(block: Block) -> None:
    """`make TARGET` is in the Makefile, and paths within the repository lead somewhere."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    written = re.findall(r"`([\w./-]+)`:\n\n```", block.page.read_text())  # by the reader, before
    for line in lines(block):
        assert set(re.findall(r"^make ([a-z-]+)", line)) <= targets
        for path in re.findall(r"(?<![\w/])(?:deploy|examples|benchmarks|config|docs)/[\w./-]+", line):
            if path == "deploy/esmd" or any(name.startswith(path) for name in written):
                continue  # kubectl's name of a Deployment; a file of the reader's, or its folder
            assert (ROOT / path).exists(), path
