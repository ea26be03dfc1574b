"""The private Redis server: starting, keeping data, and never staying behind."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import redis

from model.errors import RefusedError, UnavailableError
from node import embedded_redis
from node.embedded_redis import EmbeddedRedis, find_redis_server

_PARENT = """
import sys, time
from pathlib import Path
from node.embedded_redis import EmbeddedRedis
server = EmbeddedRedis(Path(sys.argv[1]), watch=sys.argv[2])
server.start()
print(server.pid, flush=True)
time.sleep(600)
"""


def ask(server: EmbeddedRedis, *command: str) -> object:
    """Run one command on a connection of its own."""
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        return client.execute_command(*command)


def test_data_and_address_survive_a_restart(tmp_path: Path) -> None:
    """An orderly restart keeps everything, under the same URL."""
    with EmbeddedRedis(tmp_path, port=0) as server:
        url = server.url
        ask(server, "SET", "a", "1")
        server.restart()
        assert server.url == url
        assert ask(server, "GET", "a") == "1"
    assert server.pid is None


def test_data_survive_a_crash(tmp_path: Path) -> None:
    """What was synced to the append-only file is there after a kill."""
    with EmbeddedRedis(tmp_path, settings={"appendfsync": "always"}) as server:
        ask(server, "SET", "a", "1")
        server.kill()
        assert server.pid is None
        server.restart()
        assert ask(server, "GET", "a") == "1"


async def test_the_server_is_private_and_goes_away() -> None:
    """Without a port it listens on a socket that only its user can open; its temporary files end with it."""
    async with EmbeddedRedis() as server:
        path = Path(server.url.removeprefix("unix://").partition("?")[0])
        assert path.stat().st_mode & 0o077 == 0  # noqa: ASYNC240 - one local look, nothing else runs
        assert server.pid is not None
        assert [c for c in psutil.Process(server.pid).net_connections("inet") if c.status == psutil.CONN_LISTEN] == []
    assert not path.parent.exists()


@pytest.mark.parametrize("watch", ["kernel", "pipe"])
def test_the_server_ends_with_a_killed_parent(tmp_path: Path, watch: str) -> None:
    """When its parent is killed with SIGKILL, the server ends by itself, and its data can be opened again."""
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(tmp_path), watch], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    assert psutil.wait_procs([child], timeout=20)[1] == []
    with EmbeddedRedis(tmp_path) as server:
        assert ask(server, "PING") is True


def test_two_servers_do_not_share_files(tmp_path: Path) -> None:
    """A second server on the same directory is refused while the first runs."""
    with EmbeddedRedis(tmp_path), pytest.raises(UnavailableError, match="in use"):
        EmbeddedRedis(tmp_path, start_s=0.2).start()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The error carries the end of the server's log, and nothing keeps running."""
    (tmp_path / "appendonly.aof").write_bytes(b"*garbage\r\n")
    (tmp_path / "appendonlydir").write_bytes(b"in the way of newer servers")
    server = EmbeddedRedis(tmp_path)
    with pytest.raises(UnavailableError, match="ended with status"):
        server.start()
    assert server.pid is None


def test_a_refused_setting_is_named(tmp_path: Path) -> None:
    """A setting that the server does not know is in the error."""
    with pytest.raises(UnavailableError, match="no-such-setting"):
        EmbeddedRedis(tmp_path, settings={"no-such-setting": "1"}).start()


async def test_cancelling_the_start_leaves_nothing(tmp_path: Path) -> None:
    """A start that is cancelled while waiting kills the server it began."""
    with EmbeddedRedis(tmp_path):
        pass
    server = EmbeddedRedis(tmp_path)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.005):
            await server.__aenter__()
    assert server.pid is None


def test_a_very_long_directory_name_still_works(tmp_path: Path) -> None:
    """The socket moves elsewhere when its path would exceed the kernel's limit."""
    with EmbeddedRedis(tmp_path / ("x" * 120)) as server:
        assert ask(server, "PING") is True


def test_stopping_twice_or_unstarted_is_fine() -> None:
    """Stop never complains."""
    server = EmbeddedRedis()
    server.stop()
    server.start()
    server.stop()
    server.stop()


def test_a_hanging_server_is_killed_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not react to SIGTERM does not keep its parent from stopping."""
    monkeypatch.setattr(embedded_redis, "_STOP_S", 0.1)
    server = EmbeddedRedis()
    server.start()
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    server.stop()
    assert not psutil.pid_exists(pid)


def test_a_machine_without_any_server_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the remedy; a server that is too old does not count."""
    monkeypatch.setattr(shutil, "which", "/opt/{}".format)
    monkeypatch.setattr(embedded_redis, "_version", lambda binary: (6, 0) if binary.startswith("/opt") else None)
    monkeypatch.setattr(importlib.util, "find_spec", {}.get)
    with pytest.raises(RefusedError, match=r"older than 6\.2.*pip install"):
        find_redis_server()
