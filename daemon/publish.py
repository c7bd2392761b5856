"""Tells serving engines that `current` moved: hooks run without a shell, with JSON on stdin.

Knows argv, timeouts, retries and what a hook may answer. Doesn't know which engine listens, nor who
moved `current`: a hook that fails is reported and never undoes a generation. Every switch is told at least
once, whatever dies in between.

A hook gets the questions that show what is served (`policies.served`), and may end its stdout with a line
{"served_generation": N} once the engine has answered them. Its stderr is logged and must hold no fact text.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from daemon.config import Hook
from daemon.house import House
from daemon.questions import questions_for
from policies.served import ANSWER_TOKENS
from store.facts import Reading
from store.failpoints import reach

# Settings of the ledger: the generation that the hooks were last told of, and the one they then found served.
ANNOUNCED, SERVED = "announced", "served_generation"
TAIL = 2000  # characters of a hook's stderr that are kept


@dataclass(frozen=True, slots=True)
class HookResult:
    """How one hook ended: `attempts` counts runs; `error` is empty when the last run exited 0; `served` is
    the generation that it found served, None when it didn't say."""

    argv: tuple[str, ...]
    attempts: int
    error: str
    served: int | None = None

    @property
    def ok(self) -> bool:
        return not self.error


def announce(
    house: House, number: int, previous: int, reason: str, *, measured: Sequence[Reading] = ()
) -> list[HookResult]:
    """Tell every hook that `number` is served now instead of `previous`. `measured` are the readings of
    `number` that the ledger doesn't hold yet."""
    hooks = house.config.publish.hooks
    asked = questions_for(house, number, previous, measured) if hooks else []
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
        "questions": [asdict(question) for question in asked],
        "answer_tokens": ANSWER_TOKENS,
    }
    results = run_hooks(hooks, payload)
    for at, result in enumerate(results):
        house.metrics.hooks.labels("ok" if result.ok else "failed").inc()
        report = house.log.info if result.ok else house.log.warning
        report(
            "hook.done",
            hook=at,
            program=result.argv[0],
            attempts=result.attempts,
            error=result.error,
            served=result.served,
        )
    house.log.info("generation.live", generation=number, previous=previous)
    if results:
        house.ledger.set_setting(SERVED, found_served(results, number), now=house.now())
        house.ledger.set_setting(ANNOUNCED, number, now=house.now())
    return results


def announce_owed(house: House) -> None:
    """Tell the hooks what is live when a process died between the switch and the telling."""
    told, live = house.ledger.get_setting(ANNOUNCED, 0), house.live_number
    if house.config.publish.hooks and told != live:
        announce(house, live, told, "the daemon had stopped before it could tell")


def run_hooks(
    hooks: Iterable[Hook], payload: Mapping[str, Any], pause: Callable[[float], None] = time.sleep
) -> list[HookResult]:
    """Run every hook in order, whatever became of the ones before."""
    body = json.dumps(payload, ensure_ascii=False, sort_keys=True).encode()
    results = []
    for hook in hooks:
        results.append(_run_hook(hook, body, pause))
        reach("hook.ran")
    return results


def found_served(results: Iterable[HookResult], live: int) -> int | None:
    """The generation that every engine serves as far as its hook said; where they differ, one that isn't
    live. None when no hook said, or one failed and didn't."""
    results = list(results)
    said = [result.served for result in results if result.served is not None]
    behind = next((served for served in said if served != live), None)
    if behind is not None or any(not result.ok and result.served is None for result in results):
        return behind
    return live if said else None


def _run_hook(hook: Hook, body: bytes, pause: Callable[[float], None]) -> HookResult:
    error, served = "", None
    for attempt in range(hook.retries + 1):
        if attempt:
            pause(_pause(attempt))
        error, served = _run_once(hook, body)
        if not error:
            break
    return HookResult(hook.argv, attempt + 1, error, served)


def _run_once(hook: Hook, body: bytes) -> tuple[str, int | None]:
    """(empty when the hook exited 0 in time, else why not; the generation it found served)."""
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(hook.argv, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
    except OSError as error:
        return str(error), None
    with process:
        try:
            out, err = process.communicate(body, timeout=hook.timeout)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its children too: a restart must not go on alone
            return f"no answer within {hook.timeout:g} s", None
    if process.returncode:
        why = f"exit status {process.returncode}: {err.decode(errors='replace')[-TAIL:].strip()}"
        return why, _served(out)
    return "", _served(out)


def _served(stdout: bytes) -> int | None:
    """The last line, when it is of the agreed form; hooks may print what they like."""
    try:
        said = json.loads(stdout.strip().rpartition(b"\n")[2])
        number = said["served_generation"]
    except (ValueError, TypeError, KeyError):
        return None
    return number if isinstance(number, int) and not isinstance(number, bool) and number >= 0 else None


def longest(hooks: Iterable[Hook]) -> float:
    """Seconds that all hooks together may take at the most; the main loop does nothing else meanwhile."""
    return sum(
        hook.timeout * (hook.retries + 1) + sum(_pause(n) for n in range(1, hook.retries + 1))
        for hook in hooks
    )


def _pause(attempt: int) -> float:
    return min(0.5 * 2.0**attempt, 10.0)
