"""Nothing outlives the test run: a watcher process that ends servers when the process that started them is gone.

`hold(process, remove=…)` for each server; after a `kill -9` of this process the watcher kills what is still held, by
process id and birth time, and removes the directories. A server stopped in the ordinary way needs no `release`: its
process id no longer has that birth time. The watcher itself ends with its standard input.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import psutil

_WATCH_S = 1.0


@dataclass(frozen=True, slots=True)
class _Held:
    pid: int
    born: float
    remove: str | None


class _Watcher:
    """This process's end of the pipe to its one watcher, started when first needed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def hold(self, held: _Held) -> None:
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", str(Path(__file__).resolve()), str(os.getpid())],
                    stdin=subprocess.PIPE,
                    start_new_session=True,
                )
            assert self._process.stdin is not None
            line = {"pid": held.pid, "born": held.born, "remove": held.remove}
            self._process.stdin.write(json.dumps(line).encode() + b"\n")
            self._process.stdin.flush()

    def close(self) -> None:
        """End the watcher, and whatever is still held. Also happens by itself when this process ends."""
        with self._lock:
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.close()
                self._process.wait()
            self._process = None


_watcher = _Watcher()


def hold(process: subprocess.Popen[bytes], *, remove: Path | None = None) -> None:
    """End `process` and remove a directory when this process is gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        born = psutil.Process(process.pid).create_time()
        _watcher.hold(_Held(process.pid, born, str(remove) if remove else None))


def close() -> None:
    """End everything that is held, and the watcher; wait for it."""
    _watcher.close()


def _end(held: list[_Held]) -> None:
    for one in held:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(one.pid)
            if process.create_time() == one.born:
                process.kill()
                process.wait(10)
        if one.remove:
            shutil.rmtree(one.remove, ignore_errors=True)


def _watch(parent: int) -> None:
    held: list[_Held] = []
    pending = b""
    while os.getppid() == parent:
        if not select.select([sys.stdin], [], [], _WATCH_S)[0]:
            continue
        read = os.read(sys.stdin.fileno(), 65536)
        if not read:
            break
        *lines, pending = (pending + read).split(b"\n")
        held += [_Held(**json.loads(line)) for line in lines]
    _end(held)


if __name__ == "__main__":
    _watch(int(sys.argv[1]))
