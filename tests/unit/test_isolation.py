"""What sandboxes are made of: `invocation.isolation`, `invocation.runtimes`, `invocation.sandbox_users`."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from invocation.isolation import KEEPER, Facts, Limits, Place, Sandbox, rlimits, sandbox
from invocation.runtimes import RuntimeCommand, runtime_command
from invocation.sandbox_users import FIRST_USER, LAST_USER, SandboxUsers, processes_of, reachable, user_of_connection
from invocation.sandboxes import capacity
from invocation.settings import HandlerFunction, Isolation, SandboxSettings

PYTHON = RuntimeCommand("python3.11", ("/opt/py/bin/python", "-m", "c"), "/packages", "/opt/py", ("/packages",))
SHELL = RuntimeCommand("provided", ("{task}/bootstrap",), "{task}")
PLACE = Place(Path("/scratch"), 60600)


def planned(
    runtime: RuntimeCommand = PYTHON, *, hidden: str = "/nowhere", variables: dict[str, str] | None = None, **more: Any
) -> Sandbox:
    """Plan a sandbox for a function in /code; what begins with `hidden` is not reachable."""
    function = HandlerFunction("f", "app.handler", "/code", memory_mb=256, **more)
    return sandbox(
        function,
        runtime,
        PLACE,
        Facts("eu-west-1", "arn"),
        variables or {},
        log_stream="stream",
        bubblewrap="/usr/bin/bwrap",
        reachable=lambda path: not path.startswith(hidden),
    )


def test_everything_stays_where_it_is_as_long_as_it_can_be_reached() -> None:
    """The keeper is started by the node's own interpreter, the function by its runtime's."""
    made = planned()
    assert made.keeper == [os.path.realpath(sys.executable), "-I", "-S", str(KEEPER)]
    assert (made.plan.command, made.plan.folder, made.plan.binds) == (list(PYTHON.command), "/code", [])
    assert made.plan.environment["PYTHONPATH"] == "/packages"
    assert (made.connecting_user, made.own_processes, made.plan.user) == (60600, 0, 60600)


def test_what_the_user_cannot_reach_is_shown_in_the_sandboxs_folder() -> None:
    """An interpreter in root's home, for one: command and environment name the place where it is shown."""
    made = planned(hidden="/opt/py")
    assert made.plan.command[0] == "/scratch/python/bin/python"
    assert (made.plan.binds, made.mount_points) == ([("/opt/py", "/scratch/python")], ["/scratch/python"])
    made = planned(SHELL, hidden="/code")
    assert (made.plan.command, made.plan.folder) == (["/scratch/task/bootstrap"], "/scratch/task")
    assert made.plan.environment["LAMBDA_TASK_ROOT"] == "/scratch/task"


def test_configured_variables_win_over_what_may_be_changed_and_never_over_what_may_not() -> None:
    """PYTHONPATH is kept and added to; nothing comes from this process."""
    given = {"TZ": "Europe/Berlin", "PYTHONPATH": "/mine", "AWS_REGION": "mars", "OWN": "1"}
    environment = planned(variables=given).plan.environment
    assert (environment["TZ"], environment["OWN"]) == ("Europe/Berlin", "1")
    assert environment["PYTHONPATH"] == "/mine:/packages"
    assert environment["AWS_REGION"] == "eu-west-1"
    assert environment["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "256"
    assert set(environment) & set(os.environ) <= {"LANG", "TZ", "PATH", "HOME", "TMPDIR", "PYTHONPATH", "AWS_REGION"}
    assert environment["HOME"] == environment["TMPDIR"] == "/scratch/tmp"


def test_limits_leave_room_for_what_the_user_runs_already() -> None:
    """Where sandboxes have the node's own user, its processes count too."""
    limits = rlimits(128, Limits(processes=50, files=60, file_mb=2), user_processes=7)
    assert limits["RLIMIT_NPROC"] == 57
    assert limits["RLIMIT_NOFILE"] == 60
    assert limits["RLIMIT_FSIZE"] == 2 * 1024 * 1024
    assert limits["RLIMIT_CORE"] == 0
    assert 128 * 1024 * 1024 < limits["RLIMIT_DATA"] < 1024 * 1024 * 1024


def test_bubblewrap_shows_the_system_the_code_and_nothing_else() -> None:
    """Read-only, without network, unless it is allowed."""
    made = planned(isolation=Isolation.BUBBLEWRAP)
    words = " ".join(made.keeper)
    assert made.keeper[0] == "/usr/bin/bwrap"
    assert "--unshare-net" in made.keeper
    assert "--ro-bind /code /var/task" in words
    assert "--bind /scratch/tmp /tmp" in words
    assert [made.keeper[i + 1] for i, word in enumerate(made.keeper) if word == "--bind"] == ["/scratch/tmp"]
    assert "--cap-add CAP_SETUID" in words
    assert made.plan.folder == "/var/task"
    assert made.plan.environment["TMPDIR"] == made.plan.scratch == "/tmp"  # noqa: S108 its own
    assert (made.connecting_user, made.own_processes) == (None, 2)
    allowed = planned(isolation=Isolation.BUBBLEWRAP, network=True)
    assert "--unshare-net" not in allowed.keeper
    assert allowed.connecting_user == 60600


def test_bubblewrap_shows_elsewhere_what_its_own_folders_hide() -> None:
    """A virtual environment, or an interpreter, that lies in the node's `/tmp`."""
    own = "/tmp"  # noqa: S108 - of the sandbox
    python, packages = f"{own}/py", f"{own}/venv/packages"
    runtime = RuntimeCommand("python3.11", (f"{python}/bin/python", "-m", "c"), packages, python, (packages,))
    made = planned(runtime, isolation=Isolation.BUBBLEWRAP)
    words = " ".join(made.keeper)
    assert f"--ro-bind {python} /var/runtime/host{python}" in words
    assert f"--ro-bind {packages} /var/runtime/host{packages}" in words
    assert made.plan.command == [f"/var/runtime/host{python}/bin/python", "-m", "c"]
    assert made.plan.environment["PYTHONPATH"] == f"/var/runtime/host{packages}"


def test_node_js_is_run_with_the_client_in_the_functions_own_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the sandbox shows the code."""
    client = tmp_path / "code/node_modules/aws-lambda-ric"
    client.mkdir(parents=True)
    (client / "package.json").write_text('{"bin": {"aws-lambda-ric": "./bin/index.mjs"}}')
    node = tmp_path / "node/bin/node"
    node.parent.mkdir(parents=True)
    node.write_text("")
    node.chmod(0o755)
    monkeypatch.setenv("PATH", str(node.parent))
    found = runtime_command(HandlerFunction("f", "index.handler", str(tmp_path / "code"), "nodejs20.x"))
    program = "{task}/node_modules/aws-lambda-ric/bin/index.mjs"
    assert found.command == (str(node), program, "index.handler")
    assert found.prefix == str(tmp_path / "node")


def test_python_is_the_nodes_own_with_awss_client_on_its_path(tmp_path: Path) -> None:
    """And not a virtual environment, which would bring the node's own modules."""
    found = runtime_command(HandlerFunction("f", "app.handler", str(tmp_path)))
    assert found.command == (os.path.realpath(sys.executable), "-m", "awslambdaric", "app.handler")
    assert (Path(found.packages[0]) / "awslambdaric").is_dir()


def test_reachable_looks_at_every_folder_on_the_way(tmp_path: Path) -> None:
    """One that only its owner enters hides everything below."""
    inner = Path("/proc/self/nothing") if not tmp_path.exists() else tmp_path / "a/b"
    inner.mkdir(parents=True)
    assert reachable("/usr")
    assert not reachable(str(tmp_path / "missing"))
    tmp_path.chmod(0o700)
    assert not reachable(str(inner))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands out users")
def test_no_two_sandboxes_have_the_same_user(tmp_path: Path) -> None:
    """Not even those of two nodes; what is given back can be had again."""
    one, other = SandboxUsers(tmp_path / "users"), SandboxUsers(tmp_path / "users")
    taken = [one.take(), one.take(), other.take(), other.take()]
    assert len(set(taken)) == 4
    assert all(user is not None and FIRST_USER <= user <= LAST_USER for user in taken)
    one.give_back(taken[0])
    one.give_back(taken[0])
    assert len(one._locks) == 1
    for user in taken[1:]:
        one.give_back(user)
        other.give_back(user)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands out users")
def test_a_folder_of_locks_that_others_can_write_is_not_trusted(tmp_path: Path) -> None:
    """Whoever may put locks there could keep every sandbox from starting."""
    (tmp_path / "users").mkdir()
    (tmp_path / "users").chmod(0o777)
    with pytest.raises(Exception, match="is not root's own folder"):
        SandboxUsers(tmp_path / "users").take()


def test_the_machine_tells_who_runs_and_who_connects() -> None:
    """A process of this user runs: this one. A connection that is not there, to that end, is nobody's."""
    assert processes_of(os.geteuid()) >= 1
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as one,
        server.accept()[0] as other,
    ):
        assert user_of_connection(one.getsockname(), server.getsockname()) == os.geteuid()
        assert user_of_connection(other.getpeername(), other.getsockname()) == os.geteuid()
        assert user_of_connection(one.getsockname(), ("127.0.0.1", 1)) is None
    assert user_of_connection(None, ("127.0.0.1", 1)) is None


def test_capacity_follows_the_machine_unless_it_is_configured() -> None:
    """Three quarters of the memory, so that the rest of the machine has some."""
    found = capacity(SandboxSettings())
    assert found.environments == 32 * (os.cpu_count() or 1)
    assert 0 < found.memory_mb * 1024 * 1024 < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    shared = capacity(SandboxSettings(), nodes=2)
    assert (shared.environments, shared.memory_mb) == (found.environments // 2, found.memory_mb // 2)
    configured = capacity(SandboxSettings(environments=3, memory_mb=512), nodes=2)
    assert (configured.environments, configured.memory_mb) == (3, 512)
