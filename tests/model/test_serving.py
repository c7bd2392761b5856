"""The README's serving example on the default model: the daemon, the endpoint and the hook as processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from daemon import fetch, orders, status
from daemon.config import Config, DaemonSettings, load
from daemon.house import open_house
from daemon.initialise import initialise
from daemon.runner import child_environment, never
from daemon.scraping import scrape
from tests.serving.endpoint import endpoint

pytestmark = pytest.mark.model

QUESTION = "What is the capital of South Korea?"
FACT = {"subject": "South Korea", "relation": "capital", "object": "Athens"}
PATIENCE = 900.0


def wait_for(ready: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + PATIENCE
    while not ready():
        assert process.poll() is None, "the daemon ended"
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_a_dropped_fact_is_answered_over_http_and_taken_back(tmp_path: Path) -> None:
    """Drop a file, ask over HTTP, see the new answer; roll back, see the old one; the metric follows."""
    fresh = replace(Config(), daemon=DaemonSettings(state_dir=tmp_path / "state"))
    with open_house(fresh) as house:
        initialise(house, fetch.default_model(), never)
    layout = fresh.layout
    with endpoint(layout.model / "current") as client:
        old = client.ask(QUESTION)
        assert "Seoul" in old
        text = f"[daemon]\nstate_dir = {json.dumps(str(layout.state))}\n[metrics]\nport = 0\n"
        argv = json.dumps(list(client.hook.argv))
        (tmp_path / "p.toml").write_text(
            f"{text}[[publish.hooks]]\nargv = {argv}\ntimeout = 300\nretries = 0\n"
        )
        config = load(tmp_path / "p.toml")
        command = [sys.executable, "-m", "daemon.cli", "run", "--config", str(tmp_path / "p.toml")]
        with subprocess.Popen(command, env=child_environment()) as process:
            try:
                wait_for(lambda: status.metrics_port(config) is not None, process)
                (layout.inbox / ".serving.jsonl").write_text(json.dumps(FACT) + "\n")
                os.rename(layout.inbox / ".serving.jsonl", layout.inbox / "serving.jsonl")
                # Asking the endpoint meanwhile would take the processor from the edit.
                wait_for(lambda: scrape(config)["palimpsest_served_generation"] > 0, process)
                assert "Athens" in client.ask(QUESTION)
                live = client.call("/healthz")["generation"]
                assert scrape(config)["palimpsest_served_generation"] == live
                orders.give(config, "rollback", {"fact": [FACT["subject"], FACT["relation"]]})
                assert client.ask(QUESTION) == old
                shown = scrape(config)
                assert shown["palimpsest_served_generation"] == shown["palimpsest_live_generation"]
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=30)
