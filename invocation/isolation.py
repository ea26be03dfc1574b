"""What a sandbox is made of: command, environment, limits and views of the file system. Pure.

The keeper (`invocation.keeper`) carries it out. Level `process`: a process with limits, and of a user of its own if the
node is root. Level `bubblewrap`: besides, file system, process numbers and (unless allowed) network of its own.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from invocation.settings import Isolation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from invocation.runtimes import RuntimeCommand
    from invocation.settings import HandlerFunction

VERSION = "$LATEST"
KEEPER = Path(__file__).with_name("keeper.py")

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
_ETC = (
    "alternatives", "ca-certificates", "hosts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime",
    "nsswitch.conf", "pki", "resolv.conf", "ssl",
)  # fmt: skip
_BUBBLEWRAP_TASK, _BUBBLEWRAP_KEEPER, _BUBBLEWRAP_TEMP = "/var/task", "/var/runtime/keeper.py", "/tmp"  # noqa: S108 - in the sandbox
_BUBBLEWRAP_OWN = (_BUBBLEWRAP_TEMP, "/proc", "/dev")  # what a sandbox has there hides what the node has
_BUBBLEWRAP_ELSEWHERE = "/var/runtime/host"
_PRIVATE_PYTHON, _PRIVATE_TASK, _PRIVATE_PACKAGES = "python", "task", "packages"
_MIB = 1024 * 1024


class Limits(NamedTuple):
    """What one sandbox may use besides its memory. AWS's figures (quota page of the Lambda documentation)."""

    processes: int = 1024  # and threads
    files: int = 1024
    file_mb: int = 512


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sandbox lives and as whom.

    `scratch` belongs to the sandbox; `user` is None when the node may not change users. `user_processes` is how many
    processes that user has already, which matters when it is the node's own.
    """

    scratch: Path
    user: int | None
    user_processes: int = 0

    @property
    def temp(self) -> Path:
        """The folder that the function may write."""
        return self.scratch / "tmp"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a function is told about where it runs."""

    region: str
    arn: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What the keeper is told. All paths as the keeper sees them."""

    command: list[str]
    environment: dict[str, str]
    folder: str
    scratch: str
    user: int | None
    limits: dict[str, int]
    binds: list[tuple[str, str]] = field(default_factory=list)

    def encoded(self) -> bytes:
        """Return the line for the keeper."""
        return msgspec.json.encode(asdict(self)) + b"\n"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A plan, and the command line that starts its keeper up to the number of the control socket."""

    keeper: list[str]
    plan: Plan
    mount_points: list[str]  # folders to make in `scratch` before
    connecting_user: int | None  # whose connections the Runtime API takes; None where nobody else can connect
    own_processes: int  # how many processes stand between the keeper's and the runtime's


def sandbox(
    function: HandlerFunction,
    runtime: RuntimeCommand,
    place: Place,
    facts: Facts,
    variables: Mapping[str, str],
    *,
    log_stream: str,
    bubblewrap: str | None = None,
    reachable: Callable[[str], bool] = lambda _path: True,
    limits: Limits | None = None,
) -> Sandbox:
    """Plan one sandbox. `reachable` tells whether the function's user gets at a path of the node's file system."""
    limits = limits or Limits()
    code = str(Path(function.code).resolve())
    if bubblewrap is not None and function.isolation is Isolation.BUBBLEWRAP:
        views = _bubblewrap_views(runtime)
    else:
        views = _process_views(code, runtime, place, reachable)
    command = [word.replace(runtime.TASK, views.task) for word in views.command]
    environment = _environment(
        function, views, facts=facts, variables=variables, runtime=runtime, log_stream=log_stream
    )
    plan = Plan(
        command=command,
        environment=environment,
        folder=views.task,
        scratch=_BUBBLEWRAP_TEMP if views.temp == _BUBBLEWRAP_TEMP else str(place.scratch),
        user=place.user,
        limits=rlimits(function.memory_mb, limits, user_processes=place.user_processes),
        binds=views.binds,
    )
    points = [shown for _, shown in views.binds]
    if bubblewrap is None or function.isolation is Isolation.PROCESS:
        return Sandbox([_interpreter(), "-I", "-S", str(KEEPER)], plan, points, place.user, 0)
    keeper = bubblewrap_command(bubblewrap, function, code, runtime, place)
    # Between the two: bubblewrap's process number 1, and the keeper in it.
    return Sandbox(keeper, plan, points, place.user if function.network else None, 2)


class _Views(NamedTuple):
    """The paths by which a function knows its things, and what must be bound for that."""

    task: str
    temp: str
    command: list[str]
    packages: list[str]
    binds: list[tuple[str, str]]


def _process_views(code: str, runtime: RuntimeCommand, place: Place, reachable: Callable[[str], bool]) -> _Views:
    """Leave everything where it is, but for what the function's user cannot get at: a home of root's, mostly."""
    binds: list[tuple[str, str]] = []

    def shown(path: str, name: str) -> str:
        if reachable(path):
            return path
        target = str(place.scratch / name)
        binds.append((path, target))
        return target

    task = shown(code, _PRIVATE_TASK)
    command = list(runtime.command)
    if runtime.prefix is not None:
        prefix = shown(runtime.prefix, _PRIVATE_PYTHON)
        command = [
            prefix + word.removeprefix(runtime.prefix) if word.startswith(runtime.prefix) else word for word in command
        ]
    packages = [shown(path, f"{_PRIVATE_PACKAGES}{i}") for i, path in enumerate(runtime.packages)]
    return _Views(task, str(place.temp), command, packages, binds)


def _bubblewrap_views(runtime: RuntimeCommand) -> _Views:
    """Leave everything where it is, but for the code and for what the sandbox's own folders hide."""
    prefix = runtime.prefix
    command = [word if prefix is None or not _below(word, prefix) else _visible(word) for word in runtime.command]
    return _Views(_BUBBLEWRAP_TASK, _BUBBLEWRAP_TEMP, command, [_visible(path) for path in runtime.packages], [])


def _visible(path: str) -> str:
    """Return where bubblewrap shows a path of the node: a virtual environment may lie in `/tmp`."""
    return _BUBBLEWRAP_ELSEWHERE + path if any(_below(path, own) for own in _BUBBLEWRAP_OWN) else path


def rlimits(memory_mb: int, limits: Limits, *, user_processes: int = 0) -> dict[str, int]:
    """Return the limits of each process.

    The worker manager watches the memory of the sandbox as a whole; RLIMIT_DATA only bounds how much can be had between
    two looks, and leaves room for thread stacks, which are reserved and rarely used.
    """
    return {
        "RLIMIT_DATA": (2 * memory_mb + 512) * _MIB,
        "RLIMIT_NPROC": limits.processes + user_processes,
        "RLIMIT_NOFILE": limits.files,
        "RLIMIT_FSIZE": limits.file_mb * _MIB,
        "RLIMIT_CORE": 0,
        "RLIMIT_MEMLOCK": 64 * 1024,
    }


def _environment(
    function: HandlerFunction,
    views: _Views,
    *,
    facts: Facts,
    variables: Mapping[str, str],
    runtime: RuntimeCommand,
    log_stream: str,
) -> dict[str, str]:
    """Build the environment from nothing (spec section 8): the node's own holds its secrets."""
    changeable = {
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "PATH": "/usr/local/bin:/usr/bin:/bin:/opt/bin",
        "HOME": views.temp,
        "TMPDIR": views.temp,
    }
    reserved = {
        "_HANDLER": function.handler,
        "AWS_REGION": facts.region,
        "AWS_DEFAULT_REGION": facts.region,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{runtime.name}",
        "AWS_LAMBDA_FUNCTION_NAME": function.name,
        "AWS_LAMBDA_FUNCTION_VERSION": VERSION,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{function.name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": log_stream,
        "LAMBDA_TASK_ROOT": views.task,
        "LAMBDA_RUNTIME_DIR": runtime.folder.replace(runtime.TASK, views.task),
    }
    environment = changeable | dict(variables) | reserved
    if views.packages:
        own = [variables["PYTHONPATH"]] if variables.get("PYTHONPATH") else []
        environment["PYTHONPATH"] = ":".join([*own, *views.packages])
    return environment


def bubblewrap_command(
    program: str, function: HandlerFunction, code: str, runtime: RuntimeCommand, place: Place
) -> list[str]:
    """Return the command line that starts the keeper inside bubblewrap.

    The root holds what programs need to run, read-only, and nothing of the node: no home folder, no data, no
    configuration. Without a network of the node's the Runtime API is reachable all the same: the keeper makes its
    listener inside, on the sandbox's own loopback, and hands it out.
    """
    command = [program, "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--clearenv"]
    if not function.network:
        command.append("--unshare-net")
    if place.user is not None:
        for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_KILL"):  # for the keeper, to become the function's user
            command += ["--cap-add", capability]
    for path in _SYSTEM:
        command += ["--ro-bind-try", path, path]
    for name in _ETC:
        command += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    shown = {
        _visible(path): path
        for path in (sys.base_prefix, runtime.prefix, *runtime.packages)
        if path and not any(_below(path, root) for root in _SYSTEM)
    }
    shown |= {_BUBBLEWRAP_TASK: code, _BUBBLEWRAP_KEEPER: str(KEEPER)}
    # Made first, for everybody to enter: those that bubblewrap makes by itself are for its own user.
    for folder in sorted({str(parent) for path in shown for parent in Path(path).parents} - {"/"}):
        command += ["--dir", folder]
    for path, source in shown.items():
        command += ["--ro-bind", source, path]
    command += ["--proc", "/proc", "--dev", "/dev", "--bind", str(place.temp), _BUBBLEWRAP_TEMP]
    return [*command, "--", _visible(_interpreter()), "-I", "-S", _BUBBLEWRAP_KEEPER]


def _interpreter() -> str:
    """Return the interpreter itself: a virtual environment only adds packages, which the keeper does not use."""
    return os.path.realpath(sys.executable)


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")
