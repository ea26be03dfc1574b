"""Opens connections to targets: names, addresses, TLS. Servers prove who they are, always."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from aiohappyeyeballs import start_connection

from invocation.classify import Failure, FailureKind
from invocation.connection import RECEIVED_BYTES, Connection, tls_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiohappyeyeballs import AddrInfoType

CONNECT_TIMEOUT_S = 10.0
_NAMES_KEPT_S = 30.0
_SECOND_FAMILY_S = 0.25  # RFC 8305: the pause before the next address is tried beside the first


class Origin(NamedTuple):
    """Where a connection leads."""

    host: str
    port: int
    tls: bool


class Dialler:
    """Makes connections. `gone` is told of each that has ended."""

    def __init__(
        self,
        gone: Callable[[Connection], None],
        ssl_context: ssl.SSLContext | None = None,
        *,
        connect_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        self._gone = gone
        self._connect_s = connect_s
        self._ssl_context = ssl_context
        self._received = memoryview(bytearray(RECEIVED_BYTES))
        self._names: dict[Origin, tuple[float, Sequence[AddrInfoType]]] = {}

    async def dial(self, origin: Origin) -> Connection | Failure:
        """Return a new connection. Raises nothing but CancelledError."""
        sock: socket.socket | None = None
        try:
            async with asyncio.timeout(self._connect_s):
                loop = asyncio.get_running_loop()
                found = await self._addresses(origin)
                sock = await start_connection(found, happy_eyeballs_delay=_SECOND_FAMILY_S, loop=loop)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                _, connection = await loop.create_connection(
                    partial(Connection, self._gone, self._received),
                    sock=sock,
                    ssl=self._context() if origin.tls else None,
                    server_hostname=origin.host if origin.tls else None,
                )
                sock = None
                return connection
        except ssl.SSLError as exc:
            return tls_failure(exc)
        except OSError as exc:  # also every time-out
            return _failure(exc)
        except RuntimeError:  # uvloop's word for some failed connections, passed on by aiohappyeyeballs
            return Failure(FailureKind.REFUSED)
        finally:
            if sock is not None:
                sock.close()

    async def _addresses(self, origin: Origin) -> Sequence[AddrInfoType]:
        """Return the addresses of a host, as looked up lately."""
        try:
            flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
            return socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM, flags=flags)
        except socket.gaierror:  # it is a name
            pass
        loop = asyncio.get_running_loop()
        until, found = self._names.get(origin, (0.0, ()))
        if loop.time() >= until:
            found = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
            self._names[origin] = (loop.time() + _NAMES_KEPT_S, found)
        return found

    def _context(self) -> ssl.SSLContext:
        if self._ssl_context is None:
            self._ssl_context = ssl.create_default_context()
            self._ssl_context.set_alpn_protocols(["http/1.1"])
        return self._ssl_context


def _failure(exc: OSError) -> Failure:
    """Say it in the system's constant words."""
    if isinstance(exc, socket.gaierror):
        return Failure(FailureKind.UNRESOLVED)
    if isinstance(exc, TimeoutError):
        return Failure(FailureKind.CONNECT_TIMEOUT)
    known = not isinstance(exc, ConnectionRefusedError) and exc.errno is not None and exc.errno > 0
    return Failure(FailureKind.REFUSED, os.strerror(exc.errno) if known and exc.errno is not None else "")
