"""Secret references: where their values come from, how long they are kept, and that they never show."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from config.secrets import KEPT_S, MAX_SECRET_BYTES, Secrets
from model.errors import RefusedError, UnavailableError
from model.secret import SecretText

if TYPE_CHECKING:
    from pathlib import Path


class FakeSecretsManager:
    """Answers from a dict; waits where it is told to."""

    def __init__(self, **values: str) -> None:
        self.values = values
        self.asked: list[str] = []
        self.reachable = True

    async def fetch(self, arn: str) -> str:
        """Return the value of the moment."""
        self.asked.append(arn)
        await asyncio.sleep(1)
        if not self.reachable:
            raise UnavailableError(f"${{secretsmanager:{arn}}}: Secrets Manager cannot be reached")
        return self.values[arn]


async def test_references_are_replaced_inside_text(tmp_path: Path) -> None:
    """Environment, files and plain text around them come together; a file's last line end is not part of it."""
    (tmp_path / "user").write_bytes("jürgen\n".encode())
    secrets = Secrets(environ={"PW": "hunter2"})
    text = SecretText(f"redis://${{file:{tmp_path}/user}}:${{env:PW}}@h/${{env:PW}}")
    assert await secrets.resolve(text) == "redis://jürgen:hunter2@h/hunter2"
    assert await secrets.resolve(SecretText("plain $text {}")) == "plain $text {}"


async def test_a_value_is_not_searched_for_references() -> None:
    """What a secret contains is taken as it is, even if it looks like a reference."""
    assert await Secrets(environ={"A": "${env:B}", "B": "x"}).resolve(SecretText("${env:A}")) == "${env:B}"


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("gone", None, "No such file"),
        ("latin", b"hunter2\xe9", "not UTF-8"),
        ("huge", b"x" * (MAX_SECRET_BYTES + 1), "larger"),
    ],
)
async def test_a_file_without_a_secret_is_refused(tmp_path: Path, name: str, content: bytes | None, why: str) -> None:
    """A reference to a missing or unusable file names the reference only, in the whole chain of errors."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RefusedError, match=why) as caught:
        await Secrets(environ={}).resolve(SecretText(f"${{file:{tmp_path / name}}}"))
    assert str(caught.value).startswith(f"${{file:{tmp_path / name}}}: ")
    assert "hunter2" not in f"{caught.value}{caught.value.__cause__!r}"


async def test_an_unset_variable_is_refused() -> None:
    """An environment variable that is not set is named; an empty one is a value."""
    with pytest.raises(RefusedError, match=r"^\$\{env:GONE\}: the environment variable is not set$"):
        await Secrets(environ={}).resolve(SecretText("x${env:GONE}"))
    assert await Secrets(environ={"E": ""}).resolve(SecretText("${env:E}")) == ""


@pytest.mark.looptime
async def test_values_are_kept_for_minutes() -> None:
    """A value is asked for again only after a few minutes, or after `forget`; then a rotated one is seen."""
    manager = FakeSecretsManager(arn="one")
    secrets = Secrets(secrets_manager=manager)
    text = SecretText("${secretsmanager:arn}")
    assert await secrets.resolve(text) == "one"
    manager.values["arn"] = "two"
    await asyncio.sleep(KEPT_S - 10)
    assert await secrets.resolve(text) == "one"
    await asyncio.sleep(11)
    assert await secrets.resolve(text) == "two"
    secrets.forget()
    assert await secrets.resolve(text) == "two"
    assert len(manager.asked) == 3


@pytest.mark.looptime
async def test_many_who_ask_at_once_cause_one_request() -> None:
    """Concurrent askers share one request; a failure is not remembered."""
    manager = FakeSecretsManager(arn="one")
    secrets = Secrets(secrets_manager=manager)
    async with asyncio.TaskGroup() as tasks:
        found = [tasks.create_task(secrets.resolve(SecretText("${secretsmanager:arn}"))) for _ in range(10)]
    assert {task.result() for task in found} == {"one"}
    assert manager.asked == ["arn"]
    secrets.forget()
    manager.reachable = False
    with pytest.raises(UnavailableError):
        await secrets.resolve(SecretText("${secretsmanager:arn}"))
    manager.reachable = True
    assert await secrets.resolve(SecretText("${secretsmanager:arn}")) == "one"


@pytest.mark.looptime
async def test_an_asker_who_gives_up_leaves_the_way_free() -> None:
    """Cancelling one who waits for a secret does not block the next."""
    secrets = Secrets(secrets_manager=FakeSecretsManager(arn="one"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await secrets.resolve(SecretText("${secretsmanager:arn}"))
    assert await secrets.resolve(SecretText("${secretsmanager:arn}")) == "one"
    assert "one" not in repr(secrets)
