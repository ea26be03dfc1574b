"""Functions of the Lambda API, as boto3 uses it: read, made, changed, deleted; and what is refused."""

from __future__ import annotations

import asyncio
import io
import json
import os
import platform
from base64 import b64encode
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from botocore.validate import ParamValidator

from controlplane import lambda_definitions
from invocation.settings import HandlerFunction, LambdaFunction, RieFunction, UrlFunction
from model.errors import StoreUnavailableError
from model.function_config import FunctionPart
from model.function_definition import definitions
from model.secret import SecretText
from node.credentials import BearerTokens, SignedRequests
from statemgr.memory_store import MemoryStore
from tests.support.archives import archive, handler
from tests.support.aws_servers import CREDENTIALS
from tests.support.definitions_rig import ARN, RUNTIME, definitions_rig, made
from tests.support.lambda_client import lambda_calls

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.definitions_rig import DefinitionsRig

NOT_FOUND = (404, "ResourceNotFoundException")
PARAMETER = (400, "InvalidParameterValueException")


def shown(code: bytes) -> str:
    """Return a hash as AWS shows it."""
    return b64encode(sha256(code).digest()).decode()


def versions(rig: DefinitionsRig, name: str) -> set[str]:
    """Return the versions on disk."""
    return {path.name for path in (rig.folder / name).iterdir() if path.is_dir()}


async def test_a_function_is_made_read_changed_and_deleted(tmp_path: Path) -> None:
    """Everything given is shown again; the code is in the store and on disk; changes leave the rest as it was."""
    async with definitions_rig(tmp_path) as rig:
        first, second = handler(1), handler(2)
        variables = {"Variables": {"COLOUR": "red"}}
        wish = made(code=first, Timeout=7, MemorySize=256, Description="d", Environment=variables, Tags={"a": "b"})
        answer = await rig.call("create_function", **wish)
        expected = {key: wish[key] for key in wish.keys() - {"Code", "Tags"}}
        assert expected.items() <= answer.items()
        assert (answer["CodeSize"], answer["CodeSha256"]) == (len(first), shown(first))
        assert (answer["State"], answer["LastUpdateStatus"], answer["Version"]) == ("Active", "Successful", "$LATEST")
        assert await rig.store.code.code(sha256(first).hexdigest()) == first
        assert rig.side.uploaded.functions["up"].code == str(rig.folder / "up" / sha256(first).hexdigest())
        got = await rig.call("get_function", FunctionName=ARN + "up")
        assert got == {"Configuration": answer, "Tags": {"a": "b"}}
        assert await rig.call("get_function_configuration", FunctionName="up", Qualifier="$LATEST") == answer
        assert await rig.call("list_versions_by_function", FunctionName="up") == {"Versions": [answer]}
        assert await rig.call("list_tags", Resource=ARN + "up") == {"Tags": {"a": "b"}}

        stale = answer["RevisionId"]
        changed = await rig.call("update_function_code", FunctionName="up", ZipFile=second, RevisionId=stale)
        assert (changed["CodeSha256"], changed["Timeout"], changed["Environment"]) == (shown(second), 7, variables)
        assert changed["RevisionId"] != stale
        assert (await rig.refusal("update_function_code", FunctionName="up", ZipFile=first, RevisionId=stale))[0] == 412
        configured = await rig.call("update_function_configuration", FunctionName="up", Timeout=9, Environment={})
        assert (configured["Timeout"], configured["MemorySize"], "Environment" in configured) == (9, 256, False)
        assert configured["CodeSha256"] == shown(second)
        function = rig.side.uploaded.functions["up"]
        assert (function.timeout_s, function.memory_mb, function.environment) == (9.0, 256, {})

        await rig.call("delete_function", FunctionName="up")
        assert (await rig.refusal("get_function", FunctionName="up"))[:2] == NOT_FOUND
        assert (await rig.refusal("delete_function", FunctionName="up"))[:2] == NOT_FOUND
        assert rig.side.uploaded.functions == {}
        await rig.call("create_function", **made(code=first))


async def test_a_trial_changes_nothing(tmp_path: Path) -> None:
    """DryRun says what would be, and that an archive is bad."""
    async with definitions_rig(tmp_path) as rig:
        before = await rig.call("create_function", **made())
        tried = await rig.call("update_function_code", FunctionName="up", ZipFile=handler(2), DryRun=True)
        assert tried["CodeSha256"] == shown(handler(2))
        assert await rig.call("get_function_configuration", FunctionName="up") == before
        refused = await rig.refusal("update_function_code", FunctionName="up", ZipFile=b"no", DryRun=True)
        assert refused == (
            *PARAMETER,
            "Could not unzip uploaded file. Please check your file, then try to upload again.",
        )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"Runtime": "python3.99"}, "this node has python3"),
        ({"Runtime": "ruby3.3"}, "python3.N, nodejs or provided"),
        ({"Runtime": "provided.al2023"}, "needs an executable `bootstrap`"),
        ({"Timeout": 901}, "Member must have value less than or equal to 900"),
        ({"MemorySize": 20_000}, "Member must have value less than or equal to 10240"),
        ({"Publish": True}, "there are no versions here"),
        ({"Layers": ["arn:aws:lambda:us-east-1:000000000000:layer:l:1"]}, "Layers: not available here"),
        ({"VpcConfig": {"SubnetIds": ["subnet-1"]}}, "VpcConfig: not available here"),
        ({"EphemeralStorage": {"Size": 1024}}, "EphemeralStorage: not available here"),
        ({"PackageType": "Image"}, "Only functions of PackageType Zip"),
        ({"Code": {"S3Bucket": "b-b", "S3Key": "k"}}, "ZipFile only"),
        ({"Code": {"ImageUri": "i"}}, "ZipFile only"),
        ({"Code": {"ZipFile": archive({"../x.py": "x"})}}, "leads out of the folder"),
        ({"Environment": {"Variables": {"AWS_REGION": "x"}}}, "is set by the node"),
        ({"Environment": {"Variables": {"A": "x" * 4096}}}, "more than 4 KB"),
        ({"Environment": {"Variables": {"A": "my ${env:HOME}"}}}, "must not refer to a secret"),
        ({"Environment": {"Variables": {"A": "${file:/etc/shadow}"}}}, "must not refer to a secret"),
        ({"FunctionName": "up:7"}, "without a qualifier"),
        ({"FunctionName": "no/name"}, "a function's name or ARN"),
        ({"Architectures": ["arm64" if platform.machine() == "x86_64" else "x86_64"]}, "Architectures: this node is"),
    ],
)
async def test_what_cannot_be_had_is_refused(tmp_path: Path, more: Any, message: str) -> None:
    """In a sentence that says what it is; nothing is made of it."""
    async with definitions_rig(tmp_path) as rig:
        status, _, text = await rig.refusal("create_function", **made(**more))
        assert (status, message in text) == (400, True), text
        assert definitions(await rig.store.functions.functions()) == {}


async def test_what_sdks_and_terraform_spell_out_is_taken(tmp_path: Path) -> None:
    """Defaults that others send along stand for what is so anyway."""
    usual: dict[str, Any] = {
        "Publish": False,
        "Layers": [],
        "VpcConfig": {"SubnetIds": [], "SecurityGroupIds": []},
        "TracingConfig": {"Mode": "PassThrough"},
        "EphemeralStorage": {"Size": 512},
        "PackageType": "Zip",
        "DeadLetterConfig": {},
    }
    async with definitions_rig(tmp_path) as rig:
        answer = await rig.call("create_function", **made(FunctionName=ARN + "up", **usual))
        assert (answer["FunctionName"], answer["Timeout"], answer["MemorySize"]) == ("up", 3, 128)


async def test_unless_the_file_says_so_nothing_is_made(tmp_path: Path) -> None:
    """The setting is off by default: no code is taken, what another node of the fleet has made does not run here."""
    store = MemoryStore()
    async with definitions_rig(tmp_path / "a", store=store) as maker:
        await maker.call("create_function", **made())
    async with definitions_rig(tmp_path / "b", store=store, on=False) as rig:
        await rig.side.uploaded.refresh()
        assert rig.side.uploaded.functions == {}
        assert not rig.folder.exists()
        for operation, parameters in (
            ("create_function", made("other")),
            ("update_function_code", {"FunctionName": "up", "ZipFile": b"x"}),
            ("update_function_configuration", {"FunctionName": "up"}),
            ("delete_function", {"FunctionName": "up"}),
        ):
            status, code, text = await rig.refusal(operation, **parameters)
            assert (status, code) == (403, "AccessDeniedException")
            assert "control_plane: {create_functions: true}" in text
        got = await rig.call("get_function_configuration", FunctionName="up")
        assert (got["State"], got["StateReason"]) == ("Failed", "This node runs no functions that the API made.")


def kinds(code: Path) -> dict[str, Any]:
    """Return functions of files, one of each kind."""
    secret = {"TOKEN": SecretText("hunter2-planted")}
    return {
        "local": HandlerFunction("local", "app.handler", str(code), timeout_s=2.5, environment=secret),
        "web": UrlFunction("web", "https://user-secret.internal/hunter2-planted", headers=secret),
        "aws": LambdaFunction("aws", "arn:aws:lambda:eu-west-1:123456789012:function:thumbs"),
        "box": RieFunction("box", ("http://127.0.0.1:1",)),
    }


async def test_functions_of_files_are_told_as_far_as_is_true(tmp_path: Path) -> None:
    """A handler's code, a URL's timeout, no invented handlers, no secret; and none of them can be changed."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "app.py").write_bytes(b"12345")
    async with definitions_rig(tmp_path, functions=kinds(code)) as rig:
        await rig.call("create_function", **made("another"))
        await rig.store.functions.put_part("local", FunctionPart.CONCURRENCY, b"3")
        listed = (await rig.call("list_functions"))["Functions"]
        found = {one["FunctionName"]: one for one in listed}
        assert list(found) == ["another", "aws", "box", "local", "web"]
        local = found["local"]
        assert (local["Runtime"], local["Handler"], local["Timeout"], local["CodeSize"]) == (
            RUNTIME,
            "app.handler",
            3,
            5,
        )
        assert local["Environment"]["Error"]["ErrorCode"] == "AccessDeniedException"
        assert (local["State"], len(local["CodeSha256"])) == ("Active", 44)
        assert found["web"]["Timeout"] == 30
        assert found["aws"]["FunctionArn"] == "arn:aws:lambda:eu-west-1:123456789012:function:thumbs"
        for name in ("aws", "box", "web"):
            assert found[name].keys().isdisjoint({"Handler", "Runtime", "MemorySize", "CodeSize", "State"})
        assert "hunter2" not in json.dumps(listed)
        assert "internal" not in json.dumps(listed)
        assert await rig.call("list_tags", Resource=ARN + "local") == {"Tags": {}}
        got = await rig.call("get_function", FunctionName="local")
        assert got == {"Configuration": local, "Concurrency": {"ReservedConcurrentExecutions": 3}}
        conflict = (409, "ResourceConflictException")
        listed_there = "Function local is listed in a file of this node: change it there."
        for operation, parameters in (
            ("update_function_code", {"ZipFile": handler(1)}),
            ("update_function_configuration", {"Timeout": 5}),
            ("delete_function", {}),
        ):
            assert await rig.refusal(operation, FunctionName="local", **parameters) == (*conflict, listed_there)
        refused = await rig.refusal("create_function", **made("local"))
        assert refused == (*conflict, f"Function already exist: local. {listed_there}")
        assert await rig.refusal("create_function", **made("another")) == (*conflict, "Function already exist: another")


async def test_answers_hold_nothing_that_aws_has_no_name_for(tmp_path: Path) -> None:
    """Every member is in botocore's model, with its type."""
    (tmp_path / "app.py").write_bytes(b"")
    async with definitions_rig(tmp_path, functions=kinds(tmp_path)) as rig:
        await rig.call("create_function", **made(Environment={"Variables": {"A": "1"}}, Tags={"a": "b"}))
        model = rig.client.meta.service_model
        async with aiohttp.ClientSession(rig.url) as http:
            async with http.get("/2015-03-31/functions/") as answer:
                functions = (await answer.json())["Functions"]
            async with http.get("/2015-03-31/functions/up") as answer:
                whole = await answer.json()
        assert set(whole) <= set(model.shape_for("GetFunctionResponse").members)
        shape = model.shape_for("FunctionConfiguration")
        assert len(functions) == 5
        for document in (*functions, whole["Configuration"]):
            assert set(document) <= set(shape.members)
            report = ParamValidator().validate(document, shape)
            assert not report.has_errors(), report.generate_report()


async def test_lists_come_in_pages(tmp_path: Path) -> None:
    """Fifty at most, fewer when asked; boto3's paginator finds each once; a bad marker is refused."""
    functions = {f"f{n:03}": UrlFunction(f"f{n:03}", "http://127.0.0.1:1") for n in range(60)}
    async with definitions_rig(tmp_path, functions=functions) as rig:
        first = await rig.call("list_functions", MaxItems=500)
        assert (len(first["Functions"]), "NextMarker" in first) == (50, True)
        rest = await rig.call("list_functions", Marker=first["NextMarker"])
        assert [len(rest["Functions"]), "NextMarker" in rest] == [10, False]
        pages = await asyncio.to_thread(
            lambda: list(rig.client.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 7}))
        )
        assert [one["FunctionName"] for page in pages for one in page["Functions"]] == sorted(functions)
        assert (await rig.refusal("list_functions", Marker="%%"))[:2] == PARAMETER


async def test_names_and_versions_that_are_not_there(tmp_path: Path) -> None:
    """Other accounts', other regions', other qualifiers', and versions that somebody wishes to publish."""
    async with definitions_rig(tmp_path) as rig:
        await rig.call("create_function", **made())
        for name in (
            "down",
            ARN.replace("000000000000", "123456789012") + "up",
            ARN.replace("us-", "eu-") + "up",
            "up:7",
        ):
            assert (await rig.refusal("get_function", FunctionName=name))[:2] == NOT_FOUND
        assert (await rig.refusal("get_function", FunctionName="up", Qualifier="live"))[:2] == NOT_FOUND
        assert (await rig.refusal("publish_version", FunctionName="up"))[:2] == PARAMETER
        assert (await rig.refusal("tag_resource", Resource=ARN + "up", Tags={"a": "b"}))[:2] == PARAMETER
        assert (await rig.refusal("untag_resource", Resource=ARN + "up", TagKeys=["a"]))[:2] == PARAMETER


async def test_all_code_together_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis holds it in memory; the same archive for several functions counts once."""
    code = archive({"app.py": b"", "more": os.urandom(10_000)})
    monkeypatch.setattr(lambda_definitions, "MAX_ALL_CODE_BYTES", 15_000)
    async with definitions_rig(tmp_path) as rig:
        await rig.call("create_function", **made("a", code))
        await rig.call("create_function", **made("b", code))
        other = archive({"app.py": b"", "more": os.urandom(10_000)})
        assert (await rig.refusal("create_function", **made("c", other)))[1] == "CodeStorageExceededException"
        await rig.call("update_function_code", FunctionName="a", ZipFile=handler(1))
        used = (await rig.call("get_account_settings"))["AccountUsage"]["TotalCodeSize"]
        assert used == len(code) + len(handler(1))


async def test_other_requests_stay_small(tmp_path: Path) -> None:
    """More than AWS takes is refused, and more than an event where no code can come."""
    async with definitions_rig(tmp_path) as rig, aiohttp.ClientSession(rig.url) as http:
        body = b" " * 7_000_000
        async with http.put("/2015-03-31/functions/up/configuration", data=io.BytesIO(body)) as answer:
            assert answer.status == 413
        async with http.post("/2015-03-31/functions", data=io.BytesIO(body + b"{}")) as answer:
            assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (400, "ValidationException")
        async with http.put("/2015-03-31/functions/up/code", data=io.BytesIO(b" " * 70_200_000)) as answer:
            assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (413, "RequestEntityTooLargeException")
            assert "smaller than 70167211 bytes for the UpdateFunctionCode operation" in await answer.text()


async def test_signed_uploads_and_readers(tmp_path: Path) -> None:
    """A signature covers an archive larger than an event; whoever may only read sees no variables."""
    keys = SignedRequests({CREDENTIALS["AWS_ACCESS_KEY_ID"]: CREDENTIALS["AWS_SECRET_ACCESS_KEY"]})
    credentials = (BearerTokens(["all"], read_only=["look"]), keys)
    async with definitions_rig(tmp_path, credentials=credentials) as rig:
        large = archive({"app.py": "", "noise": os.urandom(6_000_000)})
        answer = await rig.call("create_function", **made(code=large, Environment={"Variables": {"A": "planted"}}))
        assert answer["Environment"] == {"Variables": {"A": "planted"}}
        async with lambda_calls(rig.url, secret="wrong") as forger:
            with pytest.raises(forger.exceptions.ClientError, match="InvalidSignature"):
                await asyncio.to_thread(forger.update_function_code, FunctionName="up", ZipFile=large)
        async with aiohttp.ClientSession(rig.url, headers={"Authorization": "Bearer look"}) as http:
            async with http.get("/2015-03-31/functions/up/configuration") as answered:
                text = await answered.text()
                assert (answered.status, "planted" in text) == (200, False)
                assert json.loads(text)["Environment"]["Error"]["ErrorCode"] == "AccessDeniedException"
            async with http.delete("/2015-03-31/functions/up") as answered:
                assert answered.status == 403


async def test_changes_of_two_nodes_meet_in_the_store(tmp_path: Path) -> None:
    """A function is made once however many are asked for it; changes of different things both hold, everywhere."""
    store = MemoryStore()
    async with definitions_rig(tmp_path / "a", store=store) as one, definitions_rig(tmp_path / "b", store=store) as two:
        await one.call("create_function", **made(code=handler(0)))
        assert (await two.refusal("create_function", **made(code=handler(1))))[0] == 409
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(one.call("update_function_code", FunctionName="up", ZipFile=handler("new")))
            tasks.create_task(two.call("update_function_configuration", FunctionName="up", Timeout=8))
        for rig in (one, two):
            await rig.side.uploaded.refresh()
            got = await rig.call("get_function_configuration", FunctionName="up")
            assert (got["CodeSha256"], got["Timeout"], got["State"]) == (shown(handler("new")), 8, "Active")
            assert sha256(handler("new")).hexdigest() in versions(rig, "up")


async def test_a_store_that_is_away_and_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are answered so that clients try again, and nothing half is left; afterwards it works."""
    async with definitions_rig(tmp_path) as rig:

        async def away(*_: Any, **__: Any) -> None:
            raise StoreUnavailableError("redis: put_code: no answer in time")

        with monkeypatch.context() as patched:
            patched.setattr(rig.store.code, "put_code", away)
            assert (await rig.refusal("create_function", **made()))[:2] == (503, "ServiceException")
        assert definitions(await rig.store.functions.functions()) == {}
        (rig.folder / "full").write_text("a file in the way of the folder")
        status, code, text = await rig.refusal("create_function", **made("full"))
        assert (status, code, text) == (500, "ServiceException", "The node could not keep the code: Not a directory")
        (rig.folder / "full").unlink()
        for name in ("up", "full"):
            assert (await rig.call("create_function", **made(name)))["State"] == "Active"
