"""SQS inside the event loop: the queue in memory behind SQS's JSON protocol, a node's way to it, and seeded trouble.

So everything from the parsing upwards is the product's own. A long poll lives on in the queue when its client is gone,
and may be handed messages that nobody gets, as with the real service.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import msgspec

from invocation.classify import Answer, Failure, FailureKind
from pollers.queue_ports import Entry
from tests.support.virtual_loop import OUTSIDE
from tests.support.wire import NoAnswerError, RefusedByWireError, Wire

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from pollers.queue_ports import Received
    from tests.support.fake_sqs import FakeQueue

_OK, _UNAVAILABLE = 200, 503
_SOON_S = 0.001
_URL = "http://127.0.0.1:9/000000000000/storm"


class SimulatedSqs:
    """The service, with one queue. `fails` of its calls, and of the entries of batch calls, go wrong."""

    def __init__(self, queue: FakeQueue, random: Random) -> None:
        self.queue = queue
        self.fails = 0.0
        self.on_receive: Callable[[Received], None] = lambda _received: None
        self.on_delete: Callable[[str], None] = lambda _receipt: None
        self._random = random
        self._polls: list[tuple[float, int, int, Callable[[list[Received]], None]]] = []  # until, most, hidden for
        self._look_at = float("inf")

    def send(self, *bodies: str, group: str | None = None) -> None:
        """Put messages."""
        self.queue.send(*bodies, group=group)
        self._look()

    def serve(self, operation: str, body: bytes, answer: Callable[[Answer], None]) -> None:
        """Answer one call."""
        request = json.loads(body)
        if self._random.random() < self.fails:
            answer(Answer(_UNAVAILABLE, {}, b'{"__type": "ServiceUnavailable"}'))
            return
        match operation.rpartition(".")[2]:
            case "GetQueueUrl":
                answer(_says({"QueueUrl": _URL}))
            case "GetQueueAttributes":
                answer(_says({"Attributes": self._attributes()}))
            case "ReceiveMessage":
                self._receive(request, lambda found: answer(_says({"Messages": [_message(one) for one in found]})))
            case "DeleteMessageBatch":
                answer(_says(self._each(request, self._delete)))
            case "ChangeMessageVisibilityBatch":
                answer(_says(self._each(request, self._change)))
            case other:
                raise AssertionError(f"{other} is not answered")
        self._look()

    def _attributes(self) -> dict[str, str]:
        most = self.queue.max_receives
        redrive = {} if most is None else {"RedrivePolicy": json.dumps({"maxReceiveCount": most})}
        return redrive | {
            "VisibilityTimeout": str(self.queue.visibility_s),
            "ApproximateNumberOfMessages": str(len(self.queue.visible())),
            "ApproximateNumberOfMessagesNotVisible": str(self.queue.hidden()),
        }

    def _each(self, request: dict[str, Any], do: Callable[[dict[str, Any]], Entry]) -> dict[str, Any]:
        failed = []
        for entry in request["Entries"]:
            if self._random.random() < self.fails:
                failed.append({"Id": entry["Id"], "Code": "InternalError", "SenderFault": False})
            elif do(entry) is Entry.GONE:
                failed.append({"Id": entry["Id"], "Code": "ReceiptHandleIsInvalid", "SenderFault": True})
        return {"Failed": failed}

    def _delete(self, entry: dict[str, Any]) -> Entry:
        receipt = entry["ReceiptHandle"]
        if self.queue._find(receipt) is not None:
            self.on_delete(receipt)
        return self.queue._delete(receipt)

    def _change(self, entry: dict[str, Any]) -> Entry:
        return self.queue._change(entry["ReceiptHandle"], entry["VisibilityTimeout"])

    # Long polls

    def _receive(self, request: dict[str, Any], answer: Callable[[list[Received]], None]) -> None:
        until = asyncio.get_running_loop().time() + request["WaitTimeSeconds"]
        hidden_s = request.get("VisibilityTimeout", self.queue.visibility_s)
        self._polls.append((until, request["MaxNumberOfMessages"], hidden_s, answer))

    def _look(self) -> None:
        """Answer the long polls that can be, in the order in which they came."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        waiting = []
        for poll in self._polls:
            until, most, hidden_s, answer = poll
            found = self.queue._take(most, hidden_s)
            if found or now >= until:
                for one in found:
                    self.on_receive(one)
                answer(found)
            else:
                waiting.append(poll)
        self._polls = waiting
        if not waiting:
            return
        times = [poll[0] for poll in waiting]
        times += [one.visible_at for one in self.queue.stored.values() if one.visible_at > now]
        look_at = min(times) + _SOON_S
        if look_at < self._look_at or self._look_at <= now:
            self._look_at = look_at
            loop.call_later(look_at - now, self._look, context=OUTSIDE)


class SqsWay(Wire):
    """One node's way to the queue. `pollers.sources.sqs_api.Call`."""

    def __init__(self, sqs: SimulatedSqs | None) -> None:
        super().__init__()
        self._sqs = sqs

    async def call(
        self, region: str, operation: str, body: bytes, *, timeout_s: float, max_answer_bytes: int
    ) -> Answer | Failure:
        """See `Call`."""
        sqs = self._sqs
        assert sqs is not None, "there is no queue in this world"
        try:
            return await self.carry(operation, lambda answer: sqs.serve(operation, body, answer), timeout_s=timeout_s)
        except RefusedByWireError:
            return Failure(FailureKind.REFUSED)
        except NoAnswerError:
            return Failure(FailureKind.TIMEOUT_AFTER_SENT)


def _says(document: object) -> Answer:
    return Answer(_OK, {}, json.dumps(document).encode())


def _message(received: Received) -> dict[str, Any]:
    raw = received.raw
    return {
        "MessageId": raw.MessageId,
        "ReceiptHandle": raw.ReceiptHandle,
        "Body": msgspec.json.decode(raw.Body),
        "MD5OfBody": raw.MD5OfBody,
        "Attributes": raw.Attributes,
    }
