"""One keeper and what runs under it, as the node sees them (the other side of `invocation.keeper`)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from invocation.function_errors import Exited, NotStarted, Unstartable
from invocation.keeper import descendants

if TYPE_CHECKING:
    from collections.abc import Callable

    from invocation.isolation import Sandbox

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_END_S = 6.0
"""How long a keeper may take to end everything; a little more than it gives itself."""
_NO_KEEPER = "the sandbox could not be made; the function's log says why"
_STAGES = {"folder": Unstartable.FOLDER, "command": Unstartable.COMMAND, "sandbox": Unstartable.SANDBOX}


class SandboxProcess:
    """Starts the keeper, tells of the runtime's end, and ends both.

    `on_exit` is called once, when the runtime has ended or could not be started. `log_pipe` is where the function's
    output can be read; the caller closes it.
    """

    def __init__(self, *, on_exit: Callable[[Exited | NotStarted], None]) -> None:
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._keeper: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._received = b""
        self._listener: asyncio.Future[socket.socket | None] = self._loop.create_future()
        self._started = False
        self._exited = False

    @property
    def pid(self) -> int | None:
        """The process that all of the sandbox descends from."""
        return self._keeper.pid if self._keeper is not None else None

    async def start(self, sandbox: Sandbox, log_write: int) -> socket.socket | None:
        """Start everything and return the Runtime API's listener; None when `on_exit` told why there is none.

        Raises OSError when the machine has no process or descriptor left.
        """
        ours, theirs = socket.socketpair()
        self._control = ours
        try:
            with theirs:
                self._keeper = await asyncio.create_subprocess_exec(
                    *sandbox.keeper,
                    str(theirs.fileno()),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log_write,
                    stderr=log_write,
                    pass_fds=[theirs.fileno()],
                    env={},  # the node's own holds its secrets
                    cwd="/",
                    start_new_session=True,  # a terminal's Ctrl-C is for the node
                )
            with contextlib.suppress(OSError):  # it ended already, which shows below
                ours.sendall(sandbox.plan.encoded())
            ours.setblocking(False)
            self._loop.add_reader(ours, self._readable)
            return await asyncio.shield(self._listener)
        except asyncio.CancelledError:
            if self._listener.done() and (unused := self._listener.result()) is not None:
                unused.close()
            elif not self._listener.done():
                self._listener.set_result(None)  # one that comes now is closed
            raise

    def ask_end(self) -> None:
        """Have everything in the sandbox killed, without waiting for it. Nothing more is told through `on_exit`."""
        self._exited = True
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.send(b"k")
                self._control.shutdown(socket.SHUT_WR)

    async def end(self) -> None:
        """Have everything killed and wait until it is gone. Safe to call twice, and when never started.

        Cancelled, the keeper goes on by itself: killed, it would leave behind what it has not found yet.
        """
        self.ask_end()
        if self._keeper is not None:
            try:
                async with asyncio.timeout(_END_S):
                    await self._keeper.wait()
            except TimeoutError:
                log.error("sandbox.stuck", pid=self.pid)  # noqa: TRY400 a process hangs in the kernel
                with contextlib.suppress(ProcessLookupError):
                    self._keeper.kill()
        self._close()

    def _readable(self) -> None:
        if self._control is None:
            return
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, 4096, 1)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        for descriptor in descriptors:
            listener = socket.socket(fileno=descriptor)
            if self._listener.done():
                listener.close()
            else:
                listener.setblocking(False)
                self._listener.set_result(listener)
        if not data:
            self._keeper_gone()
            return
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            self._told(msgspec.json.decode(line, type=dict[str, Any]))

    def _told(self, what: dict[str, Any]) -> None:
        if "pid" in what:
            self._started = True
        elif "failed" in what:
            self._ended(NotStarted(_STAGES[what["failed"]], what["why"]))
        elif "exit" in what:
            self._ended(Exited(what["exit"]))

    def _keeper_gone(self) -> None:
        """Take the end of the keeper for that of the runtime, which dies with it."""
        self._ended(Exited(-9) if self._started else NotStarted(Unstartable.SANDBOX, _NO_KEEPER))
        self._close()

    def _ended(self, how: Exited | NotStarted) -> None:
        if not self._exited:
            self._exited = True
            self._on_exit(how)
        if not self._listener.done():
            self._listener.set_result(None)

    def _close(self) -> None:
        if self._control is not None:
            self._loop.remove_reader(self._control)
            self._control.close()
            self._control = None


def memory_of(pid: int, *, own: int = 0) -> int:
    """Return the bytes of memory that the processes under a keeper hold together; what they share counts once.

    The first `own` generations are ours. The cheap figure, which counts shared pages in each process, is right for a
    single process.
    """
    found = descendants(pid)[own:]  # as long as each of ours has one child, they come first
    total = sum(_resident(child) for child in found)
    return total if len(found) <= 1 else min(total, sum(_proportional(child) for child in found))


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/statm") as table:  # noqa: PTH123 small
        return int(table.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    return 0


def _proportional(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/smaps_rollup") as table:  # noqa: PTH123 small
        for line in table:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return _resident(pid)
