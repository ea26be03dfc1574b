"""CBOR as AWS's Java clients speak it: the examples of RFC 8949's appendix, and back again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import cbor

_EXAMPLES: list[tuple[Any, str]] = [
    (0, "00"),
    (23, "17"),
    (24, "1818"),
    (1000, "1903e8"),
    (1000000000000, "1b000000e8d4a51000"),
    (-1, "20"),
    (-1000, "3903e7"),
    (1.1, "fb3ff199999999999a"),
    (False, "f4"),
    (True, "f5"),
    (None, "f6"),
    (b"\x01\x02\x03\x04", "4401020304"),
    ("\u00fc", "62c3bc"),
    ([1, [2, 3], [4, 5]], "8301820203820405"),
    ({"a": 1, "b": [2, 3]}, "a26161016162820203"),
]
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.binary() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize(("value", "shown"), _EXAMPLES, ids=[shown for _, shown in _EXAMPLES])
def test_the_standard_s_examples(value: Any, shown: str) -> None:
    """Each way."""
    assert cbor.encode(value).hex() == shown
    assert cbor.decode(bytes.fromhex(shown)) == value


@pytest.mark.parametrize(
    ("shown", "value"),
    [
        ("bf61610161629f0203ffff", {"a": 1, "b": [2, 3]}),
        ("7f657374726561646d696e67ff", "streaming"),
        ("fa47c35000", 1e5),
    ],
)
def test_what_only_clients_write(shown: str, value: Any) -> None:
    """Items without a length, as Jackson writes them, and short floats."""
    assert cbor.decode(bytes.fromhex(shown)) == value


def test_a_moment_is_tagged_milliseconds() -> None:
    """As AWS writes times; the tag is left out when read."""
    encoded = cbor.encode(cbor.Moment(1_700_000_000_123))
    assert encoded.hex() == "c11b0000018bcfe5687b"
    assert cbor.decode(encoded) == 1_700_000_000_123


@given(_VALUES)
def test_what_is_encoded_is_decoded(value: Any) -> None:
    """Whatever it is."""
    assert cbor.decode(cbor.encode(value)) == value


@pytest.mark.parametrize("shown", ["", "18", "62c3", "8201", "0000", "f8", "bf6161"])
def test_pieces_are_refused(shown: str) -> None:
    """An item that is cut off, or followed by another."""
    with pytest.raises(ValueError, match=r"CBOR|one item"):
        cbor.decode(bytes.fromhex(shown))


def test_other_types_are_refused() -> None:
    """No guess."""
    with pytest.raises(TypeError, match="set"):
        cbor.encode(set())
