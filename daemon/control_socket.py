"""The control socket: HTTP on a Unix socket in the run directory, for the users of the daemon's group.

    GET  /healthz              {"ok": true}, 503 when the main loop hasn't turned for a minute
    GET  /status, /approvals   what the commands of these names print as JSON
    POST /orders               {"kind": "pause", "args": {}} -> {"order": 7, "result": {...} or null}
    GET  /orders/7             the same, later

Knows HTTP, who is at the other end (the kernel says it, the client can't claim it), and how to read the
ledger. Never writes it: an order goes to the main thread, which owns the ledger. Every connection has
one of a few threads, a deadline and a small body, so that a slow or hostile client delays nobody.
"""

import json
import os
import queue
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from daemon.config import Config
from daemon.control import KINDS
from daemon.status import read_status, waiting_for_approval
from daemon.users import actor
from store.errors import EXIT_USAGE, PalimpsestError
from store.ledger import Ledger

NAME = "control.sock"
MODE = 0o660
MAX_BODY = 64 * 1024
MAX_CLIENTS = 16
READ_SECONDS = 10.0  # for a whole request, however slowly it comes
ACCEPT_SECONDS = 30.0  # until the main thread has noted an order
RESULT_SECONDS = 10.0  # until it has carried it out; after that the client asks again
STALE_SECONDS = 60.0

Answer = tuple[int, Any]
Read = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Given:
    """An order on its way to the main thread, which sets its number in the ledger."""

    kind: str
    args: Mapping[str, Any]
    actor: str
    number: "Future[int]" = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class Views:
    """What may be read, each by the thread that asks. `order` is None for a number that there isn't."""

    status: Read
    approvals: Read
    order: Callable[[int], Mapping[str, Any] | None]
    kinds: frozenset[str]


def views_of(config: Config) -> Views:
    """What the ledger and the run directory say, through a connection of the thread that asks."""

    def reading(read: Callable[[Config, Ledger], Any]) -> Read:
        def view() -> Any:
            with Ledger.open_readonly(config.layout.ledger) as ledger:
                return read(config, ledger)

        return view

    def order(number: int) -> Mapping[str, Any] | None:
        with Ledger.open_readonly(config.layout.ledger) as ledger:
            return ledger.find_intent(number)

    return Views(reading(read_status), reading(waiting_for_approval), order, KINDS)


class ControlSocket:
    """Serves from threads of its own between `start` and `stop`; `wake` is called when an order came."""

    def __init__(self, folder: Path, views: Views, wake: Callable[[], None]) -> None:
        self.views = views
        self._folder = folder
        self._wake = wake
        self._orders: queue.SimpleQueue[Given] = queue.SimpleQueue()
        self._turned = time.monotonic()
        self._server: _Server | None = None

    def start(self) -> None:
        """The caller holds the state directory's lock, so that whatever socket lies there is nobody's."""
        self._server = _Server(self._folder, self)
        serve = self._server.serve_forever
        threading.Thread(target=serve, kwargs={"poll_interval": 0.1}, name="control", daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            (self._folder / NAME).unlink(missing_ok=True)
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def beat(self) -> None:
        """The main loop turns."""
        self._turned = time.monotonic()

    @property
    def is_fresh(self) -> bool:
        return time.monotonic() - self._turned < STALE_SECONDS

    def note_orders(self, ledger: Ledger, now: datetime) -> None:
        """For the main thread: put what came since into the ledger, less what nobody waits for any more."""
        while not self._orders.empty():
            given = self._orders.get()
            if not given.number.set_running_or_notify_cancel():
                continue
            try:
                number = ledger.add_intent(given.kind, given.args, now=now, actor=given.actor)
                given.number.set_result(number)
            except PalimpsestError as error:
                given.number.set_exception(error)

    def give(self, given: Given) -> int:
        """Hand an order to the main thread; its number. Raises CancelledError when that takes too long."""
        self._orders.put(given)
        self._wake()
        try:
            return given.number.result(ACCEPT_SECONDS)
        except FutureTimeout:
            if given.number.cancel():
                raise CancelledError from None
            return given.number.result()


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, folder: Path, control: ControlSocket) -> None:
        self.control = control
        self._slots = threading.BoundedSemaphore(MAX_CLIENTS)
        self._reading: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:  # through the descriptor, as a socket's path may have 107 bytes only
            super().__init__(f"/proc/self/fd/{descriptor}/{NAME}", _Handler)
        finally:
            os.close(descriptor)

    def server_bind(self) -> None:
        """The mode is set before anybody can connect: a socket that doesn't listen refuses."""
        path = str(self.server_address)
        with suppress(FileNotFoundError):
            os.unlink(path)
        self.socket.bind(path)
        os.chmod(path, MODE)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        with self._lock:
            self._reading[request] = time.monotonic()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.has_read(request)
            self._slots.release()

    def has_read(self, request: socket.socket) -> None:
        """The whole request is here: from now on only we are slow."""
        with self._lock:
            self._reading.pop(request, None)

    def service_actions(self) -> None:
        """Called several times a second by `serve_forever`: cut off who dribbles."""
        late = time.monotonic() - READ_SECONDS
        with self._lock:
            for request in [each for each, began in self._reading.items() if began < late]:
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no event; what fails in here has been answered with 500."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "palimpsest"
    sys_version = ""
    default_request_version = "HTTP/1.0"
    timeout = READ_SECONDS

    def do_GET(self) -> None:
        self.server.has_read(self.connection)
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _get(self) -> Answer:
        control, views = self.server.control, self.server.control.views
        if self.path == "/healthz":
            return (200, {"ok": True}) if control.is_fresh else (503, _error("the main loop hangs"))
        if self.path in ("/status", "/approvals"):
            return 200, (views.status if self.path == "/status" else views.approvals)()
        kind, _, number = self.path.rpartition("/")
        if kind == "/orders" and number.isascii() and number.isdigit() and len(number) < 19:
            row = views.order(int(number))
            return _of_order(row) if row else (404, _error(f"there is no order {number}"))
        return 404, _error(f"nothing is at {self.path[:100]}", "see /status, /approvals, /orders, /healthz")

    def _post(self) -> Answer:
        if self.path != "/orders":
            return 404, _error(f"nothing can be posted to {self.path[:100]}", "orders go to /orders")
        body = self._body()
        if isinstance(body, tuple):
            return body
        self.server.has_read(self.connection)
        fault = _fault(body, self.server.control.views.kinds)
        if fault:
            return 400, _error(fault, 'send {"kind": KIND, "args": {...}}')
        try:
            number = self.server.control.give(Given(body["kind"], body["args"], self._peer()))
        except CancelledError:
            return 503, _error("the daemon is busy", "nothing was ordered; try again")
        return self._result(number)

    def _result(self, number: int) -> Answer:
        deadline = time.monotonic() + RESULT_SECONDS
        while True:
            row = self.server.control.views.order(number)
            if row is None or row["finished_at"] is not None or time.monotonic() > deadline:
                return _of_order(row or {"id": number, "result": None, "finished_at": None})
            time.sleep(0.05)

    def _body(self) -> Any:
        """The parsed body, or an answer that says what is wrong with it."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            return 411, _error("there is no Content-Length")
        if len(length) > 9 or int(length) > MAX_BODY:
            return 413, _error(f"the body is larger than {MAX_BODY} bytes")
        data = self.rfile.read(int(length))
        try:
            found = json.loads(data)
        except (ValueError, RecursionError) as error:
            return 400, _error(f"the body isn't JSON: {error}")
        return found if isinstance(found, dict) else (400, _error("the body isn't a JSON object"))

    def _peer(self) -> str:
        """Who is at the other end, as the kernel noted when it connected."""
        size = struct.calcsize("3i")
        packed = self.connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        _pid, uid, _gid = struct.unpack("3i", packed)
        return actor(uid)

    def _answer(self, make: Callable[[], Answer]) -> None:
        try:
            status, value = make()
        except PalimpsestError as error:
            status, value = 500, {"error": error.as_dict()}
        except OSError:  # the client went away, or was too slow
            self.close_connection = True
            return
        body = json.dumps(value, ensure_ascii=False, default=str).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def finish(self) -> None:
        """Read on a little before closing: bytes that nobody read would reset the connection, and the
        client would never see why it was refused."""
        super().finish()
        with suppress(OSError):
            self.connection.settimeout(0.1)
            for _ in range(32):
                if not self.connection.recv(MAX_BODY):
                    break

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the parser of http.server refuses, as JSON too and without quoting it."""
        with suppress(ValueError):
            message = message or HTTPStatus(code).phrase
        self._answer(lambda: (code, _error(message or "refused")))

    def log_message(self, format: str, *args: Any) -> None:
        """The audit says who ordered what; reading is not logged."""


def _of_order(row: Mapping[str, Any]) -> Answer:
    if row["finished_at"] is None:  # what was done of it by now is no result yet
        return 202, {"order": row["id"], "result": None}
    value = {"order": row["id"], "result": row["result"]}
    if "error" not in row["result"]:
        return 200, value
    return (400 if row["result"].get("exit_code") == EXIT_USAGE else 409), value


def _fault(body: Mapping[str, Any], kinds: frozenset[str]) -> str:
    if unknown := sorted(body.keys() - {"kind", "args"}):
        return f"unknown key {unknown[0][:100]!r}"
    if not isinstance(body.get("kind"), str) or body["kind"] not in kinds:
        return f"'kind' must be one of {', '.join(sorted(kinds))}"
    return "" if isinstance(body.get("args"), dict) else "'args' must be a JSON object"


def _error(cause: str, hint: str = "") -> dict[str, Any]:
    return {"error": {"operation": "answer request", "subject": NAME, "cause": cause, "hint": hint}}
