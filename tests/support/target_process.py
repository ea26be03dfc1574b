"""`tests.support.recording_target` as a child process, for tests that run nodes against it."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Self

import msgspec

from tests.support import leash
from tests.support.history import OK, Invoked
from tests.support.node_process import ROOT, eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_STOP_S = 20.0


class TargetProcess:
    """The function. `options` are those of the program, such as `"--fail", "0.1"`."""

    def __init__(self, log: Path, *options: str) -> None:
        self.log = log
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: list[Invoked] = []
        self._read_to = 0
        self._delivered = 0
        self._decoder = msgspec.json.Decoder(Invoked)
        self.url = ""

    def start(self, port: int = 0) -> None:
        """Start it and wait until it listens."""
        command = [sys.executable, "-m", "tests.support.recording_target", "--port", str(port)]
        self._process = subprocess.Popen(
            [*command, "--log", str(self.log), *self._options], stdout=subprocess.PIPE, cwd=ROOT, start_new_session=True
        )
        leash.hold(self._process)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().decode().strip()
        assert self.url, "the target did not start"

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    def stop(self) -> None:
        """End it; connections are refused from then on. Safe twice."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(_STOP_S)
        assert process.stdout is not None
        process.stdout.close()

    def freeze(self) -> None:
        """Let it accept connections and answer nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def mend(self) -> None:
        """Let it take poison records too."""
        assert self._process is not None
        self._process.send_signal(signal.SIGUSR1)

    def refuse(self) -> None:
        """Let it refuse everything; called again, go on as before."""
        assert self._process is not None
        self._process.send_signal(signal.SIGUSR2)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def invoked(self) -> list[Invoked]:
        """Return the invocations so far. The list grows with the next call."""
        if not self.log.exists():
            return self._lines
        with self.log.open("rb") as words:
            words.seek(self._read_to)
            new = words.read()
        complete = new[: new.rfind(b"\n") + 1]
        self._read_to += len(complete)
        for line in complete.splitlines():
            invoked = self._decoder.decode(line)
            self._lines.append(invoked)
            self._delivered += len(invoked.records) if invoked.outcome == OK else 0
        return self._lines

    def delivered(self) -> int:
        """Count the records of successful invocations, repeats included."""
        self.invoked()
        return self._delivered

    async def reached(
        self, records: int, *, limit_s: float = 120.0, meanwhile: Callable[[], object] | None = None
    ) -> None:
        """Wait until so many records were delivered."""

        def enough() -> bool:
            if meanwhile is not None:
                meanwhile()
            return self.delivered() >= records

        await eventually(enough, f"{records} records delivered", limit_s=limit_s)
