"""A node as users run it: `python -m node run` as a process of its own, with its words in a file.

    async with NodeProcess(tmp_path, document) as node:
        await node.start()
        assert (await node.status())["mappings"][0]["state"] == "Enabled"
        node.kill()

Whoever waits here waits for something the node said or shows, up to a limit that only a defect reaches.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil

from tests.support import leash

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

ROOT = Path(__file__).parents[2]
LIMIT_S = 60.0  # generous: reached by a defect only
_LOOK_S = 0.02
_ANSWER_S = 10.0


async def eventually(
    holds: Callable[[], Awaitable[Any] | Any], what: str | Callable[[], str], *, limit_s: float = LIMIT_S
) -> Any:
    """Ask again and again until the answer is truthy; return it. For what sends no signal."""
    deadline = time.monotonic() + limit_s
    while True:
        answer = holds()
        if hasattr(answer, "__await__"):
            answer = await answer
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {limit_s:g} s: {what() if callable(what) else what}"
        await asyncio.sleep(_LOOK_S)


def url_target(url: str, **more: Any) -> dict[str, Any]:
    """Return the `functions` section of a document with one function `f`."""
    return {"f": {"url": url, "timeout": 30, **more}}


def kafka_document(
    servers: str, topic: str, *, redis_url: str, functions: Mapping[str, Any], ttl_s: float = 3, **mapping: Any
) -> dict[str, Any]:
    """Make a node's configuration with one mapping `orders` from a topic to the function `f`."""
    return {
        "redis": {"url": redis_url},
        "leasing": {"ttl": ttl_s},
        "functions": dict(functions),
        "event_source_mappings": [kafka_mapping(servers, topic, **mapping)],
    }


def kafka_mapping(servers: str, topic: str, *, name: str = "orders", **more: Any) -> dict[str, Any]:
    """Make a mapping from a topic to the function `f`, with a consumer group named after the topic and itself."""
    return {
        "Name": name,
        "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": servers.split(",")}},
        "Topics": [topic],
        "FunctionName": "f",
        "StartingPosition": "TRIM_HORIZON",
        "SelfManagedKafkaEventSourceConfig": {"ConsumerGroupId": f"{topic}-{name}"},
        **more,
    }


class NodeProcess:
    """One process of the daemon. Its files are in `folder`, named after it."""

    def __init__(
        self,
        folder: Path,
        document: Mapping[str, Any] | str,
        *,
        name: str = "node",
        arguments: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.config = folder / f"{name}.yaml"
        self.log_file = folder / f"{name}.log"
        self.data_dir = folder / f"{name}-data"
        self._arguments = list(arguments)
        self._env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: list[dict[str, Any]] = []
        self._read_to = 0
        self.address = ""
        self.write(document)

    def write(self, document: Mapping[str, Any] | str) -> None:
        """Write the configuration file anew."""
        self.config.write_text(document if isinstance(document, str) else json.dumps(document, indent=1))

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self._process is not None and self._process.poll() is None

    # Starting and ending

    def spawn(self) -> None:
        """Start the process, without waiting for anything."""
        command = [sys.executable, "-m", "node", "run", str(self.config), "--log-format", "json"]
        if "--listen" not in self._arguments:
            command += ["--listen", "127.0.0.1:0"]
        command += ["--data-dir", str(self.data_dir), *self._arguments]
        with self.log_file.open("wb") as words:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, **self._env},
                start_new_session=True,
            )
        leash.hold(self._process)

    async def start(self, *, ready: bool = True) -> None:
        """Start the process and wait until it serves, and until it says it is ready."""
        self.spawn()
        self.address = (await self.logged("http.listening"))["address"]
        if ready:
            await self.ready()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._process is not None, "not started"
        self._process.send_signal(number)

    def kill(self) -> float:
        """End the process like a power cut; return the wall-clock time of it."""
        self.signal(signal.SIGKILL)
        at = time.time()
        assert self._process is not None
        self._process.wait(_ANSWER_S)
        return at

    async def ended(self, limit_s: float = LIMIT_S) -> int:
        """Wait for the process's end; return its exit status."""
        process = self._process
        assert process is not None, "not started"
        await eventually(
            lambda: process.poll() is not None, lambda: f"the end of {self.name}:\n{self.tail()}", limit_s=limit_s
        )
        assert process.returncode is not None
        return process.returncode

    async def stop(self) -> int:
        """Drain the node; return its exit status."""
        self.signal(signal.SIGTERM)
        return await self.ended()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.running:
            self.signal(signal.SIGCONT)
            self.kill()

    # What it says

    def printed(self) -> str:
        """Return all that it has printed."""
        return self.log_file.read_text(errors="replace")

    def tail(self, lines: int = 25) -> str:
        """Return the end of what it has printed."""
        return "\n".join(self.printed().splitlines()[-lines:])

    def log(self) -> list[dict[str, Any]]:
        """Return the log lines so far; text that is not a log line counts as none."""
        with self.log_file.open("rb") as words:
            words.seek(self._read_to)
            new = words.read()
        complete = new[: new.rfind(b"\n") + 1]
        self._read_to += len(complete)
        self._lines += [json.loads(line) for line in complete.splitlines() if line.startswith(b'{"timestamp"')]
        return self._lines

    def find(self, event: str, **facts: Any) -> list[dict[str, Any]]:
        """Return the log lines of an event with these facts."""
        return [line for line in self.log() if line["event"] == event and facts.items() <= line.items()]

    async def logged(self, event: str, *, count: int = 1, **facts: Any) -> dict[str, Any]:
        """Wait for the `count`-th log line of an event with these facts, and return it."""

        def there() -> dict[str, Any] | None:
            found = self.find(event, **facts)
            if len(found) < count:
                assert self.running, f"{self.name} ended without {event}:\n{self.tail()}"
                return None
            return found[count - 1]

        line: dict[str, Any] = await eventually(there, f"{event} {facts} of {self.name}")
        return line

    # What it serves

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Ask for a page; return its status and text."""
        return await asyncio.to_thread(_get, f"http://{self.address}{path}", dict(headers or {}))

    async def ready(self) -> None:
        """Wait until the node says it is ready."""

        async def answer() -> bool:
            assert self.running, f"{self.name} ended:\n{self.tail()}"
            return (await self.get("/readyz"))[0] == 200

        await eventually(answer, f"{self.name} is ready")

    async def status(self) -> dict[str, Any]:
        """Return the fleet's status as this node knows it."""
        code, text = await self.get("/esmd/v1/status")
        assert code == 200, text
        status: dict[str, Any] = json.loads(text)
        return status

    async def mapping(self, name: str = "orders") -> dict[str, Any]:
        """Return a mapping's part of the status; empty when there is no such mapping."""
        found: list[dict[str, Any]] = [m for m in (await self.status())["mappings"] if m["name"] == name]
        return found[0] if found else {}

    async def metrics(self) -> dict[str, float]:
        """Return the metrics, by name with labels as they are printed."""
        _, text = await self.get("/metrics")
        lines = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}

    def resident_bytes(self) -> int:
        """Return the memory the process has resident now."""
        return int(psutil.Process(self.pid).memory_info().rss)


def owners(mapping: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return from a mapping's status who holds which of its shards; shards without a holder are left out."""
    held: dict[str, list[str]] = {}
    for shard in mapping.get("shards", []):
        if shard["owner"] is not None:
            held.setdefault(shard["owner"], []).append(shard["id"])
    return held


def _get(url: str, headers: dict[str, str]) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_ANSWER_S) as answer:  # noqa: S310  our own node
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.read().decode()
