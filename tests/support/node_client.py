"""AWS's runtime client for Node.js, compiled once into the cache, and functions that have it.

It comes from npm as C++, with the sources of curl in it: a minute of one processor. Its scripts are run by hand,
as recent npm runs none that nobody has approved.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

from tests.support.apt import installed
from tests.support.servers import cached, fetch, program

_INSTALL = "install Node.js 18 or later with npm (apt-get install nodejs npm)"
_TOOLS = {
    "cmake": "cmake",
    "autoconf": "autoconf",
    "automake": "automake",
    "libtoolize": "libtool",
    "g++": "g++",
    "make": "make",
    "xz": "xz-utils",
    "python3": "python3",
}
"""What compiling needs: programs, and Debian's packages that have them."""

_COMPILE_S = 900.0  # minutes on a busy machine
_NEW = 22  # the first major version of Node.js that version 4 of the client takes


def node_client() -> Path:
    """Return a folder `node_modules` with AWS's client for the Node.js on PATH. Raises `ServerUnavailableError`."""
    node, npm = program("node", _INSTALL), program("npm", _INSTALL)
    asked = "process.versions.node + ' ' + process.versions.modules"
    told = subprocess.run([node, "-p", asked], capture_output=True, text=True, check=True, timeout=30).stdout
    release, abi = told.split()
    version = "4.0.2" if int(release.partition(".")[0]) >= _NEW else "3.3.0"
    name = f"aws-lambda-ric@{version}"

    def install(home: Path) -> None:
        installed(
            _tools,
            list(_TOOLS.values()),
            what="AWS's runtime client for Node.js cannot be compiled here",
            hint=f"apt-get install {' '.join(_TOOLS.values())}",
        )
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock"]
        fetch([npm, "install", *options, "--prefix", str(home), name], name)
        package = home / "node_modules" / "aws-lambda-ric"
        env = {"MAKEFLAGS": f"-j{os.cpu_count()}", "JOBS": str(os.cpu_count()), **_headers(node)}
        for script in ("preinstall", "postinstall"):
            command = ["sh", str(package / "scripts" / f"{script}.sh")]
            fetch(command, f"what {name} is compiled from", env=env, folder=package, limit_s=_COMPILE_S)
        shutil.rmtree(package / "deps")  # what it was compiled from: ten times as large

    return cached(f"aws-lambda-ric-{version}", f"{name} {abi} {platform.machine()}", install) / "node_modules"


def with_node_client(example: Path, code: Path) -> Path:
    """Copy an example for Node.js to `code`, with AWS's client in it. Raises `ServerUnavailableError`."""
    client = node_client()
    shutil.copytree(example, code, ignore=shutil.ignore_patterns("node_modules"))
    for package in ("aws-lambda-ric", "@aws"):  # others serve compiling alone
        if (client / package).exists():
            shutil.copytree(client / package, code / "node_modules" / package)
    return code


def _tools() -> str | None:
    """Return where the tools are; None if one is missing."""
    found = [shutil.which(tool) for tool in _TOOLS]
    return None if None in found else os.pathsep.join(path for path in found if path is not None)


def _headers(node: str) -> dict[str, str]:
    """Return where Node.js's headers are, if they came with it: they are downloaded otherwise."""
    prefix = Path(node).resolve().parent.parent
    return {"npm_config_nodedir": str(prefix)} if (prefix / "include/node/node.h").exists() else {}
