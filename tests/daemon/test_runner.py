"""The worker child as seen from the parent: results, faults, hangs, limits, signals."""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from daemon import worker
from daemon.runner import Limits, WorkerError, WorkerHandle, WorkerStopped

pytestmark = pytest.mark.slow

# A child as small as they come: its job says what it does.
CHILD = """
import json, os, signal, sys, time
from pathlib import Path
from daemon import worker
def run(job, beat):
    beat("one")
    if job["do"] == "die": os._exit(3)
    if job["do"] == "kill": os.kill(os.getpid(), signal.SIGKILL)
    if job["do"] == "raise": raise ValueError("no such layer")
    if job["do"] == "grow": return {"n": len(b"x" * (1 << 30))}
    if job["do"] == "stubborn": signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while job["do"] in ("hang", "stubborn"): time.sleep(0.01)
    while job["do"] == "beat": time.sleep(0.05); beat("busy")
    beat("two")
    return {"pid": os.getpid(), "torch": "torch" in sys.modules, "offline": os.environ["HF_HUB_OFFLINE"]}
sys.exit(worker.main(Path(sys.argv[1]), run))
"""


@pytest.fixture
def child(tmp_path: Path) -> Path:
    path = tmp_path / "child.py"
    path.write_text(CHILD)
    return path


def handle(tmp_path: Path, child: Path, **limits: float) -> WorkerHandle:
    return WorkerHandle(
        tmp_path / "run",
        Limits(**limits),  # type: ignore[arg-type]
        (sys.executable, "-P", str(child)),
        poll_seconds=0.02,
    )


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_result_comes_back_from_another_process(tmp_path: Path, child: Path) -> None:
    """The child has no network for the hub, no torch before its job, and leaves nothing behind."""
    result = handle(tmp_path, child).run({"kind": "test", "do": "work"})
    assert result["pid"] != os.getpid()
    assert result["torch"] is False
    assert result["offline"] == "1"
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize(
    ("what", "limits", "kind", "words"),
    [
        ("raise", {}, "failed", "ValueError: no such layer"),
        ("die", {}, "died", "exit status 3"),
        ("kill", {}, "died", "SIGKILL"),
        ("grow", {"memory_bytes": 512 << 20}, "memory", "MemoryError"),
        ("hang", {"deadline_seconds": 0.8}, "deadline", "not done after"),
        ("hang", {"heartbeat_seconds": 0.8}, "heartbeat", "no heartbeat"),
    ],
)
def test_every_way_to_fail_has_a_name(
    tmp_path: Path, child: Path, what: str, limits: dict[str, float], kind: str, words: str
) -> None:
    """The parent always gets an error that says what happened, and never waits for ever."""
    with pytest.raises(WorkerError, match=words) as caught:
        handle(tmp_path, child, **limits).run({"kind": "test", "do": what})
    assert caught.value.kind == kind
    assert list((tmp_path / "run").iterdir()) == []


def test_a_beating_heart_is_not_silence(tmp_path: Path, child: Path) -> None:
    """The same stage again is a beat too; only the deadline ends such a job."""
    with pytest.raises(WorkerError) as caught:
        handle(tmp_path, child, heartbeat_seconds=1.0, deadline_seconds=2.5).run({"kind": "t", "do": "beat"})
    assert caught.value.kind == "deadline"


@pytest.mark.parametrize("what", ["hang", "stubborn"])
def test_a_child_is_ended_when_something_is_more_urgent(tmp_path: Path, child: Path, what: str) -> None:
    """SIGTERM first, SIGKILL for those who ignore it; gone well within ten seconds."""
    stages: list[str] = []

    def idle(stage: str) -> str | None:
        stages.append(stage)
        return "stop" if stage == "one" else None

    began = time.monotonic()
    with pytest.raises(WorkerStopped, match="stop"):
        handle(tmp_path, child).run({"kind": "test", "do": what}, idle)
    assert time.monotonic() - began < 8
    assert stages[-1] == "one"


def test_a_child_dies_with_its_parent(tmp_path: Path, child: Path) -> None:
    """A killed daemon leaves no child that trains for nobody."""
    pid_file = tmp_path / "pid"
    script = CHILD.replace(
        'beat("one")', f'Path({str(pid_file)!r}).write_text(str(os.getpid())); beat("one")'
    )
    child.write_text(script)
    parent = os.fork()
    if parent == 0:
        try:
            handle(tmp_path, child).run({"kind": "test", "do": "hang"})
        finally:
            os._exit(0)
    deadline = time.monotonic() + 10
    while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(parent, 9)
    os.waitpid(parent, 0)
    while alive(int(pid_file.read_text())) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(int(pid_file.read_text()))


def test_a_child_whose_parent_is_gone_does_not_begin(tmp_path: Path, child: Path) -> None:
    """The parent may die before the child can ask to die with it."""
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"kind": "test", "do": "work", "parent_pid": 1}))
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, str(child), str(job)]) == 1
    assert not (tmp_path / "result.json").exists()


def test_the_worker_reads_jobs_and_writes_results(tmp_path: Path) -> None:
    """The files beside the job are the whole protocol."""
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"kind": "test", "x": 2}))
    assert worker.main(job, lambda job, beat: {"twice": job["x"] * 2}) == 0
    assert json.loads((tmp_path / "result.json").read_text()) == {"twice": 4}
