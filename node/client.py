"""How client commands talk to a node's HTTP surface.

Plain `http.client`, because commands should answer at once and an asynchronous client takes longer to import than to
use; and no proxies, because nodes are reached directly.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
from typing import Any
from urllib.parse import urlsplit

from model.errors import EsmdError, UnavailableError

DEFAULT_URL = "http://127.0.0.1:9001"
TIMEOUT_S = 15.0
_LARGEST_ANSWER = 256 * 1024 * 1024


class NodeUnreachableError(UnavailableError):
    """No node answered there."""


class NodeRefusedError(EsmdError):
    """The node answered, and said no."""


def get_json(url: str, path: str, *, timeout_s: float = TIMEOUT_S) -> Any:
    """GET a JSON document from the node at `url`, with the token of ESMD_TOKEN if there is one.

    Raises `NodeUnreachableError` or `NodeRefusedError`, each saying what to do about it.
    """
    host, port, tls, prefix = _parse(url)
    connection = (
        http.client.HTTPSConnection(host, port, timeout=timeout_s, context=ssl.create_default_context())
        if tls
        else http.client.HTTPConnection(host, port, timeout=timeout_s)
    )
    headers = {"Accept": "application/json", "User-Agent": "esmd"}
    token = os.environ.get("ESMD_TOKEN")
    if token:
        headers["Authorization"] = f"Bearer {token}"
    shown = f"{'https' if tls else 'http'}://{host}:{connection.port}"
    try:
        connection.request("GET", f"{prefix}{path}", headers=headers)
        response = connection.getresponse()
        body = response.read(_LARGEST_ANSWER)
    except (OSError, http.client.HTTPException) as error:
        raise NodeUnreachableError(
            f"no node answers at {shown}: {_why(error)}. Start one with `esmd run CONFIG`, or name another with --url "
            "or ESMD_URL."
        ) from error
    finally:
        connection.close()
    if response.status == http.client.OK:
        try:
            return json.loads(body)
        except ValueError as error:
            raise NodeUnreachableError(f"what answers at {shown} is no esmd node: its answer is not JSON") from error
    message = _message(body) or response.reason
    if response.status in {http.client.BAD_GATEWAY, http.client.SERVICE_UNAVAILABLE, http.client.GATEWAY_TIMEOUT}:
        raise NodeUnreachableError(f"the node at {shown} cannot answer now: {message}")
    if response.status in {http.client.UNAUTHORIZED, http.client.FORBIDDEN}:
        raise NodeRefusedError(f"the node at {shown} refuses: {message}")
    raise NodeRefusedError(f"{shown}{path} answers {response.status}: {message}. Is it an esmd node?")


def _parse(url: str) -> tuple[str, int | None, bool, str]:
    text = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise NodeRefusedError("--url is not a URL such as http://127.0.0.1:9001") from error
    if parts.scheme not in {"http", "https"} or not host or not text.isprintable() or " " in text:
        raise NodeRefusedError("--url is not a URL such as http://127.0.0.1:9001")
    return host, port, parts.scheme == "https", parts.path.rstrip("/")


def _message(body: bytes) -> str:
    try:
        document = json.loads(body)
    except ValueError:
        return ""
    return str(document.get("message", "")) if isinstance(document, dict) else ""


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
