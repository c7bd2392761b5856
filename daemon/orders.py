"""The command line's side of orders: hand them to the running daemon, or carry them out without it.

Knows the control socket, and the lock that tells whether a daemon without one runs. Doesn't know what
an order does (`daemon.control`).
"""

import time
from collections.abc import Callable
from typing import Any

from daemon import control, control_client
from daemon.config import Config
from daemon.house import open_house, utc_now
from daemon.logs import quiet_log
from daemon.recovery import recover
from daemon.runner import Runner, never
from daemon.users import actor
from store.errors import (
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    LockedError,
    PalimpsestError,
    UnreachableError,
    UsageError,
)
from store.ledger import Ledger
from store.lock import StateLock

PATIENCE_SECONDS = 600.0


class OrderFailed(PalimpsestError):
    """An order that the daemon carried out and that failed there; `status` is its exit code."""

    status: int = 1


def give(
    config: Config,
    kind: str,
    args: dict[str, Any],
    *,
    patience: float = PATIENCE_SECONDS,
    runner: Runner | None = None,
    idle: Callable[[str], str | None] = never,
) -> dict[str, Any]:
    """Have an order carried out; returns its result. Raises PalimpsestError when it failed."""
    require_state(config)
    answer = control_client.post(config, kind, args)
    if answer is not None:
        return _over_socket(config, kind, answer, patience)
    try:
        quiet = quiet_log(config.logs)
        with StateLock(config.layout.state), open_house(config, runner=runner, log=quiet) as house:
            recover(house)
            order = house.ledger.add_intent(kind, args, now=house.now(), actor=actor())
            try:
                result = control.execute(house, kind, args, idle, actor=actor(), order=order)
            except PalimpsestError as error:
                house.ledger.finish_intent(order, control.failure(error), house.now())
                raise
            house.ledger.finish_intent(order, result, house.now())
            return result
    except LockedError:
        return _hand_over(config, kind, args, patience)


def _over_socket(config: Config, kind: str, answer: tuple[int, Any], patience: float) -> dict[str, Any]:
    """Wait for an order that the daemon has noted; what it refused to note is raised."""
    deadline = time.monotonic() + patience
    asked: tuple[int, Any] | None = answer
    while asked is not None:
        status, value = asked
        if "order" not in value:
            return _result({**value, "exit_code": EXIT_USAGE if status < 500 else EXIT_UNREACHABLE})
        if value["result"] is not None:
            return _result(value["result"])
        if time.monotonic() > deadline:
            raise _unfinished(kind, patience)
        time.sleep(0.1)
        asked = control_client.get(config, f"/orders/{value['order']}")
    hint = "it stays in the ledger and will be carried out at the next start"
    raise UnreachableError("give order", kind, "the daemon stopped before it had finished it", hint)


def _hand_over(config: Config, kind: str, args: dict[str, Any], patience: float) -> dict[str, Any]:
    """Write the order's row and wait for the daemon to finish it."""
    ledger = Ledger.open(config.layout.ledger, backups=None)
    try:
        order = ledger.add_intent(kind, args, now=utc_now(), actor=actor())
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            row = ledger.intent(order)
            if row["finished_at"] is not None:
                return _result(row["result"])
            time.sleep(0.1)
    finally:
        ledger.close()
    raise _unfinished(kind, patience)


def _unfinished(kind: str, patience: float) -> UnreachableError:
    cause, hint = (
        f"the daemon didn't finish it within {patience:g} s",
        "it stays in the ledger and will be carried out",
    )
    return UnreachableError("give order", kind, cause, hint)


def _result(result: dict[str, Any]) -> dict[str, Any]:
    if "error" not in result:
        return result
    fault = result["error"]
    error = OrderFailed(fault["operation"], fault["subject"], fault["cause"], fault["hint"])
    error.status = int(result["exit_code"])
    raise error


def require_state(config: Config) -> None:
    """Raises UsageError unless a ledger is where the configuration says."""
    if not config.layout.ledger.is_file():
        raise UsageError(
            "open state directory",
            str(config.layout.state),
            "there is no ledger in it",
            "run `palimpsest init`, or give --state DIR",
        )
