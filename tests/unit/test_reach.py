"""Where other nodes reach this one: `node.reach`."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from node.options import ListenAddress
from node.reach import network_id, reach


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_loopback_is_for_those_that_share_it(host: str) -> None:
    """Nodes on other machines, or in other containers, do not try."""
    address = ListenAddress(host, 9001)
    assert reach(address, tls=False) == (str(address), network_id())
    assert network_id() == network_id() != ""


def test_an_address_that_was_chosen_is_the_one() -> None:
    """What `listen` names is what others call, with TLS and without."""
    for host in ("10.1.2.3", "node-a.internal"):
        for tls in (False, True):
            assert reach(ListenAddress(host, 9001), tls=tls) == (f"{host}:9001", "")


def test_all_addresses_are_no_address() -> None:
    """A node that listens everywhere is called at its way out, or at its name where it has to prove it."""
    for wildcard, own, written in (("0.0.0.0", "10.0.0.7", "10.0.0.7:9001"), ("::", "fd00::7", "[fd00::7]:9001")):  # noqa: S104
        asked: list[str] = []

        def outward(host: str, own: str = own, asked: list[str] = asked) -> str:
            asked.append(host)
            return own

        assert reach(ListenAddress(wildcard, 9001), tls=False, outward=outward) == (written, "")
        assert asked == [wildcard]
        assert reach(ListenAddress(wildcard, 9001), tls=True) == (f"{socket.getfqdn()}:9001", "")


def test_the_way_out_of_this_machine() -> None:
    """It is one of its addresses, or its name where there is no way out; never the wildcard."""
    host, _, port = reach(ListenAddress("0.0.0.0", 9001), tls=False)[0].rpartition(":")  # noqa: S104
    assert port == "9001"
    if host != socket.gethostname():
        assert not ipaddress.ip_address(host).is_unspecified
