"""What happens to a test whose server cannot be had on this machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from tests.support.servers import ServerUnavailableError


def skip_or_fail(why: ServerUnavailableError) -> NoReturn:
    """Skip the test for want of a server on a laptop; fail it in continuous integration."""
    if os.environ.get("CI") == "true":
        pytest.fail(str(why), pytrace=False)
    pytest.skip(str(why))
