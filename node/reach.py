"""Where other nodes of the fleet reach this one."""

from __future__ import annotations

import socket
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from node.options import ListenAddress

if TYPE_CHECKING:
    from collections.abc import Callable

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NETWORK = Path("/proc/self/ns/net")
_ANYWHERE = {"0.0.0.0": (socket.AF_INET, "192.0.2.1"), "::": (socket.AF_INET6, "2001:db8::1")}  # noqa: S104 not to listen
"""Wildcards, and an address of documentation that stands for the rest of the world."""


def reach(address: ListenAddress, *, tls: bool, outward: Callable[[str], str] | None = None) -> tuple[str, str]:
    """Return HOST:PORT by which others reach what listens there, and the network that alone can; empty: any.

    Where a node listens on all addresses it is that of its way out, and with TLS the machine's name, since certificates
    are for names.
    """
    if address.loopback:
        return str(address), network_id()
    if address.host in _ANYWHERE:
        host = socket.getfqdn() if tls else (outward or _own_address)(address.host)
        return str(ListenAddress(host, address.port)), ""
    return str(address), ""


def network_id() -> str:
    """Return what tells this machine's loopback from others: containers of one machine have one each."""
    try:
        return f"{_BOOT.read_text().strip()}/{_NETWORK.stat().st_ino}"
    except OSError:  # no Linux
        return f"{socket.gethostname()}/{uuid.getnode():x}"


def _own_address(wildcard: str) -> str:
    """Return the address from which this machine would call others. Sends nothing."""
    family, elsewhere = _ANYWHERE[wildcard]
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))
            return str(probe.getsockname()[0])
    except OSError:  # no way out
        return socket.gethostname()
