"""A server of the Redis family that `EmbeddedRedis` does not cover: a sentinel."""

from __future__ import annotations

import socket
import subprocess
import time
from typing import Self


def free_port() -> int:
    """Return a loopback port that nobody uses right now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class RedisProcess:
    """A child that is ready when its port accepts connections, and is killed at the end."""

    def __init__(self, command: list[str], port: int) -> None:
        self._command = command
        self._port = port

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 15
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    self.__exit__()
                    raise
                time.sleep(0.02)
            else:
                return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
