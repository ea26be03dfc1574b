"""What stands in deploy/ fits together, and fits the product: commands, ports, paths, metrics, times, users."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.load import load
from config.settings import Settings
from node.cli import esmd
from node.guard import OPEN_PATHS
from node.options import ListenAddress
from node.serve import application
from node.signals import ABORT_GRACE_S
from tests.support.bare_surface import bare_surface
from tests.support.deploy_files import COMPOSE, DEPLOY, KUBERNETES, ROOT, Instruction, dockerfile, unit

CONFIGURATIONS = sorted(DEPLOY.rglob("esmd.yaml"))
MANIFESTS = sorted(path for path in KUBERNETES.rglob("*.yaml") if path.name != "esmd.yaml")
OWN_SERVICES = {"node-1", "node-2", "function"}


def named(path: Path) -> str:
    """Return a test's name for a file."""
    return str(path.relative_to(DEPLOY))


def manifest(kind: str) -> Any:
    """Return the only manifest of a kind."""
    [found] = [document for path in MANIFESTS if (document := yaml.safe_load(path.read_text()))["kind"] == kind]
    return found


def pod() -> Any:
    """Return the Deployment's pod."""
    return manifest("Deployment")["spec"]["template"]["spec"]


def container() -> Any:
    """Return the only container of the pod."""
    [found] = pod()["containers"]
    return found


def instruction(name: str) -> Instruction:
    """Return the only instruction of a name in the stage that becomes the image."""
    [found] = [one for one in dockerfile() if one.name == name and one.stage == dockerfile()[-1].stage]
    return found


def parsed(arguments: list[str]) -> dict[str, Any]:
    """Let the product's own command line take the arguments; return what they mean."""
    with esmd.make_context("esmd", list(arguments)) as group:
        name, command, rest = esmd.resolve_command(group, [*group._protected_args, *group.args])
        assert command is not None
        with command.make_context(name, rest, parent=group) as context:
            return {"command": name, **context.params}


def seconds(text: str) -> float:
    """Read a duration as Compose and systemd write it here."""
    return float(text.removesuffix("s"))


# The image


def test_the_image_is_built_on_a_chosen_base() -> None:
    """Every stage begins with the one base image, whose version is said."""
    [argument] = [one.value for one in dockerfile() if one.name == "ARG"]
    bases = {one.value.split()[0] for one in dockerfile() if one.name == "FROM"} - {"build"}
    assert bases == {"${PYTHON_IMAGE}"}
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.\d+-slim-\w+", argument)


def test_the_image_holds_what_was_locked_and_no_compiler() -> None:
    """Only wheels are installed, constrained by the lock, in a stage of which the environment alone is kept."""
    installing = [one for one in dockerfile() if one.name == "RUN" and "pip" in one.value]
    assert len(installing) == 1
    assert installing[0].stage != dockerfile()[-1].stage
    assert "--only-binary :all: --constraint requirements.lock" in installing[0].value
    assert installing[0].value.endswith('"$(echo /wheels/esmd-*.whl)[functions,otel]"')
    assert instruction("COPY").value == "--from=build /opt/esmd /opt/esmd"
    assert not re.search(r"apt|sudo|curl|wget|gcc|\bADD\b", "\n".join(one.value for one in dockerfile()))


def test_the_image_runs_as_a_fixed_user_without_rights() -> None:
    """The last stage ends as a user by number, made with that number, who is not root."""
    user, group = instruction("USER").value.split(":")
    assert int(user) >= 10_000
    assert f"--uid {user} --gid {group}" in instruction("RUN").value
    assert [str(pod()["securityContext"][key]) for key in ("runAsUser", "runAsGroup")] == [user, group]


def test_the_image_hands_signals_to_esmd() -> None:
    """Process 1 is esmd itself, not a shell, and is told to stop by the signal that drains."""
    assert json.loads(instruction("ENTRYPOINT").value) == ["esmd"]
    assert instruction("STOPSIGNAL").value == "SIGTERM"


def test_the_image_says_whether_it_is_well() -> None:
    """The health check is a program of the image that asks the probe at the exposed port."""
    _, _, command = instruction("HEALTHCHECK").value.partition("CMD ")
    program, *_ = json.loads(command)
    assert program == "python"
    assert f"http://127.0.0.1:{instruction('EXPOSE').value}/healthz" in command


def test_the_build_is_given_all_packages_and_nothing_else() -> None:
    """.dockerignore lets through what the wheel is made of; tests, history and sample configuration stay out."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    let_through = {line[1:] for line in lines if line.startswith("!")}
    wheel = re.search(r"packages = (\[.*\])", (ROOT / "pyproject.toml").read_text())
    assert wheel is not None
    packages = set(json.loads(wheel[1]))
    assert "*" in lines
    assert let_through == packages - {"config"} | {
        *("config/*.py", "config/py.typed"),
        *("LICENSE", "README.md", "pyproject.toml", "requirements.lock"),
    }


# The commands and the configuration


def test_every_way_to_start_it_is_one_the_command_takes() -> None:
    """The image, the pod and the unit run a node with options that exist, and log for machines."""
    starts = [json.loads(instruction("CMD").value), container()["args"], shlex.split(unit()["ExecStart"][0])[1:]]
    for arguments in starts:
        taken = parsed(arguments)
        assert taken["command"] == "run"
        assert taken["log_format"] == "json"
        assert taken["config"] == (Path("/etc/esmd/esmd.yaml"),)
        assert taken["processes"] == 1


@pytest.mark.parametrize("file", CONFIGURATIONS, ids=named)
def test_every_configuration_is_valid(file: Path) -> None:
    """The product accepts it: mappings whose function is known, a Redis to share, a surface that wants a token."""
    settings = load([file], environ={})
    assert settings.mappings
    assert all(settings.target_for(mapping.function_name) is not None for mapping in settings.mappings)
    assert settings.redis_url is not None
    assert not ListenAddress.parse(settings.listen).loopback
    assert settings.auth is not None
    assert settings.auth.tokens


def test_there_is_a_configuration_for_compose_and_for_kubernetes() -> None:
    """The base and the overlay have the file that they make a ConfigMap of, where the command expects it."""
    assert [named(path) for path in CONFIGURATIONS] == [
        "compose/esmd.yaml",
        "kubernetes/base/esmd.yaml",
        "kubernetes/example/esmd.yaml",
    ]
    mounts = {mount["name"]: mount["mountPath"] for mount in container()["volumeMounts"]}
    for folder in ("base", "example"):
        kustomization = yaml.safe_load((KUBERNETES / folder / "kustomization.yaml").read_text())
        [generator] = kustomization["configMapGenerator"]
        assert generator["files"] == ["esmd.yaml"]
        assert f"{mounts['config']}/esmd.yaml" == container()["args"][-1]
        secrets = re.findall(r"\$\{file:(.*)/[\w-]+\}", (KUBERNETES / folder / "esmd.yaml").read_text())
        assert set(secrets) == {mounts["secrets"]}


# Ports, paths and metrics


def test_every_port_is_the_one_that_is_listened_on() -> None:
    """Image, Compose, pod, Service and their configuration agree on the port."""
    port = int(instruction("EXPOSE").value)
    assert {ListenAddress.parse(load([file], environ={}).listen).port for file in CONFIGURATIONS} == {port}
    assert ListenAddress.parse(Settings().listen).port == port
    nodes = [service for name, service in COMPOSE["services"].items() if name.startswith("node-")]
    published = [entry.split(":") for node in nodes for entry in node["ports"]]
    assert {(host, int(inside)) for host, _, inside in published} == {("127.0.0.1", port)}
    assert container()["ports"] == [{"name": "http", "containerPort": port}]
    [service_port] = manifest("Service")["spec"]["ports"]
    assert (service_port["port"], service_port["targetPort"]) == (port, "http")
    [rule] = manifest("NetworkPolicy")["spec"]["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": "http"}]


def test_every_probe_asks_what_is_served_to_everybody() -> None:
    """Liveness is /healthz and readiness /readyz, both without a token; the scrape brings the token it needs."""
    served = {resource.canonical for resource in application(bare_surface()).router.resources()}
    paths = {name: container()[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert paths == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    assert set(paths.values()) <= served & OPEN_PATHS
    [scrape] = manifest("PodMonitor")["spec"]["podMetricsEndpoints"]
    assert scrape["port"] == "http"
    assert scrape["path"] in served - OPEN_PATHS
    secret = next(volume["secret"] for volume in pod()["volumes"] if volume["name"] == "secrets")
    assert scrape["authorization"]["credentials"] == {"name": secret["secretName"], "key": "token"}


# Stopping


def test_every_stop_leaves_time_for_the_drain() -> None:
    """Compose, Kubernetes and systemd kill later than a drain with its clean-up can take."""
    drains = {load([file], environ={}).drain_timeout_s for file in CONFIGURATIONS} | {Settings().drain_timeout_s}
    nodes = [service for name, service in COMPOSE["services"].items() if name.startswith("node-")]
    given = [seconds(node["stop_grace_period"]) for node in nodes]
    given += [float(pod()["terminationGracePeriodSeconds"]), seconds(unit()["TimeoutStopSec"][0])]
    assert len(given) == 4
    assert min(given) >= max(drains) + 5 * ABORT_GRACE_S


def test_systemd_tells_the_main_process_alone() -> None:
    """Children of --processes that were told by systemd too would take the parent's signal for the second one."""
    assert unit()["KillMode"] == ["mixed"]
    assert unit()["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert unit()["Restart"] == ["on-failure"]
    assert unit()["RestartPreventExitStatus"] == ["2"]


# Rights


def test_nothing_runs_with_more_rights_than_it_needs() -> None:
    """Pod, containers and unit have no capabilities, no way to more, and nothing to write to."""
    assert pod()["automountServiceAccountToken"] is False
    assert manifest("ServiceAccount")["automountServiceAccountToken"] is False
    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert pod()["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    for name in OWN_SERVICES:
        service = COMPOSE["services"][name]
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]
    hardening = {
        key: unit()[key] for key in ("DynamicUser", "NoNewPrivileges", "ProtectSystem", "CapabilityBoundingSet")
    }
    assert hardening == {
        "DynamicUser": ["yes"],
        "NoNewPrivileges": ["yes"],
        "ProtectSystem": ["strict"],
        "CapabilityBoundingSet": [""],
    }


# Fitting together


def test_compose_starts_things_in_the_order_of_need() -> None:
    """What is waited for exists, has the check that is waited for, and runs a version that is said."""
    services = COMPOSE["services"]
    for service in services.values():
        assert not service["image"].endswith(":latest")
        assert ":" in service["image"]
        for name, needed in service.get("depends_on", {}).items():
            if needed["condition"] == "service_healthy":
                assert "healthcheck" in services[name]
            else:
                assert needed["condition"] == "service_completed_successfully"
                assert services[name]["restart"] == "no"
    assert set(services["node-1"]["depends_on"]) == {"redis", "function", "topics"}
    assert set(services["topics"]["depends_on"]) == {"kafka"}
    assert services["redis"]["command"][:3] == ["redis-server", "--appendonly", "yes"]
    build = services["node-1"]["build"]
    assert (DEPLOY / "compose" / build["context"] / build["dockerfile"]).is_file()
    mounted = [entry.split(":")[0] for service in services.values() for entry in service.get("volumes", [])]
    assert all((DEPLOY / "compose" / source).exists() or source in COMPOSE["volumes"] for source in mounted)
    settings = load([DEPLOY / "compose/esmd.yaml"], environ={})
    command = services["topics"]["command"]
    assert settings.event_source_mappings[0].document["Topics"] == [command[command.index("--topic") + 1]]


def test_everything_in_kubernetes_finds_the_pods() -> None:
    """Each selector and each scaler means the Deployment's pods."""
    deployment = manifest("Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        manifest("Service")["spec"]["selector"],
        manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        manifest("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        manifest("PodMonitor")["spec"]["selector"]["matchLabels"],
        pod()["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    ]
    assert all(selector == labels for selector in selectors)
    assert pod()["serviceAccountName"] == manifest("ServiceAccount")["metadata"]["name"]
    for scaler in ("ScaledObject", "HorizontalPodAutoscaler"):
        assert manifest(scaler)["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert container()["image"].partition(":")[2] not in {"", "latest"}


@pytest.mark.parametrize("scaler", ["hpa", "keda"])
def test_how_many_nodes_there_are_is_the_scaler_s_alone(scaler: str) -> None:
    """Where one is used; `test_deploy_lint` renders it where kubectl is."""
    kustomization = yaml.safe_load((KUBERNETES / f"components/{scaler}/kustomization.yaml").read_text())
    (patch,) = kustomization["patches"]
    assert patch["target"] == {"kind": "Deployment", "name": manifest("Deployment")["metadata"]["name"]}
    assert yaml.safe_load(patch["patch"]) == [{"op": "remove", "path": "/spec/replicas"}]
    assert manifest("Deployment")["spec"]["replicas"] >= 2


@pytest.mark.parametrize("file", [path for path in MANIFESTS if path.name == "kustomization.yaml"], ids=named)
def test_kustomizations_name_all_that_is_there(file: Path) -> None:
    """No manifest is forgotten and none is missing."""
    kustomization = yaml.safe_load(file.read_text())
    wanted = [*kustomization["resources"], *kustomization.get("components", [])]
    assert all((file.parent / name).exists() for name in wanted)
    there = {path.name for path in file.parent.glob("*.yaml")} - {"kustomization.yaml", "esmd.yaml"}
    assert there == {name for name in wanted if name.endswith(".yaml")}
