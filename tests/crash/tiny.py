"""The daemon with the real worker and a tiny random model, whose answers no gate could pass.

Everything is real (files, vectors, folds, manifests) but the readings, which are made to pass. In
`work` the worker is forked from a process that has torch loaded, as loading it takes longer than an
edit of a tiny model; in `serve` it is spawned as ever.
"""

import math
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from daemon import worker
from daemon.config import CapacitySettings, Config, EditingSettings, ModelSettings
from daemon.fakes import passing, tiny_model
from daemon.house import make_runner, open_house
from daemon.initialise import initialise
from daemon.logs import make_log
from daemon.runner import Job, Limits, Result, Runner, WorkerHandle, never
from store import failpoints
from store.facts import Op
from store.lock import StateLock
from store.wire import to_wire
from tests.crash.world import Daemon, World, config_for

LAYERS = 2


class Lenient:
    """A runner whose edits always pass their gates: what a random model answers means nothing."""

    def __init__(self, inner: Runner) -> None:
        self._inner = inner

    def run(self, job: Job, idle: Callable[[str], str | None] = never) -> Result:
        result = self._inner.run(job, idle)
        if job["kind"] == "edit":
            result["readings"] = []
        for each, asked in zip(result.get("edits", ()), job.get("edits", ()), strict=True):
            if each["status"] == "edited":
                each["readings"] = [to_wire(reading) for reading in passing(Op(asked["request"]["op"]))]
        return result


class Forked(WorkerHandle):
    """The real runner, whose child is forked instead of spawned."""

    def _spawn(self, folder: Path, output: Any) -> Any:
        pid = os.fork()
        if pid == 0:
            os.setsid()
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            os.closerange(3, 1024)  # as exec would: above all the state directory's lock
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            status = 1
            try:
                status = worker.main(folder / "job.json")
            finally:
                os._exit(status)
        return _Child(pid)


class _Child:
    """As much of a Popen as `daemon.runner` needs."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if found else None
        return self.returncode

    def wait(self, seconds: float | None = None) -> int:
        deadline = math.inf if seconds is None else time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired("worker", seconds or 0)
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def tiny_config(state: Path) -> Config:
    return replace(
        config_for(state),
        model=ModelSettings(name="tiny"),
        editing=EditingSettings(recipe="unguarded"),  # the quickest, and it never gives up
        capacity=CapacitySettings(enforce=False),
    )


def initialised(state: Path) -> World:
    """A state directory with a tiny model, nothing to do. Takes half a minute; copy it."""
    prepare(str(state))
    return World(tiny_config(state), ())


def prepare(state: str) -> int:
    """Initialise a state directory in the process that calls it."""
    config = tiny_config(Path(state))
    with open_house(config, log=make_log(config.logs)) as house:
        initialise(house, tiny_model(Path(state).parent / "source", layers=LAYERS), never)
    return 0


def work(state: str) -> int:
    """The daemon, its workers forked from it, until nothing is left to do."""
    config = tiny_config(Path(state))
    return _run(config, Forked(config.layout.run, Limits()), until_rest=True)


def serve(state: str) -> int:
    """The daemon as it is, its workers spawned, until it is told to stop."""
    config = tiny_config(Path(state))
    return _run(config, make_runner(config), until_rest=False)


def _run(config: Config, runner: Runner, *, until_rest: bool) -> int:
    failpoints.arm(os.environ)
    with StateLock(config.layout.state), open_house(config, runner=Lenient(runner)) as house:
        return Daemon(house, until_rest=until_rest).run()
