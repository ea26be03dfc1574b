"""Requests to a function's URL as events, and results as responses: payload format 2.0."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invocation.function_url import UrlRequest, event_of, response_of

AT_S = 1_583_348_638.39
JSON_TYPE = ("Content-Type", "application/json")


def told(**changes: Any) -> dict[str, Any]:
    """Return the event of a request."""
    fields: dict[str, Any] = {
        "method": "GET",
        "path": "/",
        "query": "",
        "headers": [("Host", "127.0.0.1:9001")],
        "body": b"",
        "remote": "127.0.0.1",
        "scheme": "http",
    }
    request = UrlRequest(**{**fields, **changes})
    event = event_of(request, function="local", request_id="id-1", trace="Root=1-2-3", at_s=AT_S)
    document: dict[str, Any] = json.loads(event)
    return document


def test_the_event_is_payload_format_2() -> None:
    """Every field, with its place: headers and parameters joined, cookies apart, the body as text."""
    headers = [
        ("Host", "fn.example.com:9001"),
        ("Header1", "value1"),
        ("header1", "value2"),
        ("User-Agent", "agent"),
        ("Cookie", "cookie1=a,b; cookie2=c"),
        ("cookie", "cookie3"),
        ("Content-Type", "text/plain; charset=utf-8"),
        ("X-Forwarded-For", "10.0.0.1"),
    ]
    event = told(method="POST", path="/my/%C3%BCber", query="a=1&a=2&b=%20x&c", headers=headers, body="Grüße".encode())
    http = {
        "method": "POST",
        "path": "/my/%C3%BCber",
        "protocol": "HTTP/1.1",
        "sourceIp": "127.0.0.1",
        "userAgent": "agent",
    }
    assert event == {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/my/%C3%BCber",
        "rawQueryString": "a=1&a=2&b=%20x&c",
        "cookies": ["cookie1=a,b", "cookie2=c", "cookie3"],
        "headers": {
            "host": "fn.example.com:9001",
            "header1": "value1,value2",
            "user-agent": "agent",
            "content-type": "text/plain; charset=utf-8",
            "x-forwarded-for": "10.0.0.1, 127.0.0.1",
            "x-forwarded-proto": "http",
            "x-amzn-trace-id": "Root=1-2-3",
        },
        "queryStringParameters": {"a": "1,2", "b": " x", "c": ""},
        "requestContext": {
            "accountId": "anonymous",
            "apiId": "local",
            "domainName": "fn.example.com:9001",
            "domainPrefix": "fn",
            "http": http,
            "requestId": "id-1",
            "routeKey": "$default",
            "stage": "$default",
            "time": "04/Mar/2020:19:03:58 +0000",
            "timeEpoch": 1583348638390,
        },
        "body": "Grüße",
        "isBase64Encoded": False,
    }


def test_what_a_request_does_not_have_is_left_out() -> None:
    """No cookies, no parameters, no body."""
    event = told()
    assert not {"cookies", "queryStringParameters", "body"} & event.keys()
    assert event["isBase64Encoded"] is False


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("application/json", b"{}", True),
        ("application/problem+json", b"{}", True),
        ("application/vnd.x.y+xml; charset=utf-8", b"<a/>", True),
        ("application/javascript", b"1", True),
        ("TEXT/CSV", b"1,2", True),
        ("text/plain", b"\xff\xfe", False),
        ("application/x-www-form-urlencoded", b"a=1", False),
        ("application/octet-stream", b"abc", False),
        ("image/png", b"\x89PNG", False),
        ("", b"abc", False),
    ],
)
def test_text_stays_text_and_everything_else_is_base64(content_type: str, body: bytes, *, text: bool) -> None:
    """By the type, and only if it is UTF-8."""
    event = told(headers=[("Content-Type", content_type)], body=body)
    assert event["isBase64Encoded"] is not text
    assert event["body"] == (body.decode() if text else b64encode(body).decode())


def test_what_is_not_for_the_function_is_not_told() -> None:
    """The node's own token, where it wants one."""
    headers = [("Authorization", "Bearer secret"), ("A", "b")]
    assert "secret" not in json.dumps(told(headers=headers, hidden=frozenset({"authorization"})))
    assert told(headers=headers)["headers"]["authorization"] == "Bearer secret"


@given(
    headers=st.lists(st.tuples(st.text(min_size=1), st.text(st.characters(exclude_categories=())))),
    query=st.text(st.characters(exclude_categories=())),
    body=st.binary(),
)
def test_whatever_is_asked_makes_an_event(headers: list[tuple[str, str]], query: str, body: bytes) -> None:
    """Also what was no UTF-8: servers hand such bytes on as surrogates."""
    readable = [(name, value.encode("utf-8", "replace").decode()) for name, value in headers]
    event = told(headers=readable, query=query.encode("utf-8", "replace").decode(), body=body)
    assert event["version"] == "2.0"


def test_bytes_that_are_no_text_are_replaced() -> None:
    """In headers, cookies and parameters."""
    event = told(headers=[("A", "x\udcff"), ("Cookie", "c=\udcff")], query="q=%FF")
    assert (event["headers"]["a"], event["cookies"], event["queryStringParameters"]) == ("x�", ["c=�"], {"q": "�"})


@pytest.mark.parametrize("result", [b'"Hello"', b"null", b"[1]", b"1.5", b'{"message":"Hello"}', b'{"body":"x"}'])
def test_a_result_without_a_status_is_the_body(result: bytes) -> None:
    """As it is, with 200 and application/json."""
    response = response_of(result)
    assert response is not None
    assert (response.status, response.headers, response.body) == (200, [JSON_TYPE], result)


@pytest.mark.parametrize(
    ("result", "status", "headers", "body"),
    [
        ({"statusCode": 204}, 204, [JSON_TYPE], b""),
        ({"statusCode": "201", "body": "ü"}, 201, [JSON_TYPE], "ü".encode()),
        ({"statusCode": 302, "headers": {"location": "/x"}}, 302, [("location", "/x"), JSON_TYPE], b""),
        ({"statusCode": 200, "headers": {"Content-Type": "image/png"}, "body": "iVBO", "isBase64Encoded": True}, 200,
         [("Content-Type", "image/png")], b"\x89PN"),
        ({"statusCode": 200, "cookies": ["a=1; Secure", "b=2"]}, 200,
         [("Set-Cookie", "a=1; Secure"), ("Set-Cookie", "b=2"), JSON_TYPE], b""),
        ({"statusCode": 200, "headers": {"x-n": 1, "x-b": True, "x-0": None}}, 200,
         [("x-n", "1"), ("x-b", "true"), ("x-0", ""), JSON_TYPE], b""),
        ({"statusCode": 200, "headers": {"Content-Length": "9", "Connection": "close"}}, 200, [JSON_TYPE], b""),
        ({"statusCode": 200, "more": 1, "body": None, "headers": None}, 200, [JSON_TYPE], b""),
    ],
)  # fmt: skip
def test_a_result_with_a_status_is_the_response(
    result: dict[str, Any], status: int, headers: list[tuple[str, str]], body: bytes
) -> None:
    """Status, headers, cookies and body, which may be base64; how it is sent is not the function's business."""
    response = response_of(json.dumps(result).encode())
    assert response is not None
    assert (response.status, list(response.headers), response.body) == (status, headers, body)


@pytest.mark.parametrize(
    "result",
    [
        b"",
        b"no JSON",
        {"statusCode": None},
        {"statusCode": "OK"},
        {"statusCode": 200.5},
        {"statusCode": True},
        {"statusCode": 99},
        {"statusCode": 101},
        {"statusCode": 600},
        {"statusCode": "2000"},
        {"statusCode": 200, "body": {"a": 1}},
        {"statusCode": 200, "body": "!", "isBase64Encoded": True},
        {"statusCode": 200, "headers": ["a"]},
        {"statusCode": 200, "headers": {"a": ["b"]}},
        {"statusCode": 200, "headers": {"a b": "c"}},
        {"statusCode": 200, "headers": {"a": "x\r\nSet-Cookie: y"}},
        {"statusCode": 200, "cookies": "a=1"},
        {"statusCode": 200, "cookies": ["a=1\nb"]},
    ],
)
def test_what_is_no_response_is_malformed(result: Any) -> None:
    """A function cannot smuggle a second header line, or send what HTTP cannot say."""
    assert response_of(result if isinstance(result, bytes) else json.dumps(result).encode()) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.binary() | JSON.map(lambda value: json.dumps({"statusCode": 200, "headers": value}).encode()))
def test_reading_a_result_never_fails(result: bytes) -> None:
    """Whatever a function returns."""
    response = response_of(result)
    assert response is None or response.status == 200
