"""Child processes of a benchmark: started on the right CPUs, asked what they used, ended by their own process id.

CPU time and memory are the operating system's figures for that one process, taken from outside it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

import psutil

from benchmarks.machine import pin
from tests.support import leash

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ROOT = Path(__file__).parent.parent
_END_S = 20.0
_MB = 1024 * 1024


class BenchmarkFailedError(Exception):
    """A benchmark could not be carried out; the message says why."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used until a moment."""

    at: float  # time.monotonic()
    cpu_s: float

    def since(self, before: Usage) -> Usage:
        """Return the elapsed time as `at`, and the CPU time used in it."""
        return Usage(self.at - before.at, self.cpu_s - before.cpu_s)


class Child:
    """A Python module of this repository as a process of its own, or another program that `command` begins."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        cpus: frozenset[int],
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
        stdout: int | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        self.module = module
        self.log = log
        with contextlib.ExitStack() as files:
            words: IO[bytes] | None = files.enter_context(log.open("wb")) if log is not None else None
            self.process = subprocess.Popen(
                [*(command or [sys.executable, "-P", "-m", module]), *arguments],
                cwd=_ROOT,
                env={**os.environ, "PYTHONPATH": str(_ROOT), **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=words if stdout is None else stdout,
                stderr=words,
                start_new_session=True,
            )
        pin(self.process.pid, cpus)
        leash.hold(self.process)
        self._psutil = psutil.Process(self.process.pid)

    @property
    def pid(self) -> int:
        """The process."""
        return self.process.pid

    def line(self, within_s: float = 30.0) -> str:
        """Return the next line the child prints. Raises `BenchmarkFailedError` when it ends instead."""
        if self.process.stdout is None:
            raise ValueError("start with stdout=subprocess.PIPE")
        deadline = time.monotonic() + within_s
        os.set_blocking(self.process.stdout.fileno(), False)
        read = bytearray()
        while time.monotonic() < deadline:
            part = self.process.stdout.readline()
            if part:
                read += part
                if read.endswith(b"\n"):
                    return read.decode().strip()
            elif self.process.poll() is not None:
                raise BenchmarkFailedError(f"{self.module} ended with {self.process.returncode}{self.last_words()}")
            time.sleep(0.005)
        raise BenchmarkFailedError(f"{self.module} said nothing within {within_s:g} s{self.last_words()}")

    def usage(self) -> Usage:
        """Return what the process used so far. Raises `BenchmarkFailedError` when it is gone."""
        if self.process.poll() is not None:
            raise BenchmarkFailedError(f"{self.module} ended with {self.process.returncode}{self.last_words()}")
        times = self._psutil.cpu_times()
        return Usage(time.monotonic(), times.user + times.system)

    def rss_mb(self) -> float:
        """Return the resident memory now."""
        return float(self._psutil.memory_info().rss) / _MB

    def peak_mb(self) -> float:
        """Return the largest resident memory so far, where the system keeps it; else the present one."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) / 1024
        return self.rss_mb()

    def finish(self, within_s: float) -> None:
        """Wait until it has ended by itself. Raises `BenchmarkFailedError` when it failed, or takes longer."""
        try:
            code = self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise BenchmarkFailedError(f"{self.module} has not ended after {within_s:g} s{self.last_words()}") from None
        if code:
            raise BenchmarkFailedError(f"{self.module} ended with {code}{self.last_words()}")

    def end(self, how: signal.Signals = signal.SIGTERM, *, within_s: float = _END_S) -> None:
        """Send a signal and wait; kill what does not end in time. Safe twice."""
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(within_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def last_words(self) -> str:
        """Return the end of its log, to put after a message."""
        if self.log is None or not self.log.exists():
            return ""
        lines = self.log.read_text(errors="replace").splitlines()[-15:]
        return ":\n" + "\n".join(lines)
