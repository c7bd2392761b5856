"""A process with everything imported that forks others from itself: starting a daemon costs milliseconds.

    python -m tests.crash.zygote [MODULE ...]

reads one JSON request a line and answers each with one: `start` forks a child that calls a function and
leaves with what it returns; `wait` says how it ended. The children are processes of their own, which
a SIGKILL takes as it would any other. `Zygote` is the other side of the pipe.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, Self

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 300.0


class Child:
    """A forked process."""

    def __init__(self, zygote: "Zygote", pid: int, log: Path) -> None:
        self._zygote, self.pid, self.log = zygote, pid, log
        self.status: int | None = None

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int | None:
        """Its exit status, minus the signal's number when it was killed; None when it still runs."""
        if self.status is None:
            self.status = self._zygote.ask({"do": "wait", "pid": self.pid, "seconds": seconds})
        return self.status

    def end(self) -> int:
        """Its exit status; killed, and an AssertionError, when it doesn't end by itself."""
        status = self.wait()
        if status is None:
            self.kill()
            raise AssertionError(f"still at work after {PATIENCE_SECONDS:g} s: {self.log.read_text()}")
        return status

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.wait(0) is None:
            os.kill(self.pid, number)
        self.wait()


class Zygote:
    """Starts the process at the first request, ends it with `close`."""

    def __init__(self, *modules: str, environment: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.zygote", *modules],
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, function: str, *args: Any, log: Path, **environment: str) -> Child:
        """Call `module:function` with JSON-able arguments in a process of its own."""
        request = {"do": "start", "call": function, "args": args, "log": str(log), "env": environment}
        return Child(self, int(self.ask(request)), log)

    def ask(self, request: Mapping[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def main(modules: list[str]) -> None:
    """Answer requests until the pipe is closed; children that are left end then."""
    for module in modules:
        importlib.import_module(module)
    running: set[int] = set()
    for line in sys.stdin:
        request = json.loads(line)
        answer = _fork(request, running) if request["do"] == "start" else _wait(request, running)
        print(json.dumps(answer), flush=True)
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def _wait(request: Mapping[str, Any], running: set[int]) -> int | None:
    deadline = time.monotonic() + request["seconds"]
    while True:
        found, status = os.waitpid(request["pid"], os.WNOHANG)
        if found:
            running.discard(found)
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.002)


def _fork(request: Mapping[str, Any], running: set[int]) -> int:
    pid = os.fork()
    if pid == 0:
        _call(request)
    running.add(pid)
    return pid


def _call(request: Mapping[str, Any]) -> NoReturn:
    status = 70
    try:
        os.setsid()
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for number in (1, 2):
            os.dup2(log, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(request["env"])
        module, _, name = request["call"].partition(":")
        status = getattr(importlib.import_module(module), name)(*request["args"])
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    main(sys.argv[1:])
