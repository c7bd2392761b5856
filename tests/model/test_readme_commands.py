"""`make run` as a new user has it: the recipe's own lines, a real daemon, a dropped file, a scrape."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from store.errors import EXIT_OK

pytestmark = pytest.mark.model

MAKEFILE = Path(__file__).parents[2] / "Makefile"


def recipe(target: str, state: Path) -> list[str]:
    """The shell lines of a target, with this environment's programs and a scratch state directory."""
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE.read_text("utf-8"), re.MULTILINE)
    assert found is not None
    programs = str(Path(sys.executable).parent)
    lines = found.group(1).replace("$(BIN)", programs).replace("$(STATE)", str(state))
    return [line.strip() for line in lines.splitlines()]


def until(holds: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it didn't happen in time"
        time.sleep(0.1)


def test_make_run_initialises_serves_metrics_takes_files_and_stops(tmp_path: Path) -> None:
    """After init a daemon reports ready, refuses a bad file by line and column, and ends on SIGTERM."""
    state, log = tmp_path / "var", tmp_path / "log"
    init, run = recipe("run", state)
    assert subprocess.run(init, shell=True, check=False).returncode == EXIT_OK
    (state / "config.toml").write_text("[metrics]\nport = 0\n[inbox]\nsettle_seconds = 0.1\n", "utf-8")
    with log.open("w") as output:
        daemon = subprocess.Popen(run, shell=True, stderr=output, start_new_session=True)
    try:
        until(lambda: "daemon.ready" in log.read_text("utf-8"))
        ready = next(json.loads(x) for x in log.read_text("utf-8").splitlines() if "daemon.ready" in x)
        (state / "inbox" / "bad.jsonl").write_text('{"subject": "France"}\n', "utf-8")
        until((state / "failed" / "bad.jsonl.error.json").exists)
        error = json.loads((state / "failed" / "bad.jsonl.error.json").read_text("utf-8"))
        assert {"line", "column", "code", "hint"} <= error.keys()
        with urllib.request.urlopen(f"http://127.0.0.1:{ready['port']}/metrics") as response:
            assert b"palimpsest_live_generation 0.0" in response.read()
    finally:
        os.killpg(daemon.pid, signal.SIGTERM)
        began = time.monotonic()
        daemon.wait(timeout=30)
    assert time.monotonic() - began < 10, "SIGTERM ends the daemon within 10 s"
