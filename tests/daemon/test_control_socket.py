"""The control socket: who may connect, who the audit says it was, and that no client stops the daemon."""

import contextlib
import json
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from daemon import cli, control, control_client, control_socket, cycle, orders
from daemon.config import Config, DaemonSettings
from daemon.control_socket import MAX_BODY, NAME, ControlSocket, Views, views_of
from daemon.house import House
from daemon.users import actor
from store.errors import UnreachableError
from tests.daemon.conftest import Take, capital

DEADLINE = 30.0
NOBODY = Views(dict, list, lambda _number: None, control.KINDS)


@pytest.fixture
def listening(house: House) -> Iterator[ControlSocket]:
    """The socket of a daemon whose main thread is the test's."""
    made = ControlSocket(house.layout.run, views_of(house.config), lambda: None)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def meanwhile() -> Iterator[Callable[..., "Future[Any]"]]:
    """Runs a client in a thread of its own."""
    with ThreadPoolExecutor() as pool:
        yield pool.submit


def until(ready: Callable[[], object], turn: Callable[[], object] = lambda: None) -> None:
    deadline = time.monotonic() + DEADLINE
    while not ready():
        assert time.monotonic() < deadline
        turn()
        time.sleep(0.01)


def served(house: House, listening: ControlSocket, client: "Future[Any]") -> Any:
    """Turn the main loop until the client has its answer."""

    def turn() -> None:
        listening.note_orders(house.ledger, house.now())
        control.execute_open(house)

    until(client.done, turn)
    return client.result()


def connect(folder: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.settimeout(DEADLINE)
    descriptor = os.open(folder, os.O_PATH)
    made.connect(f"/proc/self/fd/{descriptor}/{NAME}")
    os.close(descriptor)
    return made


def raw(folder: Path, request: bytes) -> tuple[int, str]:
    """Status and body of whatever bytes are sent; 0 when the connection is closed without an answer."""
    with connect(folder) as client:
        client.sendall(request)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else 0), body.decode()


def posted(body: bytes, length: object = None) -> bytes:
    return b"POST /orders HTTP/1.0\r\nContent-Length: %s\r\n\r\n%s" % (
        str(len(body) if length is None else length).encode(),
        body,
    )


def test_only_owner_and_group_may_connect(house: House, listening: ControlSocket) -> None:
    """Mode 0660 whatever the umask; gone when it is stopped, and a stale one is in nobody's way."""
    found = (house.layout.run / NAME).stat()
    assert stat.S_ISSOCK(found.st_mode)
    assert found.st_mode & 0o777 == 0o660
    listening.stop()
    assert not (house.layout.run / NAME).exists()
    (house.layout.run / NAME).touch()
    listening.start()
    assert control_client.get(house.config, "/healthz") == (200, {"ok": True})


def test_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    """State directories may lie deeper than the 107 bytes that a socket's address has."""
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    config = replace(Config(), daemon=DaemonSettings(state_dir=deep))
    config.layout.create()
    made = ControlSocket(config.layout.run, NOBODY, lambda: None)
    made.start()
    try:
        assert control_client.get(config, "/healthz") == (200, {"ok": True})
    finally:
        made.stop()


def test_an_order_is_carried_out_by_the_main_thread(
    house: House, listening: ControlSocket, meanwhile: Callable[..., "Future[Any]"]
) -> None:
    """The client's thread writes nothing; the audit has the user that the kernel names."""
    client = meanwhile(orders.give, house.config, "pause", {})
    assert served(house, listening, client) == {"paused": True}
    assert control.is_paused(house)
    (given,) = [e for e in house.ledger.audit_events() if e["event"] == "order.given"]
    assert given["detail"] == {"kind": "pause", "args": {}, "actor": actor(os.geteuid())}
    assert control_client.get(house.config, "/orders/1") == (200, {"order": 1, "result": {"paused": True}})
    assert raw(house.layout.run, b"GET /orders/99 HTTP/1.0\r\n\r\n")[0] == 404


def test_an_order_that_fails_says_why(
    house: House, listening: ControlSocket, meanwhile: Callable[..., "Future[Any]"]
) -> None:
    """As it does without a daemon: an error with its exit code; senseless arguments are a bad request."""
    client = meanwhile(orders.give, house.config, "rollback", {"to": 99})
    with pytest.raises(orders.OrderFailed, match="99"):
        served(house, listening, client)
    client = meanwhile(control_client.post, house.config, "cancel", {"edit": "x"})
    status, value = served(house, listening, client)
    assert (status, value["result"]["exit_code"]) == (400, 64)


def test_half_a_result_is_none(
    house: House, listening: ControlSocket, meanwhile: Callable[..., "Future[Any]"], take: Take
) -> None:
    """What was done of an order that isn't finished stays in the ledger; the client waits for the end."""
    take(capital("France", "Lyon"))
    cycle.step(house)
    order = house.ledger.add_intent("rollback", {"to": 0}, now=house.now(), actor="ada")
    house.ledger.roll_back(0, now=house.now(), reason="half", trigger="manual", order=order)
    assert house.ledger.intent(order)["result"] == {"from": 1, "to": 0, "reason": "half"}
    answer = control_client.get(house.config, f"/orders/{order}")
    assert answer == (202, {"order": order, "result": None})
    client = meanwhile(orders._over_socket, house.config, "rollback", answer, DEADLINE)
    assert served(house, listening, client)["removed"] == [1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_the_actor_is_who_the_kernel_says(
    house: House, listening: ControlSocket, meanwhile: Callable[..., "Future[Any]"]
) -> None:
    """Another user of the group is named by id, whatever the request's environment would claim."""
    descriptor = os.open(house.layout.run, os.O_PATH)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setuid(12345)  # keeps the group
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            made.connect(f"/proc/self/fd/{descriptor}/{NAME}")
            made.sendall(posted(b'{"kind": "pause", "args": {"actor": "0:root"}}'))
            os.write(write, made.recv(65536)[9:12])
        finally:
            os._exit(0)
    os.close(write)
    client = meanwhile(lambda: os.read(read, 10))
    assert served(house, listening, client) == b"200"
    os.waitpid(child, 0)
    os.close(read)
    os.close(descriptor)
    assert [row["actor"] for row in [house.ledger.intent(1)]] == ["12345"]


@pytest.mark.parametrize(
    ("request_", "status", "word"),
    [
        (posted(b"{"), 400, "isn't JSON"),
        (posted(b"[" * 60_000), 400, "isn't JSON"),
        (posted(b"[]"), 400, "isn't a JSON object"),
        (posted(b'{"args": {}}'), 400, "'kind' must be one of approve, cancel, pause"),
        (posted(b'{"kind": "fly", "args": {}}'), 400, "'kind' must be one of"),
        (posted(b'{"kind": ["pause"], "args": {}}'), 400, "'kind' must be one of"),
        (posted(b'{"kind": "pause", "args": 1}'), 400, "'args' must be a JSON object"),
        (posted(b'{"kind": "pause", "args": {}, "actor": "0:root"}'), 400, "unknown key 'actor'"),
        (posted(b"{}", MAX_BODY + 1), 413, "larger than 65536 bytes"),
        (posted(b"{}", "9" * 5000), 413, "larger"),
        (posted(b"{}", -1), 411, "no Content-Length"),
        (posted(b"{}", "\xb2"), 411, "no Content-Length"),
        (b"POST /orders HTTP/1.0\r\n\r\n", 411, "no Content-Length"),
        (b"POST /status HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}", 404, "orders go to /orders"),
        (b"GET /../../etc/passwd HTTP/1.0\r\n\r\n", 404, "nothing is at"),
        (b"GET /orders/x HTTP/1.0\r\n\r\n", 404, "nothing is at"),
        (b"GET /orders/" + b"9" * 30 + b" HTTP/1.0\r\n\r\n", 404, "nothing is at"),
        (b"DELETE /orders/1 HTTP/1.0\r\n\r\n", 501, "Unsupported method"),
        (b"nonsense\r\n\r\n", 400, ""),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.0\r\n\r\n", 414, ""),
        (b"GET / HTTP/1.0\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431, ""),
    ],
)
def test_a_bad_request_is_answered_and_changes_nothing(
    house: House, listening: ControlSocket, request_: bytes, status: int, word: str
) -> None:
    """With a status and a sentence; nothing reaches the ledger, and the next client is served."""
    event = house.ledger.newest_event()
    found, body = raw(house.layout.run, request_)
    assert (found, word in body) == (status, True)
    assert json.loads(body)["error"]["operation"] == "answer request"
    listening.note_orders(house.ledger, house.now())
    assert house.ledger.newest_event() == event
    assert control_client.get(house.config, "/healthz") == (200, {"ok": True})


def test_slow_clients_are_cut_off_and_delay_nobody(
    house: House, listening: ControlSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every place taken by clients that dribble, the main thread works on; soon there is room again."""
    monkeypatch.setattr(control_socket, "READ_SECONDS", 0.5)
    slow = [connect(house.layout.run) for _ in range(control_socket.MAX_CLIENTS + 5)]
    for client in slow:
        with contextlib.suppress(OSError):  # a slow machine cuts off the first before the last begin
            client.send(b"POST /orders HTTP/1.0\r\nX: ", socket.MSG_NOSIGNAL)
    began = time.monotonic()
    listening.note_orders(house.ledger, house.now())
    assert time.monotonic() - began < 5

    def answers() -> bool:
        for client in slow:
            with contextlib.suppress(OSError):
                client.send(b"a", socket.MSG_NOSIGNAL)  # a byte now and then keeps no place
        try:
            return control_client.get(house.config, "/healthz") == (200, {"ok": True})
        except UnreachableError:
            return False

    until(answers)
    for client in slow:
        client.close()


def test_a_main_thread_that_is_busy_says_so(
    house: House, listening: ControlSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client gets 503, and what it gave up on is not carried out later; health tells the same."""
    monkeypatch.setattr(control_socket, "ACCEPT_SECONDS", 0.1)
    with pytest.raises(orders.OrderFailed, match="the daemon is busy") as caught:
        orders.give(house.config, "pause", {})
    assert caught.value.status == 69
    listening.note_orders(house.ledger, house.now())
    assert house.ledger.open_intents() == []
    monkeypatch.setattr(control_socket, "STALE_SECONDS", 0.0)
    answer = control_client.get(house.config, "/healthz")
    assert answer is not None
    assert answer[0] == 503
    monkeypatch.undo()
    listening.beat()
    assert control_client.get(house.config, "/healthz") == (200, {"ok": True})


def test_status_is_the_same_over_the_socket(
    house: House, listening: ControlSocket, capsys: pytest.CaptureFixture[str]
) -> None:
    """A user of the group needs no right to read the ledger; where nothing listens it is read here."""
    state = str(house.layout.state)
    answer = control_client.get(house.config, "/status")
    assert answer is not None
    assert answer[0] == 200
    assert cli.main(["status", "--state", state, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == answer[1]
    assert cli.main(["approvals", "--state", state, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    listening.stop()
    assert control_client.get(house.config, "/status") is None
    assert cli.main(["status", "--state", state, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["live_generation"] == 0


def test_without_a_daemon_orders_are_carried_out_here(house: House) -> None:
    """Also beside the socket of one that was killed; the actor is this process's user."""
    left = socket.socket(socket.AF_UNIX)
    descriptor = os.open(house.layout.run, os.O_PATH)
    left.bind(f"/proc/self/fd/{descriptor}/{NAME}")
    left.close()
    os.close(descriptor)
    assert control_client.post(house.config, "pause", {}) is None
    assert orders.give(house.config, "pause", {}) == {"paused": True}
    assert house.ledger.intent(1)["actor"] == actor(os.geteuid())
