"""What schemathesis is told about a node besides its document: loaded by schemathesis itself (`SCHEMATHESIS_HOOKS`)."""

from __future__ import annotations

import os
from typing import Any

import schemathesis

_KNOWN: dict[str, list[str]] = {}
for _pair in os.environ.get("API_HOOKS_KNOWN", "").split():
    _name, _, _value = _pair.partition("=")
    _KNOWN.setdefault(_name, []).append(_value)


@schemathesis.hook
def map_path_parameters(_context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Have most requests name something that is there: a made-up name says little about what happens to a real one."""
    for name, value in (path_parameters or {}).items():
        known = _KNOWN.get(name, [])
        choice = len(str(value)) % (len(known) + 1)
        if path_parameters is not None and isinstance(value, str) and choice < len(known):
            path_parameters[name] = known[choice]
    return path_parameters


@schemathesis.check
def tells_no_internals(_context: Any, response: Any, _case: Any) -> None:
    """No answer names what the node is made of, and all have the headers that keep browsers careful."""
    said = response.text if response.content else ""
    headers = {name.lower(): values for name, values in response.headers.items()}
    assert "Traceback (most" not in said, "a traceback"
    assert "aiohttp" not in said, "the name of a library"
    assert headers.get("server") == ["esmd"], "another server"
    assert "x-content-type-options" in headers, "no X-Content-Type-Options"


@schemathesis.serializer("application/x-msgpack")
def as_it_is(_context: Any, value: Any) -> bytes:
    """Send anything for MessagePack: nobody but another node knows what it should be."""
    return repr(value).encode()
