"""A real daemon process, woken, scraped, ordered about and stopped."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from daemon import control_client, orders, submission
from daemon.users import actor
from store.errors import EXIT_LOCKED, PalimpsestError
from store.facts import EditState
from store.ledger import Ledger
from tests.daemon.running import START_SECONDS, Start, spawn

pytestmark = pytest.mark.slow

ROW = {"subject": "France", "relation": "capital", "object": "Lyon"}


def test_a_dropped_file_becomes_live_and_shows_in_a_scrape(start: Start) -> None:
    """From the folder to the served weights to the metrics, in a process of its own."""
    daemon = start()
    daemon.drop("a.jsonl", ROW)
    daemon.wait_for(lambda: daemon.state_of(1) is EditState.LIVE, "live edit")
    daemon.wait_for(lambda: "palimpsest_live_generation 1.0" in daemon.scrape(), "metric")
    scraped = daemon.scrape()
    assert 'palimpsest_edits_total{state="live"} 1.0' in scraped
    assert 'palimpsest_files_total{result="accepted"} 1.0' in scraped
    assert "palimpsest_freshness_seconds_count 1.0" in scraped
    assert "palimpsest_disk_free_bytes" in scraped
    assert "France" not in scraped
    assert daemon.stop() < 10
    assert daemon.process.returncode == 0
    events = [
        json.loads(line)["event"] for line in daemon.log.read_text().splitlines() if line.startswith("{")
    ]
    assert {"daemon.ready", "file.accepted", "edit.live", "generation.live", "daemon.stopped"} <= set(events)


def test_the_daemon_never_imports_torch(start: Start) -> None:
    """The parent stays small: only the worker child may hold the mechanism."""
    daemon = start()
    daemon.drop("a.jsonl", ROW)
    daemon.wait_for(lambda: daemon.state_of(1) is EditState.LIVE, "live edit")
    daemon.stop()
    assert daemon.log.read_text().splitlines()[-1] == "False"


def test_sigterm_during_an_edit_puts_it_back_and_the_next_start_makes_it(start: Start) -> None:
    """Stopping takes less than ten seconds and loses nothing."""
    daemon = start({"France": "hang"})
    daemon.drop("a.jsonl", ROW)
    daemon.wait_for(lambda: daemon.state_of(1) is EditState.EDITING, "edit in work")
    assert daemon.stop() < 10
    assert daemon.process.returncode == 0
    assert daemon.state_of(1) is EditState.PENDING
    again = start()
    again.wait_for(lambda: again.state_of(1) is EditState.LIVE, "live edit")


def test_a_daemon_that_hangs_while_stopping_is_gone_in_time(start: Start) -> None:
    """Whatever keeps the main thread, the process ends, and the next start recovers."""
    daemon = start({"France": "stuck"})
    daemon.drop("a.jsonl", ROW)
    daemon.wait_for(lambda: daemon.state_of(1) is EditState.EDITING, "edit in work")
    assert daemon.stop() < 10
    (daemon.config.layout.run / "daemon.json").unlink()
    again = start()
    again.wait_for(lambda: again.state_of(1) is EditState.LIVE, "live edit")


def test_sigkill_during_an_edit_is_recovered_from(start: Start) -> None:
    """No chance to tidy up is needed."""
    daemon = start({"France": "hang"})
    daemon.drop("a.jsonl", ROW)
    daemon.wait_for(lambda: daemon.state_of(1) is EditState.EDITING, "edit in work")
    daemon.stop(signal.SIGKILL)
    (daemon.config.layout.run / "daemon.json").unlink()
    again = start()
    again.wait_for(lambda: again.state_of(1) is EditState.LIVE, "live edit")


def test_a_second_daemon_on_one_state_directory_exits_75(start: Start, tmp_path: Path) -> None:
    """The lock names who holds it."""
    daemon = start()
    second = spawn(daemon.config.layout.state, {}, tmp_path / "second")
    assert second.wait(timeout=START_SECONDS) == EXIT_LOCKED
    assert str(daemon.process.pid) in (tmp_path / "second").read_text()


def test_a_rollback_interrupts_an_edit_and_is_done_by_the_daemon(start: Start) -> None:
    """An operator in a hurry doesn't wait for training; the edit goes back into the queue."""
    daemon = start({"Spain": ["hang"]})
    daemon.drop("a.jsonl", ROW)
    daemon.wait_for(lambda: daemon.state_of(1) is EditState.LIVE, "live edit")
    daemon.drop("b.jsonl", {**ROW, "subject": "Spain"})
    daemon.wait_for(lambda: daemon.state_of(2) is EditState.EDITING, "edit in work")
    began = time.monotonic()
    assert orders.give(daemon.config, "rollback", {"to": 0})["to"] == 0
    assert time.monotonic() - began < 5
    daemon.wait_for(lambda: daemon.state_of(2) is EditState.LIVE, "edit made after all")
    with pytest.raises(PalimpsestError) as caught:
        orders.give(daemon.config, "rollback", {"to": 99})
    assert isinstance(caught.value, orders.OrderFailed)


def test_pausing_keeps_edits_waiting_until_resumed(start: Start) -> None:
    """Orders reach the running daemon through the ledger."""
    daemon = start()
    orders.give(daemon.config, "pause", {})
    daemon.drop("a.jsonl", ROW)
    daemon.wait_for(lambda: daemon.state_of(1), "edit")
    time.sleep(0.5)
    assert daemon.state_of(1) is EditState.PENDING
    daemon.wait_for(lambda: "palimpsest_paused 1.0" in daemon.scrape(), "metric")
    orders.give(daemon.config, "resume", {})
    daemon.wait_for(lambda: daemon.state_of(1) is EditState.LIVE, "live edit")


def test_cancelling_the_edit_in_work_ends_its_worker(start: Start) -> None:
    """It is put back first and cancelled then, so that no state is skipped."""
    daemon = start({"France": "hang"})
    daemon.drop("a.jsonl", ROW)
    daemon.wait_for(lambda: daemon.state_of(1) is EditState.EDITING, "edit in work")
    orders.give(daemon.config, "cancel", {"edit": 1})
    assert daemon.state_of(1) is EditState.CANCELLED


def test_submit_waits_until_facts_are_settled(start: Start, tmp_path: Path) -> None:
    """Another process sees how each row ended."""
    daemon = start({"Spain": "bad"})
    path = tmp_path / "facts.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps({**ROW, "subject": "Spain"}) + "\n")
    stages: list[str] = []
    settled = submission.wait(daemon.config, submission.drop(daemon.config, path), stages.append, 30)
    assert [(row["state"], row["ok"]) for row in settled] == [("live", True), ("held", False)]


def test_edits_wait_for_capacity_over_a_restart_until_a_rollback(start: Start, tmp_path: Path) -> None:
    """A model that is nearly spoiled takes no more edits; what waits is kept, said, and goes on by itself."""
    kept = (0.93, 0.84, 0.83)
    daemon = start(retention=kept)
    daemon.drop("a.jsonl", ROW, {**ROW, "subject": "Spain"})
    daemon.wait_for(lambda: daemon.state_of(2) is EditState.LIVE, "second live edit")
    path = tmp_path / "italy.jsonl"
    path.write_text(json.dumps({**ROW, "subject": "Italy"}) + "\n")
    (row,) = submission.wait(daemon.config, submission.drop(daemon.config, path), lambda stage: None, 30)
    assert (row["state"], row["ok"]) == ("pending", False)
    assert "unrelated 0.84, at least 0.8 wanted" in row["reason"]
    daemon.wait_for(lambda: "palimpsest_capacity_edits_left 0.0" in daemon.scrape(), "metric")
    assert "palimpsest_retention_headroom_ratio 0.1" in daemon.scrape()
    daemon.stop()
    assert daemon.log.read_text().count("capacity.edits_wait") == 1
    again = start(retention=kept)
    again.wait_for(lambda: "palimpsest_capacity_edits_left 0.0" in again.scrape(), "metric after restart")
    time.sleep(0.5)
    assert again.state_of(3) is EditState.PENDING
    assert "capacity.edits_wait" not in again.log.read_text()
    assert orders.give(again.config, "rollback", {"edit": 1})["to"] == 3
    again.wait_for(lambda: again.state_of(3) is EditState.LIVE, "live edit")


def test_orders_are_carried_out_without_a_daemon_too(start: Start) -> None:
    """With the lock free the command line does the daemon's work, recovery included."""
    daemon = start()
    daemon.drop("a.jsonl", ROW)
    daemon.wait_for(lambda: daemon.state_of(1) is EditState.LIVE, "live edit")
    daemon.stop()
    assert orders.give(daemon.config, "rollback", {"to": 0})["to"] == 0
    assert os.readlink(daemon.config.layout.model / "current").endswith("base")
    assert daemon.state_of(1) is EditState.ROLLED_BACK


def test_hup_rescans_and_int_stops(start: Start) -> None:
    """The usual signals do the usual things."""
    daemon = start()
    daemon.process.send_signal(signal.SIGHUP)
    daemon.drop("a.jsonl", ROW)
    daemon.wait_for(lambda: daemon.state_of(1), "edit")
    assert daemon.stop(signal.SIGINT) < 10
    assert daemon.process.returncode == 0


def test_the_control_socket_of_a_running_daemon(start: Start) -> None:
    """Orders and status go over it, the audit names the kernel's user; a killed daemon's socket misleads
    nobody."""
    daemon = start()
    socket = daemon.config.layout.run / "control.sock"
    assert socket.stat().st_mode & 0o777 == 0o660
    assert control_client.get(daemon.config, "/healthz") == (200, {"ok": True})
    assert control_client.post(daemon.config, "pause", {}) == (200, {"order": 1, "result": {"paused": True}})
    answer = control_client.get(daemon.config, "/status")
    assert answer is not None
    assert (answer[1]["pid"], answer[1]["paused"]) == (daemon.process.pid, True)
    daemon.stop(signal.SIGKILL)
    assert socket.exists()
    assert orders.give(daemon.config, "resume", {}) == {"paused": False}
    with Ledger.open_readonly(daemon.config.layout.ledger) as ledger:
        assert [ledger.intent(number)["actor"] for number in (1, 2)] == [actor()] * 2
        assert ledger.verify_audit() is None
    (daemon.config.layout.run / "daemon.json").unlink()
    start().stop()
    assert not socket.exists()


def test_without_the_control_socket_orders_go_through_the_ledger(start: Start, tmp_path: Path) -> None:
    """Switched off, nothing listens; the rules of sources hold, and an approval reaches the daemon anyway."""
    (tmp_path / "state").mkdir()
    rules = "[control]\nenabled = false\n[sources.hr]\nrequire_approval = true\n"
    (tmp_path / "state" / "config.toml").write_text(rules)
    daemon = start()
    assert not (daemon.config.layout.run / "control.sock").exists()
    path = tmp_path / "facts.jsonl"
    path.write_text(json.dumps({**ROW, "source": "hr"}) + "\n")
    (row,) = submission.wait(daemon.config, submission.drop(daemon.config, path), lambda stage: None, 30)
    assert (row["state"], row["ok"]) == ("pending", False)
    assert row["reason"].startswith("approval (0 of 1): [sources.hr] require_approval")
    assert orders.give(daemon.config, "approve", {"edits": [1]}) == {"approved": [1], "still_wait": {}}
    daemon.wait_for(lambda: daemon.state_of(1) is EditState.LIVE, "live edit")
