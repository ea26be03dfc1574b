"""What a runtime may say when: `invocation.runtime_api`, spec section 8."""

from __future__ import annotations

import json
from typing import Any

import pytest

from invocation.runtime_api import Event, FunctionAnswer, Reply, RuntimeApi

EVENT = Event(b"{}", {"Lambda-Runtime-Aws-Request-Id": "id"}, "id", "attempt")
ACCEPTED = (202, {"status": "OK"})


class Told:
    """What the API has told."""

    def __init__(self) -> None:
        self.idle = 0
        self.failed = 0
        self.given: list[Reply] = []
        self.api = RuntimeApi(on_idle=self._on_idle, on_failed=self._on_failed)

    def _on_idle(self) -> None:
        self.idle += 1

    def _on_failed(self) -> None:
        self.failed += 1


def running() -> Told:
    """Make a runtime that has been given an event."""
    told = Told()
    told.api.ask(told.given.append)
    told.api.begin(EVENT)
    assert told.given == [Reply(200, b"{}", EVENT.headers)]
    return told


def said(reply: Reply) -> tuple[int, Any]:
    """Return status and content, of an error its type."""
    content = json.loads(reply.body)
    return reply.status, content.get("errorType", content)


def test_an_event_is_answered_once() -> None:
    """The result is taken, and a second one for the same id is not."""
    told = running()
    assert said(told.api.responded("id", {}, b"1")) == ACCEPTED
    assert told.api.answer == FunctionAnswer(b"1")
    assert said(told.api.responded("id", {}, b"2")) == (400, "InvalidRequestID")
    assert said(told.api.erred("id", {}, b"{}")) == (400, "InvalidRequestID")
    assert told.api.answer == FunctionAnswer(b"1")


def test_the_next_call_of_next_completes_an_invocation() -> None:
    """Not the answer: what the runtime does after it belongs to it."""
    told = running()
    told.api.responded("id", {}, b"1")
    assert (told.idle, told.api.idle) == (1, False)
    told.api.ask(told.given.append)
    assert (told.idle, told.api.idle) == (2, True)


def test_an_id_of_somebody_else_is_refused() -> None:
    """Also that of another attempt, where the runtime tells which one it means."""
    told = running()
    assert said(told.api.responded("other", {}, b"1")) == (400, "InvalidRequestID")
    wrong = {"lambda-runtime-invocation-id": "another"}
    assert said(told.api.responded("id", wrong, b"1")) == (400, "InvalidInvocationId")
    assert said(told.api.erred("id", {"lambda-runtime-invocation-id": "attempt"}, b"{}")) == ACCEPTED


def test_before_the_first_event_nothing_can_be_answered() -> None:
    """There is nothing with that id yet."""
    assert said(Told().api.responded("id", {}, b"1")) == (400, "InvalidRequestID")


def test_a_response_beyond_the_limit_is_an_error() -> None:
    """The runtime is refused, the caller is told."""
    told = running()
    assert said(told.api.responded("id", {}, None)) == (413, "RequestEntityTooLarge")
    assert told.api.answer is not None
    assert told.api.answer.error_type == "Function.ResponseSizeTooLarge"
    assert json.loads(told.api.answer.payload)["errorMessage"].startswith("Response payload size exceeded maximum")


def test_streamed_and_cut_responses_are_errors() -> None:
    """An error at the end of a stream could not be seen; a cut response is none."""
    told = running()
    streaming = {"lambda-runtime-function-response-mode": "streaming"}
    assert said(told.api.responded("id", streaming, b"1")) == (400, "InvalidResponseMode")
    assert told.api.answer is not None
    assert told.api.answer.error_type == "Runtime.InvalidResponseModeHeader"
    told = running()
    told.api.cut_short("other", {})
    untouched: object = told.api.answer
    assert untouched is None
    told.api.cut_short("id", {})
    assert told.api.answer is not None
    assert told.api.answer.error_type == "Runtime.TruncatedResponse"


@pytest.mark.parametrize(
    ("given", "recorded"),
    [
        ("Runtime.ImportModuleError", "Runtime.ImportModuleError"),
        ("Function.Odd", "Function.Odd"),
        ("Function.odd one", "Function.Unknown"),
        ("ValueError", "Runtime.Unknown"),
        ("", "Runtime.Unknown"),
    ],
)
def test_error_types_are_recorded_in_known_forms(given: str, recorded: str) -> None:
    """The document is passed on as it is; the type is for the log."""
    told = running()
    assert said(told.api.erred("id", {"lambda-runtime-function-error-type": given}, b'{"a": 1}')) == ACCEPTED
    assert told.api.answer == FunctionAnswer(b'{"a": 1}', recorded)


def test_an_init_error_ends_the_runtime() -> None:
    """It can be reported before the first `next` only, and nothing is given to it afterwards."""
    told = Told()
    header = {"lambda-runtime-function-error-type": "Runtime.ImportModuleError"}
    assert said(told.api.not_initialised(header, b"{}")) == ACCEPTED
    assert (told.failed, told.api.answer) == (1, FunctionAnswer(b"{}", "Runtime.ImportModuleError"))
    told.api.ask(told.given.append)
    assert said(told.given[-1]) == (403, "InvalidStateTransition")
    assert said(running().api.not_initialised(header, b"{}")) == (403, "InvalidStateTransition")


def test_next_without_an_answer_is_refused() -> None:
    """An invocation cannot be dropped silently."""
    told = running()
    told.api.ask(told.given.append)
    assert said(told.given[-1]) == (403, "InvalidStateTransition")


def test_a_runtime_that_is_ended_gets_nothing_more() -> None:
    """The call that waits is not answered; one that comes after it, before the process is gone, is refused."""
    told = Told()
    told.api.ask(told.given.append)
    told.api.close()
    assert told.given == []
    told.api.ask(told.given.append)
    assert said(told.given[-1]) == (403, "InvalidStateTransition")
    assert (told.idle, told.api.idle) == (1, False)


def test_the_last_call_of_next_counts() -> None:
    """The one before has given up, as a client with a time-out does."""
    told = Told()
    first: list[Reply] = []
    told.api.ask(first.append)
    told.api.ask(told.given.append)
    told.api.begin(EVENT)
    assert said(first[0]) == (403, "InvalidStateTransition")
    assert [reply.body for reply in told.given] == [b"{}"]


def test_an_event_is_not_given_to_who_has_left() -> None:
    """The runtime is idle again when it asks again."""
    told = Told()
    first: list[Reply] = []
    answer = first.append
    told.api.ask(answer)
    told.api.gone(told.given.append)
    still_idle: object = told.api.idle
    assert still_idle is True, "somebody else has left"
    told.api.gone(answer)
    idle: object = told.api.idle
    assert idle is False
    told.api.ask(told.given.append)
    told.api.begin(EVENT)
    assert (first, len(told.given)) == ([], 1)
