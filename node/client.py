"""How client commands talk to a node's HTTP surface.

Plain `http.client`, because commands should answer at once and an asynchronous client takes longer to import than to
use; and no proxies, because nodes are reached directly.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
from base64 import b64decode
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from model.errors import EsmdError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

DEFAULT_URL = "http://127.0.0.1:9001"
TIMEOUT_S = 15.0
INVOKE_TIMEOUT_S = 920.0
"""Longer than a function may take, and the node waits for it."""

_TYPES = {False: "RequestResponse", True: "Event"}
_SAYS_WHY = frozenset({http.client.BAD_REQUEST, http.client.NOT_FOUND, http.client.CONFLICT})
_GOOD = frozenset({http.client.OK, http.client.ACCEPTED})
_LARGEST_ANSWER = 256 * 1024 * 1024


class NodeUnreachableError(UnavailableError):
    """No node answered there."""


class NodeRefusedError(EsmdError):
    """The node answered, and said no: `code` is AWS's type of the error, `answer` all of it, where there is one."""

    def __init__(self, message: str, *, code: str | None = None, answer: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Invoked:
    """What came of calling a function. With `function_error` the payload is an error document."""

    payload: bytes
    function_error: str | None
    executed_version: str | None
    request_id: str | None
    log: str | None  # its end, if asked for and told


def get_json(url: str, path: str, *, timeout_s: float = TIMEOUT_S) -> Any:
    """GET a JSON document from the node at `url`, with the token of ESMD_TOKEN if there is one.

    Raises `NodeUnreachableError` or `NodeRefusedError`, each saying what to do about it.
    """
    return call_json(url, "GET", path, timeout_s=timeout_s)


def call_json(url: str, method: str, path: str, document: object = None, *, timeout_s: float = TIMEOUT_S) -> Any:
    """Send a JSON document, if there is one, and return the JSON document of the answer. Raises as `get_json`."""
    sent = None if document is None else json.dumps(document).encode()
    with _asking(url, method, path, body=sent, timeout_s=timeout_s) as (response, shown):
        try:
            body = response.read(_LARGEST_ANSWER)
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(shown, error) from error
        return _document(body, shown)


def post_lines(url: str, path: str, document: object, *, timeout_s: float = TIMEOUT_S) -> Generator[Any, None, None]:
    """POST a JSON document and yield the JSON documents of the answer's lines, as they come.

    Whoever ends the iteration before its end closes the connection, and so tells the node to stop. Raises as
    `get_json`, also when nothing comes for `timeout_s`, or the answer breaks off in the middle of a line.
    """
    with _asking(url, "POST", path, body=json.dumps(document).encode(), timeout_s=timeout_s) as (response, shown):
        while True:
            try:
                line = response.readline(_LARGEST_ANSWER)
            except (OSError, http.client.HTTPException) as error:
                raise _unreachable(shown, error) from error
            if not line:
                return
            yield _document(line, shown)


def invoke(url: str, function: str, event: bytes, *, tail: bool, later: bool) -> Invoked:
    """Call a function with an event; `later` asks for not waiting for it. Raises as `get_json`."""
    headers = {"X-Amz-Log-Type": "Tail" if tail else "None", "X-Amz-Invocation-Type": _TYPES[later]}
    path = f"/2015-03-31/functions/{quote(function, safe='')}/invocations"
    with _asking(url, "POST", path, body=event, headers=headers, timeout_s=INVOKE_TIMEOUT_S) as (response, shown):
        try:
            payload = response.read(_LARGEST_ANSWER)
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(shown, error) from error
        log = response.headers.get("X-Amz-Log-Result")
        return Invoked(
            payload=payload,
            function_error=response.headers.get("X-Amz-Function-Error"),
            executed_version=response.headers.get("X-Amz-Executed-Version"),
            request_id=response.headers.get("x-amzn-RequestId"),
            log=None if log is None else b64decode(log).decode(errors="replace"),
        )


def mapping_path(mapping: str, what: str) -> str:
    """Return the path of something about a mapping, by its name or id."""
    return f"/esmd/v1/mappings/{quote(mapping, safe='')}/{what}"


@contextmanager
def _asking(
    url: str,
    method: str,
    path: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float,
) -> Iterator[tuple[http.client.HTTPResponse, str]]:
    """Send a request; yield the answer if it is one of success, and the address as people read it."""
    host, port, tls, prefix = _parse(url)
    connection = (
        http.client.HTTPSConnection(host, port, timeout=timeout_s, context=ssl.create_default_context())
        if tls
        else http.client.HTTPConnection(host, port, timeout=timeout_s)
    )
    sent = {"Accept": "application/json", "User-Agent": "esmd", **(headers or {})}
    token = os.environ.get("ESMD_TOKEN")
    if token:
        sent["Authorization"] = f"Bearer {token}"
    shown = f"{'https' if tls else 'http'}://{host}:{connection.port}"
    if body is not None:
        sent["Content-Type"] = "application/json"
    try:
        try:
            connection.request(method, f"{prefix}{path}", body=body, headers=sent)
            response = connection.getresponse()
            good = response.status in _GOOD
            refused = b"" if good else response.read(_LARGEST_ANSWER)
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(shown, error) from error
        if not good:
            raise _refusal(response, refused, shown, path)
        with response:
            yield response, shown
    finally:
        connection.close()


def _unreachable(shown: str, error: Exception) -> NodeUnreachableError:
    return NodeUnreachableError(
        f"no node answers at {shown}: {_why(error)}. Start one with `esmd run CONFIG`, or name another with --url "
        "or ESMD_URL."
    )


def _document(text: bytes, shown: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise NodeUnreachableError(f"what answers at {shown} is no esmd node: its answer is not JSON") from error


def _refusal(response: http.client.HTTPResponse, body: bytes, shown: str, path: str) -> EsmdError:
    """Return what a status of no success means."""
    told = _message(body)
    message = told or response.reason
    if response.status in {http.client.BAD_GATEWAY, http.client.SERVICE_UNAVAILABLE, http.client.GATEWAY_TIMEOUT}:
        return NodeUnreachableError(f"the node at {shown} cannot answer now: {message}")
    if response.status in {http.client.UNAUTHORIZED, http.client.FORBIDDEN}:
        return NodeRefusedError(f"the node at {shown} refuses: {message}")
    code = response.headers.get("x-amzn-ErrorType")
    ours = told != response.reason and response.status in _SAYS_WHY
    if told and (ours or code is not None):
        return NodeRefusedError(told, code=code, answer=_document(body, shown))
    return NodeRefusedError(f"{shown}{path} answers {response.status}: {message}. Is it an esmd node?")


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
    return str(document.get("message") or document.get("Message", "")) if isinstance(document, dict) else ""


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
