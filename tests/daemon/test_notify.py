"""What systemd is told, heard on a real datagram socket: by hand, by one turn, and by a daemon process."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from daemon.config import Hook
from daemon.fakes import FakeClock
from daemon.house import House
from daemon.inbox import Inbox
from daemon.notify import Notifier
from daemon.publish import longest
from daemon.pulse import Part, Pulse, limits_of
from daemon.schedule import Signal
from daemon.service import Service
from daemon.watch import Watcher
from store.facts import EditState
from store.ledger import Ledger
from tests.daemon.fake_daemon import BASE, make_config
from tests.daemon.manager import PATIENCE, Message, Systemd, said

ROOT = Path(__file__).resolve().parents[2]
ROW = {"subject": "France", "relation": "capital", "object": "Lyon"}


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    made = Systemd(str(tmp_path / "notify"))
    yield made
    made.close()


def test_messages_are_what_sd_notify_describes(systemd: Systemd) -> None:
    """Fields, one a line; times in microseconds of the monotonic clock; a status never breaks the frame."""
    notifier = Notifier(systemd.environment, lambda: 12.5)
    assert notifier.watchdog_seconds == 2
    notifier.ready("one\nWATCHDOG=trigger")
    notifier.reloading("again")
    notifier.extend(90, "recovering")
    notifier.lengthen_watchdog(93)
    notifier.stopping()
    assert systemd.listen() == [
        {"READY": "1", "STATUS": "one WATCHDOG=trigger", "MAINPID": str(os.getpid())},
        {"RELOADING": "1", "MONOTONIC_USEC": "12500000", "STATUS": "again"},
        {"EXTEND_TIMEOUT_USEC": "90000000", "STATUS": "recovering"},
        {"WATCHDOG_USEC": "97000000"},
        {"STOPPING": "1", "STATUS": "stopping"},
    ]


def test_an_abstract_socket_is_heard_too() -> None:
    """systemd in a container names its socket with a leading @."""
    systemd = Systemd(f"@palimpsest-test-{os.getpid()}")
    try:
        assert Notifier(systemd.environment).status("hello")
        assert systemd.listen() == [{"STATUS": "hello"}]
    finally:
        systemd.close()


def test_a_watchdog_that_is_meant_for_another_process_is_not_ours(systemd: Systemd) -> None:
    """WATCHDOG_PID decides; nothing is made longer that doesn't exist."""
    notifier = Notifier({**systemd.environment, "WATCHDOG_PID": "1"})
    assert notifier.watchdog_seconds == 0
    assert not notifier.lengthen_watchdog(93)


def test_hooks_lengthen_the_watchdog_by_all_they_may_take() -> None:
    """Every try of every hook, and the pauses between them: the loop does nothing else meanwhile."""
    assert longest([]) == 0
    assert longest([Hook(("a",), timeout=30, retries=2), Hook(("b",), timeout=5, retries=0)]) == 98


@pytest.mark.parametrize("part", Part)
def test_every_part_can_starve_the_watchdog(
    part: Part, systemd: Systemd, house: House, clock: FakeClock, tmp_path: Path
) -> None:
    """One silent part is enough: no WATCHDOG, no touch, its name in the status; life brings both back."""
    limits, alive = limits_of(house.config), tmp_path / "alive"
    pulse = Pulse(limits, Notifier(systemd.environment), alive, house.log, clock.monotonic)
    pulse.feed()
    assert systemd.listen() == []  # it isn't ready yet
    pulse.begin()
    assert systemd.listen() == [{"WATCHDOG": "1"}]
    clock.advance(limits[part] + 1)
    for other in set(Part) - {part}:
        pulse.beat(other)
    alive.unlink()
    pulse.feed()
    pulse.say("nothing is due")
    assert systemd.listen() == [{"STATUS": f"no life from {part}; nothing is due"}]
    assert not alive.exists()
    pulse.beat(part)
    pulse.feed()
    pulse.say("nothing is due")
    assert systemd.listen() == [{"WATCHDOG": "1"}, {"STATUS": "nothing is due"}]
    assert alive.exists()
    pulse.end()
    assert not alive.exists()


def test_the_worker_may_be_silent_as_long_as_its_heartbeat_may(house: House) -> None:
    """Limits follow the configuration where it lets a part rest for long."""
    config = house.config
    slow = replace(
        config,
        editing=replace(config.editing, heartbeat_seconds=900),
        daemon=replace(config.daemon, tick_seconds=300),
    )
    assert limits_of(slow) == {Part.OBSERVER: 60, Part.TICK: 660, Part.LEDGER: 60, Part.WORKER: 900}


def test_a_turn_without_ticks_ends_the_feeding(
    systemd: Systemd, house: House, inbox: Inbox, clock: FakeClock
) -> None:
    """The loop turns, the ledger answers, but the scheduler is dead: systemd must know."""
    notifier = Notifier(systemd.environment)
    pulse = Pulse(limits_of(house.config), notifier, house.layout.alive, house.log, clock.monotonic)
    watcher = Watcher(house.layout.inbox, lambda: None)
    watcher.start()
    service = Service(house, inbox, notifier, pulse, watcher)
    pulse.begin()
    try:
        for tick in (True, False, True):
            clock.advance(100)
            if tick:
                service.post(Signal.TICK)
            service.turn()
            heard = systemd.listen()
            assert bool(said(heard, "WATCHDOG")) is tick, heard
            assert ("no life from tick" in said(heard, "STATUS")[-1]) is not tick
    finally:
        watcher.stop()


@dataclass
class Daemon:
    """A daemon process that has a systemd to talk to."""

    state: Path
    process: "subprocess.Popen[bytes]"
    log: Path

    def is_editing(self) -> bool:
        ledger = Ledger.open_readonly(make_config(self.state).layout.ledger)
        try:
            return bool(ledger.edits([EditState.EDITING]))
        finally:
            ledger.close()

    def drop(self, name: str, *rows: dict[str, str]) -> None:
        inbox = make_config(self.state).layout.inbox
        (inbox / f".{name}").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (inbox / f".{name}").rename(inbox / name)


Start = Callable[..., Daemon]


@pytest.fixture
def start(tmp_path: Path, systemd: Systemd) -> Iterator[Start]:
    begun: list[subprocess.Popen[bytes]] = []

    def run(script: dict[str, str] | None = None) -> Daemon:
        command = [sys.executable, "-m", "tests.daemon.fake_daemon", str(tmp_path / "state")]
        log = tmp_path / "log"
        with log.open("ab") as file:
            process = subprocess.Popen(
                [*command, json.dumps(script or {})],
                cwd=ROOT,
                stdout=file,
                stderr=file,
                env={**os.environ, **systemd.environment},
            )
        begun.append(process)
        return Daemon(tmp_path / "state", process, log)

    yield run
    for process in begun:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_the_messages_of_a_whole_life(start: Start, systemd: Systemd, tmp_path: Path) -> None:
    """Recovery, the first files, READY, feeding, two reloads, STOPPING; and no fact text in any."""
    layout = make_config(tmp_path / "state").layout
    layout.create()
    (layout.inbox / "early.jsonl").write_text(json.dumps(ROW) + "\n")
    (layout.inbox / "early.jsonl.ready").touch()
    daemon = start()
    ready = systemd.wait_for(lambda message: "READY" in message, "READY")
    assert ready["MAINPID"] == str(daemon.process.pid)
    assert "file.accepted" in daemon.log.read_text().split("daemon.ready")[0]
    before = systemd.heard[: systemd.heard.index(ready)]
    assert said(before, "STATUS") == ["recovering", "reading the inbox"]
    assert not said(before, "WATCHDOG")
    systemd.wait_for(lambda message: "WATCHDOG" in message, "WATCHDOG")
    assert (layout.alive).exists()

    began = time.monotonic()
    (layout.relations / "motto.toml").write_text("this is not TOML")
    daemon.process.send_signal(signal.SIGHUP)
    reloading = systemd.wait_for(lambda message: "RELOADING" in message, "RELOADING")
    assert began <= int(reloading["MONOTONIC_USEC"]) / 1e6 <= time.monotonic()
    _after(systemd, reloading, "stay as they were")
    (layout.relations / "motto.toml").unlink()
    daemon.process.send_signal(signal.SIGHUP)
    _after(systemd, systemd.wait_for(lambda message: "RELOADING" in message, "RELOADING"), "reloaded:")

    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(PATIENCE) == 0
    systemd.listen()
    assert "STOPPING" in systemd.heard[-1]
    assert not (layout.alive).exists()
    text = json.dumps(systemd.heard)
    assert not [word for word in (*ROW.values(), *BASE.values()) if word in text]


def _after(systemd: Systemd, reloading: Message, wanted: str) -> None:
    """READY ends what RELOADING began, and says how."""

    def ended(message: Message) -> bool:
        return "READY" in message

    since = systemd.heard[systemd.heard.index(reloading) :]
    ready = next(filter(ended, since), None) or systemd.wait_for(ended, "READY after RELOADING")
    assert wanted in ready["STATUS"]


@pytest.mark.slow
def test_a_stuck_main_loop_feeds_nobody(start: Start, systemd: Systemd) -> None:
    """While it hangs in an edit that heeds nothing, no thread may speak for it."""
    daemon = start({"France": "stuck"})
    systemd.wait_for(lambda message: "WATCHDOG" in message, "WATCHDOG")
    daemon.drop("a.jsonl", ROW)
    deadline = time.monotonic() + PATIENCE
    while not daemon.is_editing():
        assert time.monotonic() < deadline, daemon.log.read_text()
        time.sleep(0.02)
    systemd.listen()
    assert not said(systemd.listen(2.0), "WATCHDOG")
    assert daemon.is_editing()
    assert daemon.process.poll() is None
