"""One server as a child process: started with its words in a log, awaited until it serves, ended by its process id.

It never outlives this process (`tests.support.leash`) and ignores this process's terminal: its end is decided here.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from tests.support import leash
from tests.support.servers import ServerFailedError, last_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_READY_S = 60.0
_STOP_S = 20.0


class ServerProcess:
    """A server that keeps its data in `home`, a directory that goes away when nobody is left to remove it."""

    def __init__(self, name: str, home: Path) -> None:
        self._name = name
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The running server's process."""
        assert self._process is not None, f"{self._name} is not running"
        return self._process.pid

    def start(
        self,
        command: Sequence[str],
        *,
        serves: Callable[[], bool],
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Start the server and wait until `serves` says so. Raises `ServerFailedError`; then it is ended."""
        assert self._process is None, f"{self._name} was started twice"
        log = self._home / "server.log"
        with log.open("wb") as words:
            process = self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                start_new_session=True,
            )
        try:
            leash.hold(process, remove=self._home)
            self._wait(process, log, serves)
        except BaseException:
            self.end(signal.SIGKILL)
            raise

    def _wait(self, process: subprocess.Popen[bytes], log: Path, serves: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _READY_S
        while not serves():
            if process.poll() is not None:
                raise ServerFailedError(f"{self._name} ended with {process.returncode}:\n{last_lines(log)}")
            if time.monotonic() > deadline:
                raise ServerFailedError(f"{self._name} did not serve within {_READY_S:.0f} s:\n{last_lines(log)}")
            time.sleep(0.05)

    def end(self, how: signal.Signals) -> None:
        """Send a signal and wait until the process is gone, killing it if it takes too long. Safe twice."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)  # a test may have stopped it
        process.send_signal(how)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_S)
