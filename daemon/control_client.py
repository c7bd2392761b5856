"""The other end of the control socket: what a running daemon answers, None when none does.

Knows HTTP over a Unix socket. Doesn't know what an order means, nor the ledger.
"""

import json
import os
import socket
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from daemon.config import Config
from daemon.control_socket import NAME
from store.errors import UnreachableError

PATIENCE_SECONDS = 60.0  # more than the daemon takes to note an order


class _Connection(HTTPConnection):
    """`connect` goes through a descriptor of the folder: a socket's path may have 107 bytes only."""

    def __init__(self, folder: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE_SECONDS)
        self._folder = folder

    def connect(self) -> None:
        descriptor = os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.settimeout(self.timeout)
            made.connect(f"/proc/self/fd/{descriptor}/{NAME}")
        except BaseException:
            made.close()
            raise
        finally:
            os.close(descriptor)
        self.sock = made


def get(config: Config, path: str) -> tuple[int, Any] | None:
    """Status and JSON of `path`; None when no daemon listens. Raises UnreachableError."""
    return _ask(config, "GET", path, None)


def post(config: Config, kind: str, args: dict[str, Any]) -> tuple[int, Any] | None:
    """Give an order; None when no daemon listens, so that none was given. Raises UnreachableError."""
    return _ask(config, "POST", "/orders", json.dumps({"kind": kind, "args": args}).encode())


def _ask(config: Config, method: str, path: str, body: bytes | None) -> tuple[int, Any] | None:
    connection = _Connection(config.layout.run)
    try:
        connection.connect()
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        return None
    except OSError as error:
        hint = "the users of the socket's group may connect" if isinstance(error, PermissionError) else ""
        raise _unreachable(config, error.strerror or str(error), hint) from error
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    except (OSError, HTTPException, ValueError) as error:
        hint = "what was ordered may be carried out; see `palimpsest status`"
        raise _unreachable(config, f"{type(error).__name__}: {error}", hint) from error
    finally:
        connection.close()


def _unreachable(config: Config, cause: str, hint: str) -> UnreachableError:
    return UnreachableError("ask the daemon", str(config.layout.run / NAME), cause, hint)
