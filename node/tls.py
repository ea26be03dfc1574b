"""TLS for the HTTP surface. Certificate and key are files, which may be replaced while the node runs."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

import structlog

from model.errors import RefusedError

if TYPE_CHECKING:
    from pathlib import Path

    from config.settings import TlsSettings

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_AGAIN_S = 60.0

_Stamp = tuple[tuple[int, int, int], ...]


class ServerTls:
    """The context that connections are accepted with. Raises `RefusedError` where the files cannot be used."""

    def __init__(self, settings: TlsSettings) -> None:
        self._files = (settings.certificate, settings.key)
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._loaded: _Stamp = ()
        self._load()

    async def run(self) -> None:
        """Take up new files every minute until cancelled. Where they cannot be used, the last ones stand."""
        while True:
            await asyncio.sleep(_AGAIN_S)
            try:
                if await asyncio.to_thread(self._load):
                    log.info("tls.certificate_replaced", certificate=str(self._files[0]))
            except RefusedError as exc:
                log.warning("tls.not_read", error=str(exc), why="the certificate read before stands")

    def _load(self) -> bool:
        """Read the files if they have changed; tell whether they have."""
        certificate, key = self._files
        try:
            stamp = tuple(map(_stamp, self._files))
            if stamp == self._loaded:
                return False
            # First into another context: a certificate without its key would leave this one with half of it.
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
            self.context.load_cert_chain(certificate, key)
        except OSError as exc:  # SSLError is one
            why = exc.strerror or str(exc)
            raise RefusedError(f"tls: certificate {certificate} with key {key}: {why}") from exc
        self._loaded = stamp
        return True


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_ino, found.st_size
