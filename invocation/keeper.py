"""The parent of one sandboxed process: makes the sandbox, starts the function's runtime in it, and ends all of it.

Runs as a program of its own, `python -I -S keeper.py FD`, with nothing but the standard library, because what has to be
done between fork and exec (limits, another user) is not safe to do in a node full of threads and connections. FD is a
socket to the node: the node sends one line of JSON (`invocation.isolation.Plan`); the keeper sends the listening socket
for the Runtime API, then what became of the process. The listener is made here so that it is in the sandbox's own
network, if it has one: the node serves it all the same, and nobody else reaches it.

Whatever happens to the node, nothing stays behind: the end of the socket means that it is gone, and then the keeper
kills every process of the sandbox and removes its scratch folder. The function's process dies with the keeper.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from typing import Any, NoReturn

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 36, 38
_CLONE_NEWNS = 0x00020000
_MS_RDONLY, _MS_NOSUID, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 2, 32, 4096, 16384, 1 << 18
_LONGEST_PLAN = 1 << 20
_KILL_S = 5.0  # how long killing may take before it is given up; only a process stuck in the kernel needs that
_BACKLOG = 64

_libc = ctypes.CDLL(None, use_errno=True)


def main(descriptor: int) -> int:
    """Keep one process until it ends or the node is done with it."""
    control = socket.socket(fileno=descriptor)
    plan = _read_plan(control)
    listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
    socket.send_fds(control, [json.dumps({"port": listener.getsockname()[1]}).encode() + b"\n"], [listener.fileno()])
    plan["environment"]["AWS_LAMBDA_RUNTIME_API"] = f"127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # what the function leaves running becomes our child
    failed_in, failure = os.pipe()  # closes when the runtime is started; brings the reason when it is not
    keeper = os.getpid()
    child = os.fork()
    if child == 0:
        _become(plan, keeper, failure)
    os.close(failure)
    os.close(1)  # the log ends when the function's processes have ended
    os.close(2)
    with os.fdopen(failed_in, "rb") as pipe:
        reason = pipe.read()
    if reason:
        os.waitpid(child, 0)
        _tell(control, json.loads(reason))
        return 0
    _tell(control, {"pid": child})
    abandoned = _watch(control, child)
    end_everything(plan["user"], child)
    if abandoned:
        import shutil  # noqa: PLC0415 nearly never needed, and slow to import

        shutil.rmtree(plan["scratch"], ignore_errors=True)
        with contextlib.suppress(OSError):  # others are still in it
            os.rmdir(os.path.dirname(plan["scratch"]))  # noqa: PTH106, PTH120 pathlib is slow to import
    return 0


def _read_plan(control: socket.socket) -> Any:
    received = b""
    while b"\n" not in received and len(received) < _LONGEST_PLAN:
        if not (more := control.recv(65536)):
            sys.exit(0)  # the node is gone, or changed its mind
        received += more
    plan, _, more = received.partition(b"\n")
    if more:
        sys.exit(0)  # it has changed its mind
    return json.loads(plan)


def _tell(control: socket.socket, what: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # a node that is gone shows in `_watch`
        control.sendall(json.dumps(what).encode() + b"\n")


def _watch(control: socket.socket, child: int) -> bool:
    """Wait for the end of the process, of the node's interest, or of the node, and tell whether it was the last."""
    process = os.pidfd_open(child)
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(process, select.POLLIN)
    while True:
        ready = [descriptor for descriptor, _ in poll.poll()]
        if process in ready:
            _, status, _ = os.wait4(child, 0)
            _tell(control, {"exit": os.waitstatus_to_exitcode(status)})
            return False
        try:
            return not control.recv(64)  # any word of the node means: end it
        except OSError:
            return True


def _become(plan: dict[str, Any], keeper: int, failure: int) -> NoReturn:
    """Turn this fork into the function's runtime."""
    stage, report = "sandbox", failure
    try:
        os.setsid()
        if plan["binds"]:
            _bind(plan["binds"])
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        report = os.dup2(failure, 3, inheritable=False)
        os.closerange(4, 65536)
        for name, value in plan["limits"].items():
            number = getattr(resource, name)
            hard = resource.getrlimit(number)[1]
            limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(number, (limit, limit))
        # Should the machine's memory run out after all, functions go before anything else.
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:  # noqa: PTH123 small
            score.write("1000")
        if plan["user"] is not None:
            os.setgroups([])
            os.setresgid(plan["user"], plan["user"], plan["user"])
            os.setresuid(plan["user"], plan["user"], plan["user"])
        _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # after the change of user, which clears it
        if os.getppid() != keeper:
            os._exit(1)  # the keeper died before that
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.umask(0o022)
        stage = "folder"
        os.chdir(plan["folder"])
        os.listdir(".")  # noqa: PTH208 nothing is made of it
        stage = "command"
        os.execve(plan["command"][0], plan["command"], plan["environment"])  # noqa: S606 a program, no shell
    except BaseException as exc:  # noqa: BLE001 this fork may not come back as a second keeper
        text = f"{type(exc).__name__}: {exc}" if not isinstance(exc, OSError) else exc.strerror or str(exc)
        with contextlib.suppress(OSError):
            os.write(report, json.dumps({"failed": stage, "why": text}).encode())
    os._exit(126)


def _bind(binds: list[list[str]]) -> None:
    """Show folders, read-only, where the function's user can reach them. In a mount namespace of this process."""
    _checked(_libc.unshare(_CLONE_NEWNS))
    _checked(_libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None))
    for source, shown in binds:
        target = shown.encode()
        _checked(_libc.mount(source.encode(), target, None, ctypes.c_ulong(_MS_BIND | _MS_REC), None))
        flags = _MS_BIND | _MS_REMOUNT | _MS_RDONLY | _MS_NOSUID
        _checked(_libc.mount(None, target, None, ctypes.c_ulong(flags), None))


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def end_everything(user: int | None, session: int) -> None:
    """Kill every process of the sandbox, and wait until they are gone.

    A user of its own tells the processes apart at one stroke. Without, they are found as our children and their
    children; each is stopped before any is killed, so that a fork bomb does not outrun the search.
    """
    until = time.monotonic() + _KILL_S
    while time.monotonic() < until:
        if user is not None:
            _kill_all_of(user)
        else:
            found: set[int] = set()
            while fresh := set(descendants(os.getpid())) - found:
                _send_all(fresh, signal.SIGSTOP)
                found |= fresh
            _send_all(found, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(session, signal.SIGKILL)
        if _reap():
            return
        time.sleep(0.002)


def _kill_all_of(user: int) -> None:
    """Become the user for a moment: then -1 means all that it may kill, which is exactly its own processes."""
    killer = os.fork()
    if killer == 0:
        try:
            os.setresuid(user, user, user)
            os.kill(-1, signal.SIGKILL)
        finally:
            os._exit(0)
    os.waitpid(killer, 0)


def _reap() -> bool:
    """Take in who has ended; tell whether that were all."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return False
        except ChildProcessError:
            return True


def descendants(pid: int) -> list[int]:
    """Return the processes that come from one, nearest first; those that end meanwhile are left out."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        with contextlib.suppress(OSError):  # it ended meanwhile
            for thread in os.listdir(f"/proc/{parent}/task"):  # noqa: PTH208 pathlib is slow to import
                with open(f"/proc/{parent}/task/{thread}/children") as listing:  # noqa: PTH123 small
                    children = [int(word) for word in listing.read().split()]
                found += children
                waiting += children
    return found


def _send_all(processes: set[int], number: signal.Signals) -> None:
    for pid in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
