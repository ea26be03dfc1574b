"""Reading Redis URLs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statemgr.redis_store.address import RedisAddress, Topology, parse_redis_url
from statemgr.redis_store.keys import Keys


@pytest.mark.parametrize(
    ("url", "expected", "shown"),
    [
        ("redis://h", RedisAddress(Topology.SINGLE, (("h", 6379),)), "redis://h:6379"),
        ("redis://[::1]:7/3", RedisAddress(Topology.SINGLE, (("::1", 7),), db=3), "redis://[::1]:7"),
        ("redis://h/?db=2", RedisAddress(Topology.SINGLE, (("h", 6379),), db=2), "redis://h:6379"),
        ("redis://:p@h", RedisAddress(Topology.SINGLE, (("h", 6379),), password="p"), "redis://h:6379"),
        (
            "rediss://u%40x:p%3A%2F@h:1/0?ssl_ca_certs=/ca.pem",
            RedisAddress(
                Topology.SINGLE,
                (("h", 1),),
                username="u@x",
                password="p:/",
                tls=True,
                tls_files=(("ssl_ca_certs", "/ca.pem"),),
            ),
            "rediss://h:1",
        ),
        ("unix:///run/r%20.sock?db=4", RedisAddress(Topology.UNIX, path="/run/r .sock", db=4), "unix:///run/r .sock"),
        (
            "redis+sentinel://u:p@a,b:2/main/5?sentinel_password=s",
            RedisAddress(
                Topology.SENTINEL,
                (("a", 26379), ("b", 2)),
                db=5,
                service="main",
                username="u",
                password="p",
                sentinel_password="s",
            ),
            "redis+sentinel://a:26379,b:2/main",
        ),
        (
            "rediss+cluster://a,b:2",
            RedisAddress(Topology.CLUSTER, (("a", 6379), ("b", 2)), tls=True),
            "rediss+cluster://a:6379,b:2",
        ),
    ],
)
def test_every_form_is_read(url: str, expected: RedisAddress, shown: str) -> None:
    """Each documented form gives its parts, and a text without credentials."""
    assert parse_redis_url(url) == expected
    assert str(parse_redis_url(url)) == shown


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("", "begins with"),
        ("h:6379", "begins with"),
        ("http://planted@h", "begins with"),
        ("redis://", "HOST"),
        ("redis://planted:planted@", "HOST"),
        ("redis://a:planted", "HOST"),
        ("redis://a:99999", "HOST"),
        ("redis://a:0/0", "HOST"),
        ("redis://planted@a,b", "one host"),
        ("redis://a/planted", "is a number"),
        ("redis://a?socket_timeout=9", "unknown option socket_timeout"),
        ("redis://a?ssl_ca_certs=/x", "unknown option"),
        ("rediss://a?ssl_cert_reqs=none", "unknown option"),
        ("redis+sentinel://planted@a", "SERVICE"),
        ("redis+cluster://a,b/3", "database 0 only"),
        ("unix://planted@/", "looks like"),
        ("unix://host/run/x", "looks like"),
    ],
)
def test_a_bad_url_is_refused_without_being_shown(url: str, rule: str) -> None:
    """The error names the rule and repeats nothing that may be secret."""
    with pytest.raises(ValueError, match=rule) as caught:
        parse_redis_url(url)
    assert "planted" not in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing but ValueError comes out."""
    for url in (text, f"redis://{text}", f"redis+sentinel://{text}", f"unix://{text}", f"rediss+cluster://{text}"):
        try:
            parse_redis_url(url)
        except ValueError:
            continue


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_credentials_are_not_in_any_text_form(username: str, password: str) -> None:
    """Neither str nor repr of an address tells who it is for."""
    with_them = RedisAddress(Topology.SINGLE, (("h", 1),), username=username, password=password)
    without = RedisAddress(Topology.SINGLE, (("h", 1),))
    assert (str(with_them), repr(with_them)) == (str(without), repr(without))


def test_a_namespace_cannot_break_the_hash_tag() -> None:
    """Braces, colons and the like are refused; all keys of a fleet share one tag."""
    for bad in ("", "a}b", "a:b", "a b", "x" * 65):
        with pytest.raises(ValueError, match="namespace"):
            Keys(bad)
    keys = Keys("team-1")
    assert all(key.startswith(b"esmd:{team-1}:") for key in (*keys.fleet, keys.wake))
