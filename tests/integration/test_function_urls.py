"""URLs of functions in sandboxes on a real node, with Powertools for AWS as the judge of the event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from tests.support.invoke_rig import invoke_rig

if TYPE_CHECKING:
    from pathlib import Path

SHOP = """
import time

from aws_lambda_powertools.event_handler import LambdaFunctionUrlResolver, Response

app = LambdaFunctionUrlResolver()


@app.get("/items/<number>")
def item(number):
    query = app.current_event.query_string_parameters or {}
    return {"number": number, "colour": query.get("colour"), "cookies": app.current_event.cookies}


@app.post("/echo")
def echo():
    return Response(status_code=201, content_type="application/octet-stream", body=app.current_event.decoded_body[::-1])


@app.delete("/slow")
def slow():
    time.sleep(60)


@app.put("/raise")
def broken():
    raise ValueError("a secret")


def handler(event, context):
    return app.resolve(event, context)
"""


@pytest.mark.timeout(90)
async def test_powertools_serves_requests_to_a_functions_url(redis_url: str, tmp_path: Path) -> None:
    """Routes, parameters, cookies and bodies; a time-out and an error are 502, and a function without a URL is none."""
    code = tmp_path / "shop"
    code.mkdir()
    (code / "shop.py").write_text(SHOP)
    shop = {"handler": "shop.handler", "code": str(code), "timeout": 10, "memory": 256, "http": True}
    hasty = {**shop, "timeout": 1}
    tokens: dict[str, Any] = {"auth": {"tokens": ["${env:TOKEN}"]}}
    async with (
        invoke_rig(tmp_path, redis_url, {"shop": shop, "hasty": hasty}, env={"TOKEN": "t"}, **tokens) as rig,
        aiohttp.ClientSession(rig.url) as client,
    ):
        async with client.get("/functions/shop/url/items/7") as answer:
            assert answer.status == 401
        client.headers["Authorization"] = "Bearer t"
        headers = {"Cookie": "a=1; b=2"}
        async with client.get("/functions/shop/url/items/7?colour=dark%20red", headers=headers) as answer:
            assert (answer.status, answer.content_type) == (200, "application/json")
            assert await answer.json() == {"number": "7", "colour": "dark red", "cookies": ["a=1", "b=2"]}
        async with client.post("/functions/shop/url/echo", json="ab") as answer:
            assert (answer.status, await answer.text()) == (201, '"ba"')
        async with client.get("/functions/shop/url/nothing") as answer:
            assert answer.status == 404
            assert answer.content_type == "application/json"
        for path, method in (("hasty/url/slow", "DELETE"), ("shop/url/raise", "PUT")):
            async with client.request(method, f"/functions/{path}") as answer:
                assert (answer.status, await answer.text()) == (502, "Internal Server Error")
        async with client.get("/functions/local/url/") as answer:
            assert answer.status == 404
        async with client.get("/metrics") as answer:
            lines = (await answer.text()).splitlines()
        for result, count in (("ok", 3), ("error", 1)):
            assert f'esm_frontend_invocations_total{{function="shop",result="{result}"}} {count}.0' in lines
