"""Tells systemd how the service is: READY, STATUS, WATCHDOG, RELOADING, STOPPING.

Knows the sd_notify datagram. Doesn't import anything of systemd, and is silent without NOTIFY_SOCKET.
"""

import os
import socket
from collections.abc import Mapping


class Notifier:
    """Datagrams to the socket that systemd named; every method is a no-op when there is none."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_seconds = _microseconds(environment.get("WATCHDOG_USEC", "")) / 2

    def send(self, **fields: str | int) -> bool:
        """Send `FIELD=value` lines; False when nobody listens. Never raises: a status isn't worth a crash."""
        if not self._address:
            return False
        message = "\n".join(f"{key}={value}" for key, value in fields.items()).encode()
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.connect(self._address)
                channel.sendall(message)
        except OSError:
            return False
        return True

    def ready(self, status: str) -> bool:
        return self.send(READY=1, STATUS=status, MAINPID=os.getpid())

    def status(self, status: str) -> bool:
        return self.send(STATUS=status.replace("\n", " "))

    def watchdog(self) -> bool:
        return self.send(WATCHDOG=1)

    def stopping(self) -> bool:
        return self.send(STOPPING=1)


def _microseconds(text: str) -> float:
    return int(text) / 1e6 if text.isdigit() else 0.0
