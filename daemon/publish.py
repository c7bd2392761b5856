"""Tells serving engines that `current` moved: hooks run without a shell, with JSON on stdin.

Knows argv, timeouts and retries. Doesn't know which engine listens, nor who moved `current`: a hook
that fails is reported and never undoes a generation.
"""

import json
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from daemon.config import Hook
from daemon.house import House

TAIL = 2000  # characters of a hook's stderr that are kept


@dataclass(frozen=True, slots=True)
class HookResult:
    """How one hook ended: `attempts` counts runs; `error` is empty when the last run exited 0."""

    argv: tuple[str, ...]
    attempts: int
    error: str

    @property
    def ok(self) -> bool:
        return not self.error


def announce(house: House, number: int, previous: int, reason: str) -> list[HookResult]:
    """Tell every hook that `number` is served now instead of `previous`."""
    payload = {
        "event": "generation.live",
        "model": house.config.model.name,
        "generation": number,
        "previous": previous,
        "path": str(house.models.current()),
        "current": str(house.layout.model.absolute() / "current"),
        "weights_sha256": house.ledger.generation(number).weights_sha256,
        "reason": reason,
        "at": house.now().isoformat(),
    }
    results = run_hooks(house.config.publish.hooks, payload)
    for at, result in enumerate(results):
        house.metrics.hooks.labels("ok" if result.ok else "failed").inc()
        report = house.log.info if result.ok else house.log.warning
        report("hook.done", hook=at, program=result.argv[0], attempts=result.attempts, error=result.error)
    house.log.info("generation.live", generation=number, previous=previous)
    return results


def run_hooks(
    hooks: Iterable[Hook], payload: Mapping[str, Any], pause: Callable[[float], None] = time.sleep
) -> list[HookResult]:
    """Run every hook in order, whatever became of the ones before."""
    body = json.dumps(payload, ensure_ascii=False, sort_keys=True).encode()
    return [_run_hook(hook, body, pause) for hook in hooks]


def _run_hook(hook: Hook, body: bytes, pause: Callable[[float], None]) -> HookResult:
    error = ""
    for attempt in range(hook.retries + 1):
        if attempt:
            pause(_pause(attempt))
        error = _run_once(hook, body)
        if not error:
            break
    return HookResult(hook.argv, attempt + 1, error)


def _run_once(hook: Hook, body: bytes) -> str:
    """Empty when the hook exited 0 in time, else why not."""
    try:
        done = subprocess.run(
            hook.argv,
            input=body,
            capture_output=True,
            timeout=hook.timeout,
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {hook.timeout:g} s"
    except OSError as error:
        return str(error)
    if done.returncode:
        return f"exit status {done.returncode}: {done.stderr.decode(errors='replace')[-TAIL:].strip()}"
    return ""


def longest(hooks: Iterable[Hook]) -> float:
    """Seconds that all hooks together may take at the most; the main loop does nothing else meanwhile."""
    return sum(
        hook.timeout * (hook.retries + 1) + sum(_pause(n) for n in range(1, hook.retries + 1))
        for hook in hooks
    )


def _pause(attempt: int) -> float:
    return min(0.5 * 2.0**attempt, 10.0)
