"""The page of commands: from the commands themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from docs.making.words import code, grid, head
from node.cli import SUMMARIES, esmd
from node.exits import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

STATUSES = {
    ExitStatus.DONE: "done, or stopped cleanly",
    ExitStatus.FAILED: "failed; the last line on standard error says why, `--debug` shows where",
    ExitStatus.USAGE: "bad usage or configuration: every problem with `file:line: path: rule`",
    ExitStatus.UNREACHABLE: "a node, Redis or a broker could not be reached in time",
}

_INTRODUCTION = """
Results go to standard output, messages to standard error. `--json` prints one JSON document. Client commands ask any
node of the fleet: `--url` or `ESMD_URL`, with the token in `ESMD_TOKEN` where the node has `auth`.
"""


def page() -> str:
    """Return the page."""
    parts = [head(__name__, "Commands"), _INTRODUCTION, "\n"]
    parts += [grid(("Exit status", "Means"), [(str(int(one)), STATUSES[one]) for one in ExitStatus])]
    context = click.Context(esmd, info_name="esmd")
    parts += ["\nOptions before the command: ", ", ".join(_words(one) for one in esmd.params), ".\n"]
    for name in esmd.list_commands(context):
        command = esmd.get_command(context, name)
        if command is None:
            raise LookupError(name)
        parts += _command(
            command, click.Context(command, parent=context, info_name=name), f"## esmd {name}", SUMMARIES[name]
        )
    return "".join(parts)


def _words(option: click.Parameter) -> str:
    return f"`{option.opts[0]}` ({getattr(option, 'help', '') or 'Show the help.'})".replace(".)", ")")


def _command(command: click.Command, context: click.Context, title: str, summary: str) -> Iterator[str]:
    """Return a command's section, and those of the commands inside it."""
    yield f"\n{title}\n\n"
    usage = " ".join(command.collect_usage_pieces(context))
    help_text = _paragraphs(command.help or summary)
    yield f"```\n{context.command_path} {usage}\n```\n\n{help_text}\n"
    rows = [_option(one, context) for one in command.params if isinstance(one, click.Option) and not one.hidden]
    if rows:
        yield "\n" + grid(("Option", "Default", "What it does"), rows)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is None:
                raise LookupError(name)
            below = click.Context(inner, parent=context, info_name=name)
            yield from _command(inner, below, f"### {context.command_path} {name}", inner.help or "")


def _paragraphs(text: str) -> str:
    """Return a help text as Markdown: words that stand for something are code, lines are joined."""
    cleaned = text.replace("\b", "").strip()
    return "\n\n".join(" ".join(part.split()) for part in cleaned.split("\n\n")).replace("<", "\\<")


def _option(option: click.Option, context: click.Context) -> tuple[str, str, str]:
    name = ", ".join(option.opts)
    takes = "" if option.is_flag else f" {option.make_metavar(context)}"
    about = option.help or ""
    about, _, told = about.partition("  [")  # where the default is another place's, the help says it
    default = told.rstrip("]")
    if (
        not option.is_flag
        and option.default is not None
        and isinstance(option.default, str | int | float)
        and not default
    ):
        default = str(option.default)
    if option.envvar:
        about += f" Or `{option.envvar}`." if isinstance(option.envvar, str) else ""
    return code(name + takes), "**required**" if option.required else code(default), about
