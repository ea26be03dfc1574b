"""One server as a child process: started with its words in a log, awaited until it serves, ended by its process id.

It never outlives this process (`tests.support.leash`) and ignores this process's terminal: its end is decided here.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.support import leash
from tests.support.servers import ServerFailedError, free_ports, last_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_READY_S = 60.0
_STOP_S = 20.0


class LocalServer(ABC):
    """A server on this machine as a context manager. `kill` and `start` lose what is in it but keep its address."""

    def __init__(self, name: str, *, ports: int = 1) -> None:
        self._name = name
        self._count = ports
        self._ports: list[int] = []
        self._home: Path | None = None
        self._process: ServerProcess | None = None

    @property
    def port(self) -> int:
        """Where it serves."""
        return self._ports[0]

    @property
    def endpoint_url(self) -> str:
        """What AWS's clients take as `endpoint_url`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The running server's process."""
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it serves. Raises `ServerUnavailableError`, `ServerFailedError`."""
        if self._home is not None and self._process is not None:
            self._run(self._process, self._home)
            return
        self._home = Path(tempfile.mkdtemp(prefix=f"esmd-{self._name}-"))
        self._process = ServerProcess(self._name, self._home)
        self._ports = free_ports(self._count)
        try:
            self._run(self._process, self._home)
        except BaseException:
            self.stop()
            raise

    @abstractmethod
    def _run(self, process: ServerProcess, home: Path) -> None:
        """Start the process, with what it needs in its home."""

    def kill(self) -> None:
        """End the server at once, keeping its address for `start`."""
        if self._process is not None:
            self._process.end(signal.SIGKILL)

    def stop(self) -> None:
        """End the server and remove its files."""
        self.kill()
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
        self._home = self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


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
