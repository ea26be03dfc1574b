"""`esmd` as process 1 of a container, which the kernel spares the signals that nobody handles."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from pathlib import Path

AS_FIRST = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    """Skip where a process of its own process namespace cannot be had: other systems, and most containers."""
    try:
        subprocess.run([*AS_FIRST, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no process namespaces: {error}")


def test_a_stop_while_a_node_is_loaded_is_not_lost(tmp_path: Path) -> None:
    """SIGTERM that comes before a node listens to signals ends process 1 as it ends any other."""
    config = tmp_path / "esmd.yaml"
    os.mkfifo(config)
    command = [*AS_FIRST, sys.executable, "-P", "-m", "node", "run", str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as unshare:
        try:
            with config.open("w"):  # opens once the node has begun to read its configuration
                [first] = psutil.Process(unshare.pid).children()
                first.send_signal(signal.SIGTERM)
                assert unshare.wait(timeout=30) == 128 + signal.SIGTERM
            assert unshare.stderr is not None
            assert unshare.stderr.read() == ""
        finally:
            unshare.kill()  # and with it the node, if the signal was lost
