"""The container files: what they refer to exists, commands are ours, and all say the same about one thing."""

import fnmatch
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from daemon.cli import make_parser
from daemon.config import Config, parse
from tests.deploy import sandbox

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

Yaml = Any  # as parsed: the tests below say what it must look like


def load(path: Path) -> Yaml:
    return yaml.safe_load(path.read_text("utf-8"))


COMPOSE = load(DEPLOY / "compose.yaml")
STATEFULSET = load(KUBERNETES / "statefulset.yaml")
POD = STATEFULSET["spec"]["template"]["spec"]
CONFIGMAP = load(KUBERNETES / "configmap.yaml")["data"]


def instructions() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile with their arguments, continuation lines joined, comments left out."""
    lines = (DEPLOY / "Dockerfile").read_text("utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n", " ", text)
    return [(head, rest) for head, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def last(instruction: str) -> str:
    """What an instruction says in the image that is run."""
    return [rest for head, rest in instructions() if head == instruction][-1]


def copied() -> list[str]:
    """Sources that the Dockerfile copies from the repository."""
    found = [rest.split() for head, rest in instructions() if head == "COPY" and "--from=" not in rest]
    return [source for words in found for source in words[:-1]]


def containers() -> Iterator[Yaml]:
    yield from POD["initContainers"]
    yield from POD["containers"]


def ours() -> list[Yaml]:
    return [each for each in containers() if each["image"] == "palimpsest"]


def services() -> list[Yaml]:
    return [each for each in COMPOSE["services"].values() if "build" in each]


def test_the_image_holds_what_an_installation_needs() -> None:
    """Each source exists and isn't ignored; all packages, and every file that the build reads, are in."""
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").split("\n")
    allowed = {line[1:] for line in ignore if line.startswith("!")}
    assert set(copied()) == allowed
    assert all((ROOT / source).exists() for source in copied())
    packages = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {pattern.rstrip("*") for pattern in packages} <= set(copied())
    needed = {"pyproject.toml", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    assert needed <= set(copied())
    assert not fnmatch.filter(copied(), "tests*")


def test_the_image_runs_our_command_as_nobody_special() -> None:
    """A number that isn't root's, on a base without build tools, and the daemon by default."""
    assert [rest.split(" AS ")[0] for head, rest in instructions() if head == "FROM"] == [
        "python:${PYTHON}"
    ] * 2
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", last("USER"))
    (program,) = json.loads(last("ENTRYPOINT"))
    assert program in PROJECT["project"]["scripts"]
    parsed = make_parser().parse_args(json.loads(last("CMD")))
    assert str(parsed.state) == last("WORKDIR") == json.loads(last("VOLUME"))[0]


def test_the_base_runs_the_python_that_is_tested() -> None:
    """The image's Python is the oldest one that the project supports, which CI runs."""
    found = re.search(r"PYTHON=([\d.]+)-slim", dict(instructions()[:1])["ARG"])
    assert found
    assert PROJECT["project"]["requires-python"] == f">={found[1]}"


@pytest.mark.parametrize("service", services(), ids=lambda service: str(service["command"][0]))
def test_compose_runs_commands_that_exist(service: Yaml) -> None:
    """The parser takes them; they read the mounted configuration, whose state is on the volume."""
    parsed = make_parser().parse_args(service["command"])
    sources = {target: source for source, target in (v.split(":")[:2] for v in service["volumes"])}
    config = parse((DEPLOY / sources[str(parsed.config)]).read_text("utf-8"), "palimpsest.toml")
    assert sources[str(config.daemon.state_dir)] in COMPOSE["volumes"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).samefile(
        DEPLOY / "Dockerfile"
    )


def mounts() -> list[str]:
    """Files and folders of the repository that compose mounts."""
    volumes = [v for service in COMPOSE["services"].values() for v in service.get("volumes", [])]
    return sorted({v.split(":")[0] for v in volumes if v.startswith(".")})


@pytest.mark.parametrize("source", mounts())
def test_compose_mounts_what_is_there(source: str) -> None:
    """Docker would make an empty folder of what is missing, and say nothing."""
    if source.startswith("./grafana/") and not (DEPLOY / "grafana").exists():
        pytest.skip("the dashboard isn't there yet")
    assert (DEPLOY / source).exists()


def test_prometheus_and_grafana_share_the_daemons_loopback() -> None:
    """Who scrapes loopback joins the namespace, and its ports are published by the one whose it is."""
    metrics = Config().metrics
    prometheus = load(DEPLOY / "prometheus" / "prometheus.yml")
    jobs = {job["job_name"]: job for job in prometheus["scrape_configs"]}
    assert jobs["palimpsest"]["static_configs"][0]["targets"] == [f"{metrics.host}:{metrics.port}"]
    published = [port.split(":") for port in COMPOSE["services"]["palimpsest"]["ports"]]
    assert {host for host, _, _ in published} == {"127.0.0.1"}
    assert {inside for _, _, inside in published} == {"9090", "3000"}
    for name in ("prometheus", "grafana"):
        assert COMPOSE["services"][name]["network_mode"] == "service:palimpsest"
    assert COMPOSE["services"]["grafana"]["environment"]["PROMETHEUS_URL"] == "http://127.0.0.1:9090"


@pytest.mark.parametrize("container", ours(), ids=lambda container: str(container["name"]))
def test_kubernetes_runs_commands_that_exist(container: Yaml) -> None:
    """The parser takes them; they read the mounted configuration, whose state is on the volume."""
    parsed = make_parser().parse_args(container["args"])
    where = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    config = parse(CONFIGMAP[parsed.config.name], "configmap")
    assert where[str(parsed.config.parent)] == "config"
    (claim,) = STATEFULSET["spec"]["volumeClaimTemplates"]
    assert where[str(config.daemon.state_dir)] == claim["metadata"]["name"]


def test_kubernetes_refers_to_what_it_declares() -> None:
    """Volumes, keys of the ConfigMap, labels, the Service's port and name, files of the kustomization."""
    declared = {each["name"] for each in POD["volumes"]} | {"state"}
    mounted = {mount["name"] for each in containers() for mount in each["volumeMounts"]}
    assert mounted == declared
    keys = [i["key"] for v in POD["volumes"] for i in v.get("configMap", {}).get("items", [])]
    assert sorted(keys) == sorted(CONFIGMAP)
    service = load(KUBERNETES / "service.yaml")
    labels = STATEFULSET["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == labels == STATEFULSET["spec"]["selector"]["matchLabels"]
    assert service["metadata"]["name"] == STATEFULSET["spec"]["serviceName"]
    ports = {port["name"] for each in containers() for port in each.get("ports", [])}
    assert {port["targetPort"] for port in service["spec"]["ports"]} == ports
    kustomization = load(KUBERNETES / "kustomization.yaml")
    files = {path.name for path in KUBERNETES.iterdir()} - {"kustomization.yaml"}
    assert set(kustomization["resources"]) == files
    assert {each["name"] for each in kustomization["images"]} == {"palimpsest"}


def test_the_pod_is_restricted() -> None:
    """One replica, the image's user, and all that the restricted Pod Security Standard asks for."""
    assert STATEFULSET["spec"]["replicas"] == 1  # a second daemon would exit with 75
    security = POD["securityContext"]
    assert f"{security['runAsUser']}:{security['runAsGroup']}" == last("USER")
    assert security["runAsNonRoot"]
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers():
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["readOnlyRootFilesystem"] is True
        assert own["capabilities"] == {"drop": ["ALL"]}


def test_health_is_the_file_that_the_daemon_touches() -> None:
    """Docker's check and every probe look at it from the working directory, which is the state directory."""
    state = Path(last("WORKDIR"))
    config = parse(CONFIGMAP["config.toml"], "configmap")
    alive = str(config.layout.alive.relative_to(state))
    checks = [last("HEALTHCHECK")]
    (container,) = (each for each in POD["containers"] if each["image"] == "palimpsest")
    checks += [json.dumps(container[probe]) for probe in ("startupProbe", "livenessProbe", "readinessProbe")]
    assert all(alive in check for check in checks)


def test_everyone_waits_until_the_daemon_has_stopped() -> None:
    """systemd, Docker and Kubernetes kill later than the daemon ends itself."""
    stop = Config().daemon.stop_seconds
    (unit,) = sandbox.values([ROOT / "systemd" / "palimpsest@.service"], "TimeoutStopSec")
    compose = COMPOSE["services"]["palimpsest"]["stop_grace_period"]
    for seconds in (unit, compose.removesuffix("s"), POD["terminationGracePeriodSeconds"]):
        assert stop < float(seconds) <= 4 * stop


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool isn't installed")
def test_the_sidecars_configuration_is_good(tmp_path: Path) -> None:
    """Prometheus takes it, and it scrapes what deploy/prometheus scrapes."""
    path = tmp_path / "prometheus.yml"
    path.write_text(CONFIGMAP["prometheus.yml"], "utf-8")
    done = subprocess.run(
        ["promtool", "check", "config", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    (job,) = load(path)["scrape_configs"]
    theirs = load(DEPLOY / "prometheus" / "prometheus.yml")["scrape_configs"]
    (same,) = (each for each in theirs if each["job_name"] == job["job_name"])
    assert job["static_configs"] == same["static_configs"]
