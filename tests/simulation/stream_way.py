"""One node's way to the simulated stream. `pollers.sources.kinesis_subscription.Caller`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invocation.classify import Failure, FailureKind
from tests.support.wire import NoAnswerError, RefusedByWireError, Wire

if TYPE_CHECKING:
    from invocation.classify import Answer
    from pollers.sources.kinesis_subscription import OpenAnswer
    from tests.support.simulated_fan_out import SimulatedFanOut


class StreamWay(Wire):
    """The way."""

    def __init__(self, stream: SimulatedFanOut | None) -> None:
        super().__init__()
        self._stream = stream

    async def call(
        self, region: str, operation: str, body: bytes, *, timeout_s: float, max_answer_bytes: int
    ) -> Answer | Failure:
        """See `Caller`."""
        stream = self._stream
        assert stream is not None, "there is no stream in this world"
        try:
            return await self.carry(
                operation, lambda answer: answer(stream.stream.answer(operation, body)), timeout_s=timeout_s
            )
        except RefusedByWireError:
            return Failure(FailureKind.REFUSED)
        except NoAnswerError:
            return Failure(FailureKind.TIMEOUT_AFTER_SENT)

    async def open(
        self, region: str, operation: str, body: bytes, *, timeout_s: float, max_answer_bytes: int
    ) -> OpenAnswer | Answer | Failure:
        """See `Caller`. What comes of a subscription is read by the node itself, when it runs."""
        stream = self._stream
        assert stream is not None, "there is no stream in this world"
        if self.refusing:
            return Failure(FailureKind.REFUSED)
        return await stream.open(region, operation, body, timeout_s=timeout_s, max_answer_bytes=max_answer_bytes)
