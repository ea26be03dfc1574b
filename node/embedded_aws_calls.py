"""Stands in front of moto: calls of Kinesis and of SQS one at a time, and long polls that behave. A WSGI application.

moto's calls are not atomic: made together they lose records, or a message that is sent while another is deleted. A
long poll must not hold the others, so it is a short one that is repeated: whenever something was sent to its queue,
and now and then, because messages become visible by themselves. It ends with its client, so that what is sent later is
not handed to nobody. A queue's own ReceiveMessageWaitTimeSeconds is not looked at.

Runs in the child's threads.
"""

from __future__ import annotations

import io
import json
import select
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SHARD_RECORDS = 10_000
"""Records that a shard keeps, so that memory and time per call stay bounded."""

_KINESIS = "Kinesis_"
_SQS = "AmazonSQS."
_RECEIVE = f"{_SQS}ReceiveMessage"
_KINESIS_PUTS = (".PutRecord", ".PutRecords")
_MAKES_VISIBLE = ("SendMessage", "SendMessageBatch", "ChangeMessageVisibility", "ChangeMessageVisibilityBatch")
_LOOK_S = 0.25  # how often a long poll looks by itself


class Wsgi(Protocol):
    """A WSGI application."""

    def __call__(self, environ: dict[str, Any], start_response: Any, /) -> Iterable[bytes]:
        """Serve one call."""


class _Answer(NamedTuple):
    status: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def brings_nothing(self) -> bool:
        """Whether it is a receive's without messages."""
        return self.status.startswith("200") and not json.loads(self.body or b"{}").get("Messages")


class OneAtATime:
    """The application. `shards` lists all shards of all streams, to keep them from growing."""

    def __init__(self, app: Wsgi, shards: Callable[[], Iterable[Any]]) -> None:
        self._app = app
        self._shards = shards
        self._kinesis = threading.Lock()
        self._sqs = threading.Lock()
        self._arrivals: dict[str, threading.Condition] = {}  # by queue; all share the lock

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Serve one call."""
        target: str = environ.get("HTTP_X_AMZ_TARGET", "")
        if not target.startswith((_KINESIS, _SQS)):
            return self._app(environ, start_response)
        # Before it is its turn: a slow client keeps only itself waiting.
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if target.startswith(_KINESIS):
            answer = self._call_kinesis(target, environ, body)
        elif target == _RECEIVE:
            answer = self._receive(environ, body)
        else:
            answer = self._call_sqs(target.removeprefix(_SQS), environ, body)
        start_response(answer.status, answer.headers)
        return [answer.body]

    def _call_kinesis(self, target: str, environ: dict[str, Any], body: bytes) -> _Answer:
        with self._kinesis:
            answer = self._call(environ, body)
            if target.endswith(_KINESIS_PUTS):
                for shard in self._shards():
                    while len(shard.records) > SHARD_RECORDS:
                        shard.records.popitem(last=False)
            return answer

    def _call_sqs(self, operation: str, environ: dict[str, Any], body: bytes) -> _Answer:
        with self._sqs:
            answer = self._call(environ, body)
            if operation in _MAKES_VISIBLE:
                self._arrival(_document(body)).notify()
            return answer

    def _receive(self, environ: dict[str, Any], body: bytes) -> _Answer:
        request = _document(body)
        wait_s = request.get("WaitTimeSeconds")
        if not isinstance(wait_s, int) or not 0 < wait_s <= 20:  # noqa: PLR2004  # moto says what is wrong with it
            wait_s = 0
        else:
            body = json.dumps({**request, "WaitTimeSeconds": 0}).encode()
        ends_at = time.monotonic() + wait_s
        with self._sqs:
            while True:
                answer = self._call(environ, body)
                left_s = ends_at - time.monotonic()
                if left_s <= 0 or not answer.brings_nothing:
                    return answer
                self._arrival(request).wait(min(left_s, _LOOK_S))
                if _gone(environ):
                    return answer

    def _arrival(self, request: dict[str, Any]) -> threading.Condition:
        queue = str(request.get("QueueUrl")).rpartition("/")[2]
        return self._arrivals.setdefault(queue, threading.Condition(self._sqs))

    def _call(self, environ: dict[str, Any], body: bytes) -> _Answer:
        """Have moto answer. What it is given is its own: it may leave things there."""
        begun: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], _exc_info: object = None) -> None:
            begun.append((status, headers))

        given = {**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        parts = self._app(given, start_response)
        try:
            answered = b"".join(parts)
        finally:
            if hasattr(parts, "close"):
                parts.close()
        status, headers = begun[-1]
        return _Answer(status, headers, answered)


def _document(body: bytes) -> dict[str, Any]:
    """Read a request; one that is no JSON object is moto's to refuse."""
    with suppress(ValueError):
        document = json.loads(body)
        if isinstance(document, dict):
            return document
    return {}


def _gone(environ: dict[str, Any]) -> bool:
    """Whether the client has closed its connection: it sends nothing more while it waits for its answer."""
    connection = environ.get("werkzeug.socket")
    if not isinstance(connection, socket.socket):
        return False
    try:
        return bool(select.select([connection], [], [], 0)[0]) and not connection.recv(1, socket.MSG_PEEK)
    except OSError:
        return True
