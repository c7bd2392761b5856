"""Starts one worker child for one job and waits for it: heartbeat, deadline, memory cap, signals.

Knows processes and files. Doesn't know what a job does, and never imports torch: the child
(`daemon.worker`) does. A fake runner keeps the same protocol (`daemon.fakes`).
"""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from daemon.worker import EXIT_NO_ROOM
from store.errors import PalimpsestError

Job = Mapping[str, Any]
Result = dict[str, Any]

GRACE_SECONDS = 2.0
TAIL = 2000  # characters of a dead child's output that are shown


@dataclass(slots=True)
class WorkerError(PalimpsestError):
    """The child failed, died, hung or ran past its deadline; `kind` says which."""

    kind: str = "failed"


@dataclass(slots=True)
class WorkerStopped(PalimpsestError):
    """The child was ended because this process had something more urgent to do."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one job may use. Seconds, bytes; `memory_bytes` 0 means no cap."""

    deadline_seconds: float = 1800.0
    heartbeat_seconds: float = 600.0
    memory_bytes: int = 0


class Runner(Protocol):
    """Runs a job to its end.

    `idle(stage)` is called a few times a second meanwhile with the stage that the job last reported;
    a sentence returned from it ends the job. Raises WorkerStopped then, WorkerError when the job
    failed by itself, OSError with ENOSPC when it found no room on the disk.
    """

    def run(self, job: Job, idle: Callable[[str], str | None]) -> Result: ...


def never(_stage: str) -> None:
    """An `idle` that never interrupts."""


class WorkerHandle:
    """The real runner: a spawned child in a session of its own, results by staged file."""

    def __init__(
        self,
        run_dir: Path,
        limits: Limits,
        command: Sequence[str] = (sys.executable, "-P", "-m", "daemon.worker"),
        poll_seconds: float = 0.1,
    ) -> None:
        self._run_dir = run_dir
        self._limits = limits
        self._command = tuple(command)
        self._poll_seconds = poll_seconds

    def run(self, job: Job, idle: Callable[[str], str | None] = never) -> Result:
        folder = self._run_dir / f"job-{os.getpid()}-{uuid.uuid4().hex[:12]}"
        folder.mkdir(parents=True)
        extra = {"memory_bytes": self._limits.memory_bytes, "parent_pid": os.getpid()}
        (folder / "job.json").write_text(json.dumps({**job, **extra}))
        try:
            with (folder / "output.log").open("wb") as output:
                child = self._spawn(folder, output)
            try:
                self._wait(child, folder, str(job["kind"]), idle)
            finally:
                end(child)
            return _read_result(folder, child.returncode, str(job["kind"]))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _spawn(self, folder: Path, output: Any) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [*self._command, str(folder / "job.json")],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=child_environment(),
            start_new_session=True,  # Ctrl-C must reach this process first, which then ends the child
        )

    def _wait(
        self,
        child: "subprocess.Popen[bytes]",
        folder: Path,
        kind: str,
        idle: Callable[[str], str | None],
    ) -> None:
        began = time.monotonic()
        stage, changed = "starting", began
        while True:
            try:
                child.wait(self._poll_seconds)
                return
            except subprocess.TimeoutExpired:
                pass
            now = time.monotonic()
            beat = _read_beat(folder)
            if beat is not None and beat != stage:
                stage, changed = beat, now
            if now - began > self._limits.deadline_seconds:
                raise WorkerError(
                    "run job",
                    kind,
                    f"not done after {now - began:.0f} s (stage {stage})",
                    "raise [editing] deadline_seconds",
                    kind="deadline",
                )
            if now - max(changed, began) > self._limits.heartbeat_seconds:
                raise WorkerError(
                    "run job",
                    kind,
                    f"no heartbeat for {now - changed:.0f} s (stage {stage})",
                    "raise [editing] heartbeat_seconds",
                    kind="heartbeat",
                )
            reason = idle(stage.split("#", 1)[-1])
            if reason:
                raise WorkerStopped("run job", kind, reason)


def end(child: "subprocess.Popen[bytes]", grace_seconds: float = GRACE_SECONDS) -> None:
    """SIGTERM, then SIGKILL, to the child and all it started; returns once the child is gone."""
    for number, patience in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, None)):
        if child.poll() is not None:
            return
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            child.send_signal(number)
        try:
            child.wait(patience)
        except subprocess.TimeoutExpired:
            continue


def child_environment() -> dict[str, str]:
    """The parent's environment; no network for the model hub, and our packages found from any folder."""
    ours = str(Path(__file__).resolve().parent.parent)
    paths = [ours, *filter(None, [os.environ.get("PYTHONPATH")])]
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **quiet, "PYTHONPATH": os.pathsep.join(paths)}


def _read_beat(folder: Path) -> str | None:
    """`COUNT#STAGE` as the child last wrote it; the count makes two equal stages differ."""
    try:
        return (folder / "heartbeat").read_text()
    except OSError:
        return None


def _read_result(folder: Path, returncode: int, kind: str) -> Result:
    if returncode == EXIT_NO_ROOM:
        raise OSError(errno.ENOSPC, f"the worker's {kind} job found no room on the disk")
    try:
        result: Result = json.loads((folder / "result.json").read_text())
    except (OSError, ValueError) as error:
        raise _died(folder, returncode, kind) from error
    if "error" in result:
        fault = result["error"]
        raise WorkerError(
            fault["operation"], fault["subject"], fault["cause"], fault["hint"], kind=fault["kind"]
        )
    return result


def _died(folder: Path, returncode: int, kind: str) -> WorkerError:
    tail = (folder / "output.log").read_bytes().decode(errors="replace")[-TAIL:].strip()
    how = f"ended by {signal.Signals(-returncode).name}" if returncode < 0 else f"exit status {returncode}"
    hint = "out of memory?" if returncode == -signal.SIGKILL else ""
    return WorkerError("run job", kind, f"{how} without a result: {tail or 'no output'}", hint, kind="died")
