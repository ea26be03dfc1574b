"""The command line: what is loaded, and what errors end with."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import click
import pytest

from model.errors import ConflictError, SourceRefusedError, StoreUnavailableError
from model.problem import InvalidConfigurationError, Problem
from node import cli
from node.exits import ExitStatus, ending_for
from node.startup import NotReachedInTimeError

HEAVY = {"aiohttp", "aiokafka", "aioboto3", "botocore", "redis", "uvloop", "asyncio", "prometheus_client", "structlog"}


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """Give the group a command `fail` that raises what is put into the list."""
    errors: list[BaseException] = []

    @click.command("fail")
    def fail() -> None:
        raise errors[0]

    monkeypatch.setitem(cli.esmd.commands, "fail", fail)
    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda self, _ctx, name: self.commands.get(name))
    monkeypatch.delenv("ESMD_DEBUG", raising=False)
    return errors


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidConfigurationError([Problem("listen", "is no address")]), 2),
        (NotReachedInTimeError("Redis could not be reached"), 3),
        (StoreUnavailableError("Redis is away"), 3),
        (SourceRefusedError("no such topic"), 1),
        (ConflictError("the name is taken"), 1),
        (FileNotFoundError(2, "No such file", "x.yaml"), 1),
        (KeyError("x"), 1),
    ],
)
def test_each_error_ends_with_its_status_and_without_traceback(
    error: BaseException,
    status: int,
    failing: list[BaseException],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A command that raises ends with the contract's status and one line on standard error."""
    failing.append(error)
    assert cli.run(["fail"]) == status
    output = capsys.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1
    assert "Traceback" not in output.err


def test_every_problem_of_a_configuration_is_said(
    failing: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    """All problems are listed with their places, one a line."""
    failing.append(InvalidConfigurationError([Problem("listen", "bad", "a.yaml", 3), Problem("redis", "worse")]))
    assert cli.run(["fail"]) == 2
    assert capsys.readouterr().err.splitlines() == ["a.yaml:3: listen: bad", "redis: worse"]


def test_a_defect_shows_where_only_when_asked(
    failing: list[BaseException], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unexpected error's traceback comes with --debug or ESMD_DEBUG."""
    failing.append(ZeroDivisionError("oops"))
    assert cli.run(["fail"]) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert cli.run(["--debug", "fail"]) == 1
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("ESMD_DEBUG", "1")
    assert cli.run(["fail"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_of_several_errors_the_most_telling_one_counts() -> None:
    """A defect inside an exception group hides behind nothing, and bad configuration behind nothing but a defect."""
    away, bad = StoreUnavailableError("away"), InvalidConfigurationError([Problem("a", "b")])
    assert ending_for(ExceptionGroup("", [away, ExceptionGroup("", [bad])])).status is ExitStatus.USAGE
    assert not ending_for(ExceptionGroup("", [away, KeyError("x")])).expected
    assert ending_for(ExceptionGroup("", [away])).status is ExitStatus.UNREACHABLE


@pytest.mark.parametrize(
    "arguments", [["nope"], ["run"], ["run", "--processes", "0", "x"], ["run", "--role", "a", "x"]]
)
def test_bad_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Unknown commands, missing arguments and values out of range are bad usage."""
    assert cli.run(arguments) == 2
    assert "Usage: esmd" in capsys.readouterr().err


def test_every_command_there_is_can_be_loaded_and_has_a_summary() -> None:
    """The help lists exactly the command modules, and each exports its command."""
    context = click.Context(cli.esmd)
    names = cli.esmd.list_commands(context)
    assert {"run", "status"} <= set(names)
    for name in names:
        command = cli.esmd.get_command(context, name)
        assert command is not None
        assert command.name == name


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """--version prints the installed version on standard output."""
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"esmd {version('esmd')}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["status", "--help"], ["run", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    """Showing help, and commands that only talk to a node, do not pay for the daemon's libraries."""
    code = (
        "import sys; from node.cli import run\n"
        f"status = run({arguments!r})\n"
        f"heavy = sorted({HEAVY!r} & set(sys.modules))\n"
        "sys.exit(str(heavy) if heavy else status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: esmd" in done.stdout


def test_the_module_is_the_command() -> None:
    """`python -m node` is `esmd`."""
    done = subprocess.run([sys.executable, "-m", "node", "--version"], capture_output=True, text=True, check=False)
    assert done.stdout == f"esmd {version('esmd')}\n"


def test_a_reader_that_has_seen_enough_is_no_error_of_ours() -> None:
    """Output into a closed pipe ends quietly."""
    code = (
        "import os, sys; from node import cli\n"
        "r, w = os.pipe(); os.close(r); os.dup2(w, 1)\n"
        "sys.exit(cli.run(['--help']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
