"""The other end of NOTIFY_SOCKET: a service manager that only listens."""

import socket
import time
from collections.abc import Callable

PATIENCE = 30.0

Message = dict[str, str]


class Systemd:
    """A real datagram socket, at a path or (with a leading @) in the abstract namespace."""

    def __init__(self, address: str) -> None:
        self.environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "4000000"}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.heard: list[Message] = []

    def close(self) -> None:
        self._socket.close()

    def listen(self, seconds: float = 0.0) -> list[Message]:
        """Messages that are there already or come within `seconds` of silence."""
        new: list[Message] = []
        self._socket.settimeout(seconds or 0.001)
        try:
            while True:
                text = self._socket.recv(4096).decode()
                new.append(dict(line.split("=", 1) for line in text.splitlines()))
        except TimeoutError:
            pass
        self.heard += new
        return new

    def wait_for(self, wanted: Callable[[Message], bool], what: str) -> Message:
        """The first message from now on of that kind."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for message in self.listen(0.05):
                if wanted(message):
                    return message
        raise AssertionError(f"no {what} among {self.heard}")


def said(messages: list[Message], field: str) -> list[str]:
    return [message[field] for message in messages if field in message]
