"""Errors of the Lambda API: AWS's types, their statuses, and how they are written (spec sections 6.2 and 7.5). Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.errors import EsmdError
from model.mapping_rules import api_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.problem import Problem

_STATUSES = {
    "AccessDeniedException": 403,
    "ResourceNotFoundException": 404,
    "ResourceConflictException": 409,
    "PreconditionFailedException": 412,
    "RequestEntityTooLargeException": 413,
    "TooManyRequestsException": 429,
    "ServiceException": 500,
}
_BAD_REQUEST = 400
_UNAVAILABLE = 503
_CAPITAL = frozenset({"ResourceNotFoundException", "ResourceInUseException", "ServiceException"})


class ApiError(EsmdError):
    """A request is answered with an error of AWS's."""

    def __init__(self, type_: str, message: str, *, status: int) -> None:
        super().__init__(message)
        self.type = type_
        self.status = status

    @property
    def document(self) -> dict[str, str]:
        """The body. Some types say `Message`, others `message`."""
        side = "Service" if self.type == "ServiceException" else "User"
        return {"Type": side, "Message" if self.type in _CAPITAL else "message": str(self)}


def refused(type_: str, message: str) -> ApiError:
    """Return an error of a type, with the status AWS gives it."""
    return ApiError(type_, message, status=_STATUSES.get(type_, _BAD_REQUEST))


def not_found() -> ApiError:
    """Return the error for an id that no mapping has."""
    return refused("ResourceNotFoundException", "The resource you requested does not exist.")


def in_use(what: str) -> ApiError:
    """Return the error for a mapping that is on its way from one state to another."""
    return refused("ResourceInUseException", f"Cannot {what} the event source mapping because it is in use.")


def unavailable(why: str) -> ApiError:
    """Return the error for a store that cannot be reached now; SDKs try again."""
    return ApiError("ServiceException", why, status=_UNAVAILABLE)


def invalid(problems: Sequence[Problem]) -> ApiError:
    """Return the error for the rules that a request broke: AWS's sentences as they are, ours with their place."""
    type_, message = api_error([_sentence(problem) for problem in problems])
    return refused(type_, message)


def _sentence(problem: Problem) -> str:
    return problem.rule if problem.rule[:1].isupper() or not problem.path else f"{problem.path}: {problem.rule}"
