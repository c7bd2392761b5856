"""The small parts: logs, metrics, systemd's socket, watcher, ticks, hooks, and what ships as fakes."""

import io
import json
import queue
import socket
import sys
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prometheus_client import CollectorRegistry
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from daemon.config import Hook, LogSettings, MetricsSettings
from daemon.exposition import serving
from daemon.fakes import FakeClock, ScriptedFolder
from daemon.logs import REDACTED, make_log
from daemon.metrics import Metrics, Vitals
from daemon.notify import Notifier
from daemon.publish import run_hooks
from daemon.schedule import Schedule, Signal
from daemon.watch import Watcher
from policies.gates import gates_for
from store.facts import Op, RowClass


def wait_until(ready: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not ready() and time.monotonic() < deadline:
        time.sleep(0.01)
    return ready()


def test_a_log_line_is_json_without_fact_text() -> None:
    """Dotted events, UTC times, and nothing that a fact says unless asked for."""
    stream = io.StringIO()
    make_log(LogSettings(), stream).info("edit.live", edit=3, subject="France", old=None)
    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"], line["edit"]) == ("edit.live", "info", 3)
    assert line["at"].endswith("Z")
    assert (line["subject"], line["old"]) == (REDACTED, None)
    stream = io.StringIO()
    make_log(LogSettings(fact_text=True), stream).info("edit.live", subject="France")
    assert json.loads(stream.getvalue())["subject"] == "France"


def test_a_traceback_is_logged_without_values() -> None:
    """Where it broke is told; what the variables and the message held isn't."""
    stream = io.StringIO()
    secret = "Atlantis"
    try:
        raise ValueError(secret)
    except ValueError:
        make_log(LogSettings(), stream).exception("file.internal_error")
    assert "ValueError" in stream.getvalue()
    assert secret not in stream.getvalue()


def test_the_level_decides_what_is_logged() -> None:
    """Below it, nothing is written."""
    stream = io.StringIO()
    log = make_log(LogSettings(level="warning"), stream)
    log.info("a")
    log.warning("b")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["b"]


def test_metrics_are_served_over_http() -> None:
    """A real scrape shows counters, gauges and what never changes."""
    metrics = Metrics(CollectorRegistry())
    metrics.file("accepted", [RowClass.NEW, RowClass.NEW])
    metrics.show(Vitals(queue_depth=3, paused_since=1.5e9, live_generation=7))
    metrics.describe("1.2.3", "tiny", "abc", gates_for(Op.UPSERT))
    with (
        serving(metrics.registry, MetricsSettings(port=0)) as port,
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer,
    ):
        text = answer.read().decode()
    for line in (
        'palimpsest_records_total{class="new"} 2.0',
        "palimpsest_queue_depth 3.0",
        "palimpsest_live_generation 7.0",
        'palimpsest_suite_threshold{bound="min",suite="efficacy"} 0.95',
        'palimpsest_build_info{version="1.2.3"} 1.0',
        "palimpsest_paused 1.0",
        "palimpsest_paused_since_timestamp_seconds 1.5e+09",
        'palimpsest_hooks_total{result="failed"} 0.0',
        "palimpsest_served_generation NaN",
    ):
        assert line in text
    assert "_created" not in text


def test_two_daemons_in_one_process_share_no_metric() -> None:
    """Each has its own registry."""
    one, two = Metrics(CollectorRegistry()), Metrics(CollectorRegistry())
    one.file("failed")
    assert two.registry.get_sample_value("palimpsest_files_total", {"result": "failed"}) == 0


def test_systemd_is_told(tmp_path: Path) -> None:
    """Datagrams to its socket; silence, and no error, without one or with a dead one."""
    address = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(address))
        notifier = Notifier({"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "30000000"})
        assert notifier.ready("watching")
        assert b"READY=1\nSTATUS=watching\nMAINPID=" in listener.recv(1024)
        assert notifier.watchdog()
        assert listener.recv(1024) == b"WATCHDOG=1"
        assert notifier.watchdog_seconds == 15
    assert not notifier.status("nobody hears this")
    assert not Notifier({}).ready("")


def test_the_watcher_wakes_and_is_started_again(tmp_path: Path) -> None:
    """A dead observer or a replaced folder is noticed; a start that fails is tried again."""
    woken: queue.SimpleQueue[None] = queue.SimpleQueue()
    folder = tmp_path / "inbox"
    watcher = Watcher(folder, lambda: woken.put(None))
    assert not watcher.supervise()
    folder.mkdir()
    assert watcher.supervise()
    assert watcher.alive()
    try:
        while not woken.empty():
            woken.get()
        (folder / "a").write_text("x")
        woken.get(timeout=10)
        folder.rename(tmp_path / "away")
        folder.mkdir()
        assert watcher.supervise()
        assert not watcher.supervise()
        assert watcher.restarts == 2
    finally:
        watcher.stop()


def test_reading_the_inbox_does_not_wake_it(tmp_path: Path) -> None:
    """Events of opening and closing unwritten files would make a loop."""
    woken: list[None] = []
    (tmp_path / "a").write_text("x")
    watcher = Watcher(tmp_path, lambda: woken.append(None))
    watcher.start()
    try:
        for _ in range(3):
            (tmp_path / "a").read_text()
            list(tmp_path.iterdir())
        time.sleep(0.3)
        assert woken == []
    finally:
        watcher.stop()


def test_an_observer_that_died_is_replaced(tmp_path: Path) -> None:
    """A new observer takes over after its thread ended."""
    made: list[BaseObserver] = []

    def make() -> BaseObserver:
        made.append(Observer())
        return made[-1]

    watcher = Watcher(tmp_path, lambda: None, make)
    watcher.start()
    made[0].stop()
    made[0].join()
    assert watcher.supervise()
    assert len(made) == 2
    watcher.stop()


def test_the_schedule_posts_and_nothing_else() -> None:
    """Periodic signals, never for a period of 0, and one for the next date of the queue."""
    posted: list[Signal] = []
    schedule = Schedule(posted.append)
    schedule.start({Signal.TICK: 0.05, Signal.RESCAN: 3600, Signal.RELOAD: 0})
    try:
        assert wait_until(lambda: posted.count(Signal.TICK) >= 2)
        assert set(posted) == {Signal.TICK}
    finally:
        schedule.stop()
    schedule = Schedule(posted.append)
    posted.clear()
    schedule.start({})
    try:
        schedule.due_at(datetime.now(UTC) + timedelta(hours=1))
        schedule.due_at(datetime.now(UTC) - timedelta(hours=1))
        assert wait_until(lambda: posted == [Signal.TICK])
        schedule.due_at(None)
    finally:
        schedule.stop()


def test_hooks_get_json_and_never_a_shell(tmp_path: Path) -> None:
    """Arguments stay arguments; the body comes on stdin; one failing hook doesn't stop the next."""
    out = tmp_path / "out"
    copy = f"import sys; open({str(out)!r}, 'w').write(sys.stdin.read() + sys.argv[1])"
    hooks = (Hook(("/no/such/program",), retries=0), Hook((sys.executable, "-c", copy, "$(id)")))
    results = run_hooks(hooks, {"generation": 3})
    assert [result.ok for result in results] == [False, True]
    assert out.read_text() == '{"generation": 3}$(id)'


def test_a_hook_is_tried_again_and_timed_out(tmp_path: Path) -> None:
    """Retries wait longer each time; a hook that hangs is ended."""
    pauses: list[float] = []
    fail = (sys.executable, "-c", "import sys; sys.exit('nobody listens')")
    (result,) = run_hooks([Hook(fail, retries=2)], {}, pauses.append)
    assert (result.attempts, pauses) == (3, [1.0, 2.0])
    assert "nobody listens" in result.error
    hang = (sys.executable, "-c", "import time; time.sleep(60)")
    (result,) = run_hooks([Hook(hang, timeout=0.3, retries=0)], {})
    assert "no answer within" in result.error


def test_the_fakes_do_what_they_say(tmp_path: Path) -> None:
    """A fake that lies would prove nothing."""
    clock = FakeClock()
    clock.advance(90)
    assert clock() == datetime(2026, 1, 31, 12, 1, 30, tzinfo=UTC)
    folder = ScriptedFolder(tmp_path, clock)
    assert folder.drop("a", "x", age_seconds=5).stat().st_mtime == clock.monotonic() - 5
    assert folder.append("a", b"y").read_bytes() == b"xy"
    assert folder.save_like_an_editor("b", "z").name == "b"
