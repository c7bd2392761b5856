"""Tells systemd how the service is: READY, STATUS, WATCHDOG, RELOADING, STOPPING and more time.

Knows the sd_notify datagram. Doesn't import anything of systemd, and is silent without NOTIFY_SOCKET.
"""

import os
import socket
import time
from collections.abc import Callable, Mapping

PATIENCE_SECONDS = 5.0
_REPEATED = frozenset({"STATUS", "WATCHDOG"})


class Notifier:
    """Datagrams to the socket that systemd named; every method is a no-op when there is none.

    Every local user may read a STATUS (`systemctl status`), so none may hold fact text.
    """

    def __init__(
        self,
        environment: Mapping[str, str] = os.environ,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._monotonic = monotonic
        # Half of what systemd waits for; 0 when it doesn't watch, or watches another process.
        watched = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_seconds = _seconds(environment.get("WATCHDOG_USEC", "")) / 2 if watched else 0.0

    def send(self, **fields: str | int) -> bool:
        """Send `FIELD=value` lines; False when nobody listens. Never raises: a status isn't worth a crash.

        Only what won't be said again waits a little where the listener's queue is full.
        """
        if not self._address:
            return False
        lines = (f"{key}={value}".replace("\n", " ") for key, value in fields.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.settimeout(0.0 if fields.keys() <= _REPEATED else PATIENCE_SECONDS)
                channel.connect(self._address)
                channel.sendall("\n".join(lines).encode())
        except OSError:
            return False
        return True

    def ready(self, status: str) -> bool:
        return self.send(READY=1, STATUS=status, MAINPID=os.getpid())

    def reloading(self, status: str) -> bool:
        """`ready` ends it. The time lets systemd tell this reload from an earlier one."""
        return self.send(RELOADING=1, MONOTONIC_USEC=_microseconds(self._monotonic()), STATUS=status)

    def status(self, status: str) -> bool:
        return self.send(STATUS=status)

    def watchdog(self) -> bool:
        return self.send(WATCHDOG=1)

    def lengthen_watchdog(self, seconds: float) -> bool:
        """From now on wait so much longer for each WATCHDOG than the unit says."""
        if not self.watchdog_seconds or seconds <= 0:
            return False
        return self.send(WATCHDOG_USEC=_microseconds(2 * self.watchdog_seconds + seconds))

    def extend(self, seconds: float, status: str) -> bool:
        """Starting (or stopping) takes longer: don't give up for so many seconds from now."""
        return self.send(EXTEND_TIMEOUT_USEC=_microseconds(seconds), STATUS=status)

    def stopping(self) -> bool:
        return self.send(STOPPING=1, STATUS="stopping")


def _seconds(text: str) -> float:
    return int(text) / 1e6 if text.isdigit() else 0.0


def _microseconds(seconds: float) -> int:
    return int(seconds * 1e6)
