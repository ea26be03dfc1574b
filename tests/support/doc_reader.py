"""Follows a page as its reader does: in a folder of its own, in one shell from beginning to end.

    with Reader(folder, page.read_text(), environment) as reader:
        reader.follow()

Addresses of this machine are others than those of the page (`127.0.0.1:9001` is a free port here), so that nothing is
in the way. A command that only looks is typed again until it shows what the page shows, as a reader would.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil

from tests.support import aws_cli, leash
from tests.support.doc_pages import Command, File, Left, matches, steps
from tests.support.servers import free_ports

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LIMIT_S = 90.0  # generous: reached by a defect only
_LOOK_S = 0.1
_LOOKS = ("cat", "grep", "tail", "curl", "esmd status", "esmd explain", "esmd mappings list", "esmd mappings get")
_ADDRESS = re.compile(r"\b127\.0\.0\.1:(\d{4,5})\b")
_OURS = "127.0.0.1:9001"
_BIN = Path(sys.executable).parent
_RUN = """#!/bin/sh
case "$1 $*" in
  "run "*--listen*) ;;
  "run "*) shift; set -- run --listen {address} "$@" ;;
esac
exec {python} -m node "$@"
"""


class ReaderError(AssertionError):
    """The page does not do what it says."""


class Reader:
    """One page, one folder, one shell."""

    def __init__(
        self, folder: Path, text: str, environment: Mapping[str, str], *, ports: Mapping[int, int] | None = None
    ) -> None:
        """`ports`: where what the page has at a port of this machine is here."""
        self._home = folder / "home"
        self._work = folder / "work"
        self._notes = folder / "notes"
        self._ports = dict(ports or {})
        self._text = self._moved(text)
        self._steps = list(steps(self._text, lambda program: shutil.which(program) is not None))
        self._environment = environment
        self._shell: subprocess.Popen[bytes] | None = None
        self._typed = 0
        self.left: list[Left] = []
        """What was not followed."""

    @property
    def work(self) -> Path:
        """The folder that commands are typed in."""
        return self._work

    def _moved(self, text: str) -> str:
        wanted = sorted({int(port) for port in _ADDRESS.findall(text)} | {9001})
        missing = [port for port in wanted if port not in self._ports]
        self._ports.update(zip(missing, free_ports(len(missing)), strict=True))
        return _ADDRESS.sub(lambda found: f"127.0.0.1:{self._ports[int(found[1])]}", text)

    def __enter__(self) -> Self:
        for folder in (self._home, self._work, self._notes, self._home / "bin"):
            folder.mkdir()
        program = self._home / "bin" / "esmd"
        ours = self._moved(_OURS)
        program.write_text(_RUN.format(address=ours, python=shlex.quote(sys.executable)))
        program.chmod(0o755)
        places = [str(program.parent), str(_BIN), str(aws_cli.FOLDER), os.environ.get("PATH", "")]
        root = str(Path(__file__).parents[2])
        kept = {
            name: value for name, value in os.environ.items() if name in ("LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE")
        }
        self._shell = subprocess.Popen(
            ["bash", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._work,
            env={
                **kept,
                "HOME": str(self._home),
                "PATH": os.pathsep.join(places),
                "PYTHONPATH": root,
                "ESMD_URL": f"http://{ours}",
                "COLUMNS": "160",
                "AWS_CONFIG_FILE": str(self._home / "none"),
                "AWS_SHARED_CREDENTIALS_FILE": str(self._home / "none"),
                "AWS_EC2_METADATA_DISABLED": "true",
                **self._environment,
            },
            start_new_session=True,
        )
        leash.hold(self._shell)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._shell is not None
        left: Sequence[psutil.Process] = ()
        if self._shell.poll() is None:
            left = psutil.Process(self._shell.pid).children(recursive=True)
        self._shell.kill()
        self._shell.communicate()
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        for late in psutil.wait_procs(left, timeout=15)[1]:
            late.kill()

    def follow(self) -> None:
        """Do everything, in order. Raises `ReaderError` at the first thing that is not as the page says."""
        for step in self._steps:
            match step:
                case File():
                    path = self._work / step.name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(step.text)
                case Command():
                    self._obey(step)
                case Left():
                    self.left.append(step)

    def _obey(self, command: Command) -> None:
        looks = command.text.startswith(_LOOKS) and "--data" not in command.text and bool(command.expected)
        deadline = time.monotonic() + _LIMIT_S
        while True:
            status, printed = self._type(command)
            fits = status == command.status and matches(command.expected, printed)
            if fits:
                return
            if not looks or time.monotonic() > deadline:
                wanted = "\n".join(command.expected)
                raise ReaderError(
                    f"line {command.line}: $ {command.text}\nended with {status}, not {command.status}, and printed\n"
                    f"{printed}\nwhere the page has\n{wanted}\n{self._logs()}"
                )
            time.sleep(_LOOK_S)

    def _type(self, command: Command) -> tuple[int, str]:
        """Run a command in the shell; return its status and what it printed."""
        assert self._shell is not None
        assert self._shell.stdin is not None
        self._typed += 1
        script, words, end = (self._notes / f"{self._typed}.{what}" for what in ("sh", "out", "end"))
        script.write_text(command.text + "\n")
        said = f". {script} >{words} 2>&1 </dev/null; echo $? >{end}.new; mv {end}.new {end}\n"
        self._shell.stdin.write(said.encode())
        self._shell.stdin.flush()
        deadline = time.monotonic() + _LIMIT_S
        while not end.exists():
            if time.monotonic() > deadline or self._shell.poll() is not None:
                so_far = words.read_text(errors="replace") if words.exists() else ""
                raise ReaderError(
                    f"line {command.line}: $ {command.text}\ndid not end, and printed\n{so_far}\n{self._logs()}"
                )
            time.sleep(0.01)
        return int(end.read_text()), words.read_text(errors="replace")

    def _logs(self) -> str:
        logs = sorted(self._work.glob("*.log"))
        return "\n".join(
            f"{log.name}:\n{chr(10).join(log.read_text(errors='replace').splitlines()[-15:])}" for log in logs
        )
