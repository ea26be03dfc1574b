"""HTTPS on `listen`: served with the configured certificate, replaced while the node runs."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from config.settings import TlsSettings
from model.errors import RefusedError
from node.options import ListenAddress
from node.serve import serving
from node.tls import ServerTls
from tests.support.certificates import CertificateAuthority

if TYPE_CHECKING:
    from pathlib import Path

OLD, NEW = CertificateAuthority(), CertificateAuthority()


def written(authority: CertificateAuthority, folder: Path) -> TlsSettings:
    """Write a server's certificate and key; they are in one file, as many tools have them."""
    path = authority.issue("server").write(folder / "server.pem")
    return TlsSettings(path, path)


async def answers(address: ListenAddress, authority: CertificateAuthority) -> bool:
    """Whether the server proves itself to who trusts an authority."""
    trusting = ssl.create_default_context(cadata=authority.certificate_pem)
    async with aiohttp.ClientSession() as client:
        try:
            async with client.get(f"https://{address}/", ssl=trusting) as answer:
                return answer.status == 200
        except aiohttp.ClientConnectorCertificateError:
            return False


async def test_a_certificate_is_served_and_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New connections get the new one; broken files change nothing and are told."""
    monkeypatch.setattr("node.tls._AGAIN_S", 0.01)

    async def hello(_request: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app.add_routes([web.get("/", hello)])
    tls = ServerTls(written(OLD, tmp_path))
    with capture_logs() as lines:
        async with serving(app, ListenAddress("127.0.0.1", 0), tls.context) as address, asyncio.TaskGroup() as tasks:
            following = tasks.create_task(tls.run())

            async def told(event: str) -> None:
                async with asyncio.timeout(30):
                    while not any(line["event"] == event for line in lines):  # noqa: ASYNC110 - the log sends no signal
                        await asyncio.sleep(0.01)

            assert (await answers(address, OLD), await answers(address, NEW)) == (True, False)
            (tmp_path / "server.pem").write_text("half a certificate")
            await told("tls.not_read")
            assert await answers(address, OLD)
            written(NEW, tmp_path)
            await told("tls.certificate_replaced")
            assert (await answers(address, OLD), await answers(address, NEW)) == (False, True)
            following.cancel()


def test_files_that_cannot_be_used_are_refused_at_the_start(tmp_path: Path) -> None:
    """With their names, and what is wrong."""
    missing = tmp_path / "missing.pem"
    with pytest.raises(RefusedError, match=r"missing\.pem.*No such file"):
        ServerTls(TlsSettings(missing, missing))
    certificate = written(OLD, tmp_path).certificate
    (tmp_path / "key.pem").write_text("nothing")
    with pytest.raises(RefusedError, match=r"key\.pem"):
        ServerTls(TlsSettings(certificate, tmp_path / "key.pem"))
