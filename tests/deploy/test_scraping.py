"""A real Prometheus scrapes a real daemon process and evaluates the rules that ship.

The last test stops the daemon; all others may run alone.
"""

import json
import math
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from daemon import status
from daemon.exposition import serving
from daemon.metrics import Metrics
from store.facts import EditState
from tests.daemon.certificates import Certificates, make_certificates
from tests.daemon.fake_daemon import make_config
from tests.daemon.running import Daemon, spawn
from tests.deploy.conftest import PROMETHEUS, RULES, alerts, exported, promtool, tool
from tests.deploy.test_grafana import filled, queries

pytestmark = pytest.mark.slow

PATIENCE = 90.0
ROW = {"subject": "France", "relation": "capital", "object": "Lyon"}


@dataclass
class Prometheus:
    """A running server, asked over its HTTP API, and what it scrapes."""

    url: str
    log: Path
    daemon: Daemon

    def get(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        return found["data"]

    def query(self, expression: str) -> dict[str, float]:
        """Values by instance."""
        found = self.get("query", query=expression)["result"]
        return {each["metric"].get("instance", ""): float(each["value"][1]) for each in found}

    def alert(self, name: str) -> str:
        """inactive, pending or firing, as its page shows."""
        groups = self.get("rules", type="alert")["groups"]
        return next(str(rule["state"]) for group in groups for rule in group["rules"] if rule["name"] == name)

    def wait_for(self, ready: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                if ready():
                    return
            except OSError:
                pass  # it isn't up yet
            time.sleep(0.1)
        raise AssertionError(f"no {what}: {self.log.read_text()}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def configuration(daemon: int, remote: int, certificates: Certificates) -> str:
    """The one that ships, its example of a remote daemon included, once a second and on these ports."""
    head, _, tail = (PROMETHEUS / "prometheus.yml").read_text("utf-8").partition("  # - job_name")
    config = yaml.safe_load(head + "  - job_name" + tail.replace("\n  # ", "\n  "))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(path) for path in RULES]
    near, far = config["scrape_configs"]
    near["static_configs"][0]["targets"] = [f"127.0.0.1:{daemon}"]
    far["static_configs"] = [{"targets": [f"127.0.0.1:{remote}"], "labels": {"instance": "remote"}}]
    files = (certificates.cert("ca"), certificates.cert("client"), certificates.key("client"))
    assert list(far["tls_config"]) == ["ca_file", "cert_file", "key_file"]
    far["tls_config"] = dict(zip(far["tls_config"], map(str, files), strict=True))
    return yaml.safe_dump(config)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Scrapes a daemon on loopback as `default`, and another one's metrics over TLS as `remote`."""
    binary, folder = tool("prometheus"), tmp_path_factory.mktemp("prometheus")
    certificates = make_certificates(tmp_path_factory.mktemp("certificates"))
    state, log = folder / "state", folder / "daemon.log"
    daemon = Daemon(make_config(state), spawn(state, {}, log), log)
    server: subprocess.Popen[bytes] | None = None
    try:
        daemon.wait_for(lambda: status.metrics_port(daemon.config), "metrics port")
        with serving(Metrics(CollectorRegistry()).registry, certificates.settings()) as remote:
            ours = status.metrics_port(daemon.config) or 0
            (folder / "prometheus.yml").write_text(configuration(ours, remote, certificates))
            port = free_port()
            made = Prometheus(f"http://127.0.0.1:{port}", folder / "prometheus.log", daemon)
            command = [
                binary,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ]
            with made.log.open("wb") as output:
                server = subprocess.Popen(command, stdout=output, stderr=output)
            made.wait_for(lambda: len(made.query("palimpsest_files_total")) == 2, "scrape of both daemons")
            daemon.drop("good.jsonl", ROW)
            daemon.wait_for(lambda: daemon.state_of(1) is EditState.LIVE, "live edit")
            yield made
    finally:
        for process in filter(None, (server, daemon.process)):
            process.terminate()
            process.wait(timeout=30)


def test_both_daemons_are_up(prometheus: Prometheus) -> None:
    """One on loopback, one over TLS with a client certificate; with the job's name that rules look for."""
    assert prometheus.query('up{job="palimpsest"}') == {"default": 1, "remote": 1}
    targets = prometheus.get("targets", state="active")["activeTargets"]
    assert {target["lastError"] for target in targets} == {""}


def test_a_scrape_is_clean(prometheus: Prometheus) -> None:
    """promtool finds no fault with names, types and help texts of what the daemon sends."""
    promtool("check", "metrics", stdin=prometheus.daemon.scrape())


def test_it_knows_the_same_names_as_the_tests(prometheus: Prometheus) -> None:
    """What the files of deploy/ are held against is what Prometheus really gets."""
    stored = set(prometheus.get("label/__name__/values"))
    added = {name for name in stored if name.startswith(("scrape_", "instance")) or name in ("up", "ALERTS")}
    never_yet = {name for name in exported() if name.startswith("palimpsest_edit_stage_seconds")}
    assert set(exported()) - never_yet <= stored
    assert stored - added - {"ALERTS_FOR_STATE"} <= set(exported())


def test_a_refused_file_fires_its_alert_and_nothing_else(prometheus: Prometheus) -> None:
    """The good file before it fired none; the bad one is shown to a human."""
    daemon = prometheus.daemon
    assert {name for name in alerts() if prometheus.alert(name) == "firing"} == set()
    (daemon.config.layout.inbox / "bad.jsonl").write_text("no json\n")
    prometheus.wait_for(lambda: prometheus.alert("PalimpsestPoisonFiles") == "firing", "alert")
    assert {name for name in alerts() if prometheus.alert(name) == "firing"} == {"PalimpsestPoisonFiles"}
    (shown,) = [a for a in prometheus.get("alerts")["alerts"] if a["state"] == "firing"]
    assert shown["labels"]["instance"] == "default"
    assert shown["annotations"]["summary"] == "Fact files of default were refused"


def test_recorded_series_follow(prometheus: Prometheus) -> None:
    """Freshness of the fact that went live, and the age of a backup that never was."""
    wanted = "instance:palimpsest_freshness_seconds:p95_6h"
    prometheus.wait_for(lambda: prometheus.query(wanted).get("default", math.nan) > 0, wanted)
    age = prometheus.query("instance:palimpsest_backup_age_seconds:time")
    assert 0 < age["default"] < 3600


@pytest.mark.parametrize(("title", "expression"), list(queries()))
def test_the_dashboards_questions_are_answered(prometheus: Prometheus, title: str, expression: str) -> None:
    """Each is understood by the server; what it asks for is there, unless it only shows events."""
    found = prometheus.query(filled(expression))
    if title != "Alerts" and not expression.endswith("> 0") and "rate(" not in expression:
        assert found, title


def test_a_daemon_that_stops_is_noticed(prometheus: Prometheus) -> None:
    """Down is pending at once and would fire after two minutes; the other one stays up."""
    assert prometheus.alert("PalimpsestDown") == "inactive"
    prometheus.daemon.stop()
    prometheus.wait_for(lambda: prometheus.alert("PalimpsestDown") == "pending", "pending alert")
    assert prometheus.query("up") == {"default": 0, "remote": 1}
