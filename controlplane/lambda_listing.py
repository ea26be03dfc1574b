"""Lists of the Lambda API: filters, pages and markers (spec section 7.1). Pure."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from controlplane.lambda_errors import invalid, refused
from model.mapping_rules import same_function
from model.problem import Problem
from model.rules.checking import INVALID, Checker
from model.rules.parameters import PARAMETERS
from model.rules.shapes import Integer
from model.rules.wording import AwsVoice

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from model.mapping import MappingRecord

PAGE = 100
"""The most mappings that one answer holds, whatever is asked for."""

_MAX_ITEMS = Integer(1, 10_000)
_LONGEST_NUMBER = 12


@dataclass(frozen=True, slots=True)
class Page:
    """One answer, and where the next one begins; None: there is none."""

    mappings: list[dict[str, Any]]
    next_marker: str | None


@dataclass(frozen=True, slots=True)
class ListRequest:
    """What is listed: of one source or function, after a name, at most so many."""

    source_arn: str | None = None
    function: str | None = None
    after: str | None = None
    most: int = PAGE

    @property
    def unfiltered(self) -> bool:
        """Whether every mapping belongs to the list."""
        return self.source_arn is None and self.function is None


def read_request(query: Mapping[str, str]) -> ListRequest:
    """Read the parameters of a URL; empty ones count as absent. Raises `ApiError`."""
    checker = Checker(AwsVoice())
    most = query.get("MaxItems") or str(PAGE)
    if not (most.lstrip("-").isascii() and most.lstrip("-").isdigit() and len(most) <= _LONGEST_NUMBER):
        raise invalid([Problem("MaxItems", "must be a whole number")])
    checker.check(_MAX_ITEMS, int(most), ("MaxItems",))
    function = query.get("FunctionName") or None
    if function is not None and checker.check(PARAMETERS["FunctionName"].shape, function, ("FunctionName",)) is INVALID:
        function = None
    if checker.problems:
        raise invalid(checker.problems)
    marker = query.get("Marker")
    after = read_marker(marker) if marker else None
    return ListRequest(query.get("EventSourceArn") or None, function, after, min(int(most), PAGE))


def belongs(document: Mapping[str, Any], functions: Sequence[str], request: ListRequest) -> bool:
    """Whether a mapping is of the source and function asked for. `functions`: how its function is named."""
    if request.source_arn is not None and document.get("EventSourceArn") != request.source_arn:
        return False
    wanted = request.function
    return wanted is None or any(same_function(wanted, name) for name in functions)


def page_of(records: Sequence[MappingRecord], request: ListRequest) -> tuple[list[MappingRecord], str | None]:
    """Return the page asked for of records in the order of names, and the marker of the next one."""
    rest = [record for record in records if request.after is None or record.name > request.after]
    here = rest[: request.most]
    return here, write_marker(here[-1].name) if len(rest) > len(here) else None


def write_marker(name: str) -> str:
    """Return the marker of what comes after a name."""
    return base64.urlsafe_b64encode(name.encode()).decode()


def read_marker(marker: str) -> str:
    """Return the name that a marker stands for. Raises `ApiError`."""
    try:
        return base64.b64decode(marker.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError) as exc:
        raise refused("InvalidParameterValueException", "Invalid Marker") from exc
