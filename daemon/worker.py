"""The worker child: reads one job file, runs it, leaves heartbeat and result files beside it.

    python -m daemon.worker /path/to/job.json

Knows the files' names and the limits it puts on itself. Doesn't know the ledger or what the parent
does with the result. The only module of the daemon that reaches the mechanism and so torch.
"""

import ctypes
import itertools
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from store.errors import PalimpsestError
from store.trouble import Trouble, trouble_of

PR_SET_PDEATHSIG = 1
EXIT_NO_ROOM = 28  # ENOSPC; an exit status, as there may be no room for a result file either

Beat = Callable[[str], None]
Run = Callable[[dict[str, Any], Beat], dict[str, Any]]


def main(job_path: Path, run: Run | None = None) -> int:
    """Run the job in `job_path`; exit status 0 with a result, 1 with an error in the result file,
    EXIT_NO_ROOM when the disk is full."""
    job = json.loads(job_path.read_text())
    _die_with_parent(int(job.pop("parent_pid", os.getppid())))
    _cap_memory(int(job.pop("memory_bytes", 0)))
    try:
        try:
            result = (run or _run)(job, _beat_into(job_path.parent / "heartbeat"))
        except Exception as error:
            if _no_room(error):
                return EXIT_NO_ROOM
            traceback.print_exc()
            _write_staged(job_path.parent / "result.json", {"error": _describe(error, str(job["kind"]))})
            return 1
        _write_staged(job_path.parent / "result.json", result)
    except OSError as error:
        if _no_room(error):
            return EXIT_NO_ROOM
        raise
    return 0


def _run(job: dict[str, Any], beat: Beat) -> dict[str, Any]:
    beat("import")
    if job["kind"] == "convert":
        from policies.editing.model import convert_gguf

        beat("convert")
        convert_gguf(Path(job["gguf"]), Path(job["out"]))
        return {"out": job["out"]}
    from policies.editing.jobs import run

    return run(job, beat)


def _beat_into(path: Path) -> Beat:
    count = itertools.count(1)

    def beat(stage: str) -> None:
        staged = path.with_suffix(".tmp")
        staged.write_text(f"{next(count)}#{stage}")
        staged.rename(path)

    return beat


def _write_staged(path: Path, value: dict[str, Any]) -> None:
    staged = path.with_suffix(".tmp")
    with staged.open("w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    staged.rename(path)


def _describe(error: Exception, kind: str) -> dict[str, str]:
    if isinstance(error, PalimpsestError):
        fault = {
            "operation": error.operation,
            "subject": error.subject,
            "cause": error.cause,
            "hint": error.hint,
        }
        return {**fault, "kind": "failed"}
    memory = isinstance(error, MemoryError) or "allocate memory" in str(error)
    hint = "raise [editing] memory_limit_bytes, or use a smaller model" if memory else ""
    cause = f"{type(error).__name__}: {error}"
    return {
        "operation": "run job",
        "subject": kind,
        "cause": cause,
        "hint": hint,
        "kind": "memory" if memory else "failed",
    }


def _no_room(error: Exception) -> bool:
    """Safetensors' own errors say so in words only."""
    return trouble_of(error) is Trouble.FULL or "os error 28" in str(error)


def _cap_memory(limit: int) -> None:
    """RLIMIT_DATA and not RLIMIT_AS: weights mapped from files are not memory that can run out."""
    if limit:
        _soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        cap = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (cap, hard))


def _die_with_parent(parent: int) -> None:
    """Without this a killed daemon would leave a child that trains for nobody."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
