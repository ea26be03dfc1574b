"""What `esmd run` was asked to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.lease import Role
from node.options import ListenAddress, Overrides, parse_roles


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback", "shown"),
    [
        ("127.0.0.1:9001", "127.0.0.1", 9001, True, "127.0.0.1:9001"),
        (" localhost:0 ", "localhost", 0, True, "localhost:0"),
        ("[::1]:80", "::1", 80, True, "[::1]:80"),
        (":9001", "0.0.0.0", 9001, False, "0.0.0.0:9001"),  # noqa: S104 - an address to be recognised
        ("node.example:9001", "node.example", 9001, False, "node.example:9001"),
        ("[::]:9001", "::", 9001, False, "[::]:9001"),
    ],
)
def test_listen_addresses(text: str, host: str, port: int, loopback: bool, shown: str) -> None:  # noqa: FBT001 - a test's parameter
    """HOST:PORT is read, judged and shown again."""
    address = ListenAddress.parse(text)
    assert (address, address.loopback, str(address)) == ((host, port), loopback, shown)


@pytest.mark.parametrize("text", ["", "9001", "h:", "h:x", "h:65536", "h:-1", "::1:80", "h:²"])
def test_what_is_no_address_is_refused_with_the_rule(text: str) -> None:
    """The message quotes what was given."""
    with pytest.raises(ValueError, match=r"HOST:PORT|port|brackets"):
        ListenAddress.parse(text)


def test_roles() -> None:
    """Roles are separated by commas; an unknown one is named together with those there are."""
    assert parse_roles("pollers, statemgr") == {Role.POLLERS, Role.STATEMGR}
    with pytest.raises(ValueError, match="leader: the roles are pollers, statemgr, frontend, controlplane"):
        parse_roles("pollers,leader")
    with pytest.raises(ValueError, match="nothing"):
        parse_roles(",")


def test_what_was_given_overrides_and_nothing_else() -> None:
    """The command line becomes a document of the configuration's form."""
    assert Overrides().sections() == {}
    given = Overrides("redis://h", ListenAddress("::1", 0), frozenset(), Path("d"), 0.0)
    expected = {"redis": {"url": "redis://h"}, "listen": "[::1]:0", "data_dir": "d", "drain_timeout": 0.0}
    assert given.sections() == expected


def test_children_get_the_same_command_line_without_the_redis_url() -> None:
    """A password in the URL shows neither in the list of processes nor in a repr."""
    given = Overrides(
        "redis://:secret@h", ListenAddress("::1", 0), frozenset({Role.STATEMGR, Role.POLLERS}), None, 2.5, "z"
    )
    arguments = given.arguments()
    assert arguments == ["--listen", "[::1]:0", "--role", "pollers,statemgr", "--drain-timeout", "2.5", "--zone", "z"]
    assert "secret" not in repr(given)
