"""The shipped example endpoint as a process, and what a client asks of it."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.config import Hook
from daemon.runner import child_environment

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


@dataclass(frozen=True, slots=True)
class Client:
    """One user of the endpoint."""

    url: str

    @property
    def hook(self) -> Hook:
        """What an operator configures to have this endpoint reloaded and asked."""
        check = str(DEPLOY / "hooks" / "check.py")
        return Hook((sys.executable, check, "--url", self.url, "--post", "/reload"), timeout=240, retries=0)

    def call(self, path: str, body: Any = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(self.url + path, data, timeout=240) as answer:
            return dict(json.load(answer))

    def status(self, path: str, body: Any) -> int:
        """Of a request that is refused."""
        try:
            self.call(path, body)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        return 200

    def ask(self, question: str) -> str:
        message = {"role": "user", "content": question}
        answer = self.call(
            "/v1/chat/completions", {"messages": [message], "max_tokens": 32, "temperature": 0}
        )
        return str(answer["choices"][0]["message"]["content"])

    def serves(self, number: int, seconds: float = 120.0) -> bool:
        """Whether it comes to serve that generation in time."""
        deadline = time.monotonic() + seconds
        while self.call("/healthz")["generation"] != number:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True


@contextmanager
def endpoint(current: Path) -> Iterator[Client]:
    """`serve_transformers.py` on a free port, up; killed at the end."""
    program = str(DEPLOY / "examples" / "serve_transformers.py")
    command = [sys.executable, program, str(current), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=child_environment()) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("listening on "), line or f"it ended with {process.wait()}"
            yield Client(line.split()[-1])
        finally:
            process.kill()
