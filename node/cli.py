"""The `esmd` command: finds the command asked for, loads only that, and turns errors into exit statuses.

What the commands do is in `node.commands`; which status an error means is in `node.exits`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import signal
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn, TextIO

import click

from node import commands
from node.exits import Ending, ExitStatus, ending_for

if TYPE_CHECKING:
    from collections.abc import Sequence

SUMMARIES = {
    "run": "Run a node.",
    "validate": "Check configuration files without running them.",
    "plan": "Show the changes to mappings that the files ask for.",
    "apply": "Make the changes to mappings that the files ask for.",
    "demo": "See it work: everything embedded, events flowing, no network.",
    "status": "Show mappings, shards, owners, checkpoints and lag.",
    "top": "Watch nodes, mappings and shards live.",
    "explain": "Say why a mapping is where it is.",
    "mappings": "List, enable, disable or delete mappings.",
    "seek": "Move a mapping's position.",
    "redrive": "Deliver failed records again.",
    "filter": "Test an event against an EventBridge pattern.",
    "invoke": "Call a function through the front end.",
    "replay": "Deliver a range of records again.",
    "import": "Read the event source mappings of an AWS account.",
    "export": "Write mappings as a CloudFormation template.",
    "schema": "Print the JSON Schema of the configuration, for editors.",
    "openapi": "Print the OpenAPI document of what nodes serve over HTTP.",
}
"""Every command with its line in `esmd --help`, so that showing the help loads none of them."""


class LazyGroup(click.Group):
    """Commands that are modules of `node.commands`, imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands that exist, in the order of the summaries."""
        del ctx
        there = {module.name for module in pkgutil.iter_modules(commands.__path__)}
        return [name for name in SUMMARIES if name in there]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"{commands.__name__}.{cmd_name}")
        command = getattr(module, f"{cmd_name}_command")
        if not isinstance(command, click.Command):
            raise TypeError(f"{module.__name__}.{cmd_name}_command is no click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without loading any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, SUMMARIES[name]) for name in self.list_commands(ctx)])


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's callback
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import version  # noqa: PLC0415 - only this option needs it

    click.echo(f"esmd {version('esmd')}")
    ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show it.")
@click.option("--debug", is_flag=True, envvar="ESMD_DEBUG", help="Show tracebacks, and debug lines in the log.")
@click.pass_context
def esmd(ctx: click.Context, *, debug: bool) -> None:
    """Run event source mappings: Kafka, Kinesis and SQS to functions, as AWS Lambda does it, anywhere."""
    ctx.obj = {"debug": debug}


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with the contract's status."""
    if os.getpid() == 1:
        _heed_sigterm()
    status = run(args)
    for stream in (sys.stdout, sys.stderr):
        _let_go(stream)
    sys.exit(status)


def _heed_sigterm() -> None:
    """Let SIGTERM end process 1 of a container as it ends any other process, until a node listens to it.

    The kernel keeps signals without a handler from process 1. Those of the first second, while a node is loaded, would
    be lost, and the container be killed when its time to stop is over.
    """
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))


def _let_go(stream: TextIO) -> None:
    """Flush, or drop what nobody reads any more: the interpreter would make a status of its own of it (120)."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def run(args: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status, with every error said on standard error."""
    arguments = list(sys.argv[1:] if args is None else args)
    try:
        result = esmd.main(args=arguments, prog_name="esmd", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return ExitStatus.USAGE if isinstance(error, click.UsageError | click.FileError) else ExitStatus.FAILED
    except click.Abort:
        click.echo("esmd: interrupted", err=True)
        return ExitStatus.FAILED
    except BrokenPipeError:
        # Whoever read our output has seen enough. Without this the interpreter would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.FAILED
    except Exception as error:  # noqa: BLE001 - the last supervision point: every error becomes an exit status
        return _end(error, ending_for(error), debug=_debug(arguments))
    return result if isinstance(result, int) else ExitStatus.DONE


def _end(error: BaseException, ending: Ending, *, debug: bool) -> ExitStatus:
    if debug:
        traceback.print_exception(error)
    for line in ending.lines:
        click.echo(line, err=True)
    return ending.status


def _debug(arguments: Sequence[str]) -> bool:
    return "--debug" in arguments or os.environ.get("ESMD_DEBUG", "").lower() in {"1", "true", "yes", "on", "t", "y"}
