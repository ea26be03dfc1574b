"""Kinesis, SQS, SNS and S3 for a laptop, the demo and tests: moto's server, in a process of its own.

`EmbeddedAws` starts it as a child (`python -m node.embedded_aws`) and ends it. The address is there at once: the child
listens before it loads moto, which takes a third of a second, and whoever calls meanwhile waits that long. It also ends
by itself when its parent is gone, however that died, as `node.embedded_kafka` does.

What differs from AWS (moto 5.2):

- Any credentials will do (`invocation.signing.LocalSigner` makes signatures without any). Nothing is on disk.
- Sequence numbers are 1, 2, 3… in each shard. A shard that was split or merged away never ends for its readers, and
  its records move to its children. No limits, no enhanced fan-out.
- `node.embedded_aws_calls` stands in front of it: calls of Kinesis and of SQS are not atomic in moto, so they are made
  one at a time. A shard keeps its last `SHARD_RECORDS` records, so that memory and time per call stay bounded. Older
  ones are dropped read or not, and nobody is told.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import logging
import os
import select
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from model.errors import RefusedError, UnavailableError
from node import children
from node.embedded_aws_calls import OneAtATime

if TYPE_CHECKING:
    from collections.abc import Iterable

LONG_POLL_S = 1
"""How long pollers wait for messages of the embedded SQS. Asking again costs nothing there, ending late is seen."""

_START_S = 15.0
_WATCH_S = 1.0  # how often the child looks whether its parent still lives
_BACKLOG = 128
_NEEDED = ("moto", "flask", "flask_cors", "werkzeug")  # what moto[server] brings


class EmbeddedAws:
    """The services' process. Use it as an async context manager, or `start` and `stop` it.

    `account_id` is the one in the ARNs. Stopping is safe twice, and safe when never started.
    """

    def __init__(self, *, account_id: str = "000000000000") -> None:
        self._account_id = account_id
        self._process: asyncio.subprocess.Process | None = None
        self._endpoint_url: str | None = None

    @property
    def endpoint_url(self) -> str:
        """Where all services are."""
        if self._endpoint_url is None:
            raise UnavailableError("the embedded AWS services are not running")
        return self._endpoint_url

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Start the services. Raises `RefusedError` (moto is not installed) or `UnavailableError`."""
        if self._process is not None:
            raise RefusedError("the embedded AWS services were started twice")
        # Profiles and keys are for AWS; a broken one must not keep this server from starting.
        environment = {name: value for name, value in children.environment().items() if not name.startswith("AWS_")}
        try:
            self._process = await children.start(
                "node.embedded_aws", env=environment | {"MOTO_ACCOUNT_ID": self._account_id}
            )
            async with asyncio.timeout(_START_S):
                self._endpoint_url = await self._address(self._process)
        except BaseException as exc:
            await self.stop()
            if isinstance(exc, TimeoutError):
                raise UnavailableError(f"the embedded AWS services did not start within {_START_S:g} s") from exc
            raise

    async def stop(self) -> None:
        """End the process and wait until it is gone."""
        process, self._process, self._endpoint_url = self._process, None, None
        if process is not None:
            await children.end(process)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _address(self, process: asyncio.subprocess.Process) -> str:
        line = await process.stdout.readline() if process.stdout is not None else b""
        if not line:
            raise UnavailableError("the embedded AWS services have ended")
        answer = json.loads(line)
        if "refused" in answer:
            raise RefusedError(f"the embedded AWS services: {answer['refused']}")
        return str(answer["endpoint_url"])


def load(listening: socket.socket) -> Any:
    """Load moto and give it the socket; returns a server. For the child, which has nothing else to do."""
    from moto.kinesis.models import kinesis_backends  # noqa: PLC0415  # an optional dependency, and only the child needs it
    from moto.moto_server import werkzeug_app as moto  # noqa: PLC0415  # as above
    from werkzeug.serving import make_server  # noqa: PLC0415  # as above

    def shards() -> Iterable[Any]:
        for account in list(kinesis_backends.values()):
            for backend in list(account.values()):
                for stream in backend.streams.values():
                    yield from stream.shards.values()

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    app = OneAtATime(moto.DomainDispatcherApplication(moto.create_backend_app), shards)
    host, port = listening.getsockname()
    return make_server(host, port, app, threaded=True, request_handler=moto.MotoRequestHandler, fd=listening.fileno())


def _serve(listening: socket.socket) -> None:
    try:
        server = load(listening)
    except BaseException:  # noqa: BLE001  # a thread that fails would leave callers waiting for nothing
        traceback.print_exc()
        os._exit(1)
    _silence(sys.stderr)  # the parent's screen
    server.serve_forever()


def _run(parent: int) -> int:
    """Serve until the parent closes its end or is gone."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        _answer({"refused": f"No module named {missing[0]!r}; install esmd[embedded]"})
        return 1
    with socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG) as listening:
        port = listening.getsockname()[1]
        _answer({"endpoint_url": f"http://127.0.0.1:{port}"})
        _silence(sys.stdout)  # moto prints, and nobody reads
        threading.Thread(target=_serve, args=(listening,), daemon=True).start()
        while os.getppid() == parent:
            if select.select([sys.stdin], [], [], _WATCH_S)[0] and not os.read(sys.stdin.fileno(), 4096):
                break
    return 0


def _answer(document: dict[str, str]) -> None:
    sys.stdout.buffer.write(json.dumps(document).encode() + b"\n")
    sys.stdout.buffer.flush()


def _silence(stream: IO[str]) -> None:
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def main() -> None:
    """Run the child: its first line on standard output says where it is."""
    parser = argparse.ArgumentParser(description="esmd's embedded AWS services; end with their standard input.")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="end when this is no longer the parent")
    status = 1
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        status = _run(parser.parse_args().parent)
    os._exit(status)  # calls that are being served have nobody to answer any more


if __name__ == "__main__":
    main()
