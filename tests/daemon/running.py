"""Running daemon processes with a fake worker, and ending them.

Knows how to start one, drop files, scrape and wait. Doesn't know what is tested.
"""

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon import status
from daemon.config import Config
from store.facts import EditState
from store.ledger import Ledger

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 30.0


@dataclass
class Daemon:
    """A running daemon process."""

    config: Config
    process: "subprocess.Popen[bytes]"
    log: Path

    def wait_for(self, ready: Callable[[], object], what: str) -> Any:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            found = ready()
            if found:
                return found
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)
        raise AssertionError(f"no {what}: {self.log.read_text()}")

    def ready(self) -> "Daemon":
        """Itself, once it says where its metrics are."""
        self.wait_for(lambda: status.metrics_port(self.config), "metrics port")
        return self

    def drop(self, name: str, *rows: dict[str, Any]) -> None:
        staged = self.config.layout.inbox / f".{name}"
        staged.write_text("".join(json.dumps(row) + "\n" for row in rows))
        staged.rename(self.config.layout.inbox / name)

    def state_of(self, edit: int) -> EditState | None:
        with Ledger.open_readonly(self.config.layout.ledger) as ledger:
            return next((each.state for each in ledger.edits() if each.id == edit), None)

    def scrape(self) -> str:
        port = status.metrics_port(self.config)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    def stop(self, number: int = signal.SIGTERM) -> float:
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(timeout=15)
        return time.monotonic() - began


def spawn(
    state: Path,
    script: Mapping[str, Any],
    log: Path,
    retention: Sequence[float] = (),
    *,
    module: str = "tests.daemon.fake_daemon",
    wrap: Sequence[str] = (),
) -> "subprocess.Popen[bytes]":
    """`wrap` is a command in front of the daemon's."""
    arguments = [str(state), json.dumps(script), *([json.dumps(retention)] if retention else ())]
    command = [*wrap, sys.executable, "-m", module, *arguments]
    with log.open("ab") as file:
        return subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)


Start = Callable[..., Daemon]


@contextmanager
def ending() -> Iterator[list[Daemon]]:
    """A list of daemons; those that still run are killed in the end."""
    begun: list[Daemon] = []
    try:
        yield begun
    finally:
        for daemon in begun:
            if daemon.process.poll() is None:
                daemon.process.kill()
                daemon.process.wait()
