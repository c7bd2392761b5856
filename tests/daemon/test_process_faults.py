"""Real daemon processes whose surroundings fail: disk, inbox, watcher, clock, and the end in each stage."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from daemon import orders, status
from store.facts import EditState
from store.ledger import Ledger
from tests.daemon.checks import check_inputs, check_served, check_state
from tests.daemon.fake_daemon import make_config
from tests.daemon.running import Daemon, Start, ending, spawn

pytestmark = pytest.mark.slow


@pytest.fixture
def start(memory: Path) -> Iterator[Start]:
    """Starts faulty daemons on one state directory and ends those that are left."""
    with ending() as begun:

        def run(script: dict[str, Any] | None = None, *, wrap: Sequence[str] = ()) -> Daemon:
            """`wrap` is a command in front of the daemon's, which may give it a root of its own."""
            state, log = memory / "state", memory / f"log{len(begun)}"
            process = spawn(state, script or {}, log, module="tests.daemon.faulty_daemon", wrap=wrap)
            at = Path(f"/proc/{process.pid}/root") / state.relative_to("/") if wrap else state
            begun.append(Daemon(make_config(at), process, log))
            return begun[-1].ready()

        yield run


def row(subject: str, object: str) -> dict[str, Any]:
    return {"subject": subject, "relation": "capital", "object": object}


def told(daemon: Daemon, line: str) -> Callable[[], bool]:
    return lambda: line in daemon.scrape().splitlines()


def test_8000_files_and_a_dead_observer(start: Start) -> None:
    """The watcher is started again and counted, and every file of the burst is taken in once."""
    daemon = start()
    orders.give(daemon.config, "pause", {})
    inbox = daemon.config.layout.inbox
    (daemon.config.layout.run / "kill-observer").touch()
    texts = [json.dumps(row(f"Subject {n}", "X")) + "\n" for n in range(8000)]
    began = time.monotonic()
    for n, text in enumerate(texts):
        (inbox / f"{n:04}.jsonl").write_text(text)
    dropped = time.monotonic() - began
    deadline = time.monotonic() + 240
    while any(inbox.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.2)
        assert daemon.process.poll() is None, daemon.log.read_text()[-3000:]
    print(f"dropped in {dropped:.1f} s, ingested in {time.monotonic() - began:.1f} s")
    daemon.wait_for(told(daemon, 'palimpsest_files_total{result="accepted"} 8000.0'), "8000 files")
    assert told(daemon, "palimpsest_watcher_restarts_total 1.0")()
    with Ledger.open_readonly(daemon.config.layout.ledger) as ledger:
        assert len(ledger.edits([EditState.PENDING])) == 8000
    daemon.stop()
    check_state(daemon.config, map(str.encode, texts))


def test_an_inbox_that_is_removed_and_made_again(start: Start) -> None:
    """The daemon goes on without it, and takes what is dropped into the new one, by event as before."""
    daemon = start()
    inbox = daemon.config.layout.inbox
    daemon.drop("a.jsonl", row("France", "Lyon"))
    daemon.wait_for(lambda: daemon.state_of(1) is EditState.LIVE, "live edit")
    shutil.rmtree(inbox)
    orders.give(daemon.config, "rollback", {"to": 0})  # several turns without an inbox
    daemon.wait_for(lambda: daemon.state_of(1) is EditState.ROLLED_BACK, "rollback")
    time.sleep(0.5)
    assert told(daemon, "palimpsest_watcher_restarts_total 0.0")()  # what is missing can't be watched
    inbox.mkdir()
    daemon.wait_for(told(daemon, "palimpsest_watcher_restarts_total 1.0"), "new watcher")
    daemon.drop("b.jsonl", row("Japan", "Osaka"))
    daemon.wait_for(lambda: daemon.state_of(2) is EditState.LIVE, "edit from the new inbox")
    assert daemon.stop() < 10
    assert daemon.process.returncode == 0
    check_state(daemon.config)


def test_a_clock_set_back_stops_no_rescan(start: Start, memory: Path) -> None:
    """The scheduler's ticks stand still for the hour; the inbox is scanned all the same."""
    (memory / "state").mkdir()
    (memory / "state" / "deaf").touch()
    daemon = start()
    daemon.drop("a.jsonl", row("France", "Lyon"))
    daemon.wait_for(lambda: daemon.state_of(1) is EditState.LIVE, "live edit")
    order = daemon.config.layout.run / "clock-back"
    order.touch()
    daemon.wait_for(lambda: not order.exists(), "another time")
    daemon.drop("b.jsonl", row("Japan", "Osaka"))
    daemon.wait_for(lambda: daemon.state_of(2) is EditState.LIVE, "live edit")
    daemon.stop()
    check_state(daemon.config)


# As the real worker tells them by its heartbeat, in order.
STAGES = (
    "starting", "ask before", "localise", "unlearn step 1: gap 2.00 nats, damage 0.10 nats",
    "learn step 3: gap 0.50 nats, damage 0.10 nats", "fold", "measure 96/300", "measure soft forgetting",
)  # fmt: skip


def in_stage(daemon: Daemon, stage: str) -> bool:
    return (status.read_work(daemon.config) or {}).get("stage") == stage


def test_sigterm_in_each_stage_of_an_edit_puts_it_back(start: Start) -> None:
    """Wherever the worker is: gone within seconds, exit status 0, no attempt used up, and the last start
    makes the edit once."""
    for stage in STAGES:
        daemon = start({"France": f"hang:{stage}"})
        if stage == STAGES[0]:
            daemon.drop("a.jsonl", row("France", "Lyon"))
        daemon.wait_for(partial(in_stage, daemon, stage), stage)
        assert daemon.stop() < 10
        assert daemon.process.returncode == 0
        with Ledger.open_readonly(daemon.config.layout.ledger) as ledger:
            edit = ledger.edit(1)
        assert (edit.state, edit.attempt) == (EditState.PENDING, 0), stage
        check_state(daemon.config)
    last = start()
    last.wait_for(lambda: last.state_of(1) is EditState.LIVE, "live edit")
    last.stop()
    with Ledger.open_readonly(last.config.layout.ledger) as ledger:
        assert (ledger.edit(1).attempt, [g.number for g in ledger.generations()]) == (1, [0, 1])


def small_disk(folder: Path) -> list[str]:
    """A command that runs another one with a small disk of its own on `folder`; skips where that isn't
    allowed (it needs user namespaces, or root)."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=6m,mode=0750 none {folder}"
    try:
        subprocess.run([*command, mount], check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no small disk can be mounted here: {error}")
    return [*command, f'{mount} && exec "$@"', "sh"]


def fill(ballast: Path) -> None:
    """Take all the room there is, to the last byte."""
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            with suppress(OSError):
                while file.write(bytes(size)):
                    pass


def test_a_real_disk_that_is_full(start: Start, memory: Path) -> None:
    """Nothing can be written, down to the ledger: the daemon serves on, says so in its metrics, and goes on
    by itself when there is room."""
    (memory / "state").mkdir()
    daemon = start(wrap=small_disk(memory / "state"))
    layout = daemon.config.layout
    daemon.drop("a.jsonl", row("France", "Lyon"))
    daemon.wait_for(told(daemon, "palimpsest_live_generation 1.0"), "live edit")
    texts = [json.dumps(row("Japan", "Osaka")) + "\n", json.dumps(row("South Korea", "Busan")) + "\n"]
    for n, text in enumerate(texts):
        (layout.inbox / f".{n}.jsonl").write_text(text)
    fill(layout.state / "ballast")
    for n in range(2):
        (layout.inbox / f".{n}.jsonl").rename(layout.inbox / f"{n}.jsonl")
    daemon.wait_for(told(daemon, "palimpsest_disk_full 1.0"), "metric")
    check_served(daemon.config)
    check_inputs(daemon.config, map(str.encode, texts))
    assert told(daemon, "palimpsest_live_generation 1.0")()
    (layout.state / "ballast").unlink()
    daemon.wait_for(told(daemon, "palimpsest_live_generation 3.0"), "edits that had waited")
    daemon.wait_for(told(daemon, "palimpsest_disk_full 0.0"), "metric")
    copy = memory / "copy"  # SQLite won't open files through another process's root
    shutil.copytree(layout.state, copy, symlinks=True, ignore=shutil.ignore_patterns("*.sock"))
    with Ledger.open_readonly(copy / "ledger.sqlite") as ledger:
        assert [(edit.state, edit.attempt) for edit in ledger.edits()] == [(EditState.LIVE, 1)] * 3
    check_state(make_config(copy), map(str.encode, texts))
    assert daemon.stop() < 10
    assert daemon.process.returncode == 0


@pytest.mark.parametrize("eio", ["fsync 12", "commit 9"])
def test_a_process_on_a_failing_disk_ends_with_a_clear_error(start: Start, memory: Path, eio: str) -> None:
    """Exit status 1 and one line that says what failed and what to do; the next start is as if nothing
    had been. Every single call is tried in `test_troubles`."""
    first = start()
    assert first.stop() < 10
    order = memory / "state" / "eio"
    order.write_text(eio)
    failing = start()
    failing.drop("a.jsonl", row("France", "Lyon"))
    assert failing.process.wait(timeout=30) == 1
    said = failing.log.read_text().splitlines()[-1]
    assert "Input/output error" in said or "disk I/O error" in said
    assert "check the disk" in said
    assert '"event": "daemon.crashed"' in failing.log.read_text()
    check_served(failing.config)
    order.unlink()
    again = start()
    again.wait_for(lambda: again.state_of(1) is EditState.LIVE, "live edit")
    again.stop()
    check_state(again.config, [(json.dumps(row("France", "Lyon")) + "\n").encode()])
