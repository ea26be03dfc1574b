"""moto's Kinesis, a second opinion on AWS's behaviour, inside the test's process."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from moto.server import ThreadedMotoServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def moto_kinesis() -> Iterator[str]:
    """Serve on a free port for the length of the block."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()
