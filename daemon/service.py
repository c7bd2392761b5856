"""The main loop: the one thread that owns the ledger, woken by the watcher, ticks and signals.

Knows when each part has its turn and how to stop within ten seconds. Doesn't know how a part does
its work. Other threads and signal handlers only put names into one queue.
"""

import json
import queue
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from types import FrameType
from typing import Any

from daemon import capacity, control, cycle
from daemon.house import House
from daemon.inbox import Inbox
from daemon.ingest import ingest_ready, ingest_resumed
from daemon.notify import Notifier
from daemon.recovery import recover
from daemon.rollback import REPROBE_WANTED, reprobe_live
from daemon.runner import WorkerError, WorkerStopped
from daemon.schedule import Schedule, Signal
from daemon.vitals import describe, take_vitals
from daemon.watch import Watcher
from policies.cadence import Job, due

_HEAVY = frozenset({Signal.REPROBE, Signal.BACKUP})


class Service:
    """One daemon on one open house. `run` returns when a signal asked for it."""

    def __init__(self, house: House, inbox: Inbox | None = None, notifier: Notifier | None = None) -> None:
        self._house = house
        self._inbox = inbox or Inbox(house.layout, house.config.inbox)
        self._notifier = notifier or Notifier()
        # A SimpleQueue may be put to from a signal handler; a threading.Event can deadlock there.
        self._signals: queue.SimpleQueue[Signal] = queue.SimpleQueue()
        self._pending: set[Signal] = set()
        self._watcher = Watcher(house.layout.inbox, lambda: self._signals.put(Signal.RESCAN))
        self._schedule = Schedule(self._signals.put)
        self._stopping = ""
        self._editing: int | None = None
        self._last_look = 0.0
        self.metrics_port = 0

    def stop(self, reason: str) -> None:
        """End the loop soon; safe from signal handlers and other threads."""
        self._stopping = self._stopping or reason
        self._signals.put(Signal.TICK)

    def run(self) -> int:
        """Recover, then work until stopped; returns the exit status."""
        house = self._house
        with ExitStack() as stack:
            stack.enter_context(self._handle_signals())
            self._start(stack)
            house.log.info("daemon.ready", state=str(house.layout.state), port=self.metrics_port)
            self._notifier.ready("watching the inbox")
            try:
                while not self._stopping:
                    if not self.turn():
                        self._wait()
            except Exception:
                house.log.exception("daemon.crashed")  # the next start recovers
                raise
            self._notifier.stopping()
        house.log.info("daemon.stopped", cause=self._stopping)
        return 0

    def _start(self, stack: ExitStack) -> None:
        house = self._house
        recover(house)
        describe(house)
        capacity.note(house)
        house.metrics.show(take_vitals(house))  # before the first scrape: 0 would be an alarm
        if house.config.metrics.enabled:
            server, self.metrics_port = house.metrics.serve(
                house.config.metrics.host, house.config.metrics.port
            )
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
        self._write_run_file("daemon.json", {"metrics_port": self.metrics_port})
        stack.callback(self._remove_run_files)
        with suppress(OSError):  # the supervisor tries again
            self._watcher.start()
        stack.callback(self._watcher.stop)
        self._schedule.start(
            {
                Signal.TICK: house.config.daemon.tick_seconds,
                Signal.RESCAN: house.config.inbox.rescan_seconds,
                Signal.REPROBE: house.config.daemon.reprobe_hours * 3600,
                Signal.BACKUP: house.config.backup.every_hours * 3600,
            }
        )
        stack.callback(self._schedule.stop)
        ingest_resumed(house, self._inbox, self._between_files)
        self._pending = {Signal.RESCAN, *self._overdue()}

    def turn(self) -> bool:
        """Orders, then files, then periodic jobs, then one edit; True when there may be more to do."""
        house = self._house
        self._drain()
        control.execute_open(house, self._idle)
        self._ingest()
        try:
            self._periodic()
        except WorkerStopped:
            return True
        except WorkerError as error:
            house.log.error("periodic.failed", cause=str(error))
        said = "editing is paused"
        if not self._stopping and not control.is_paused(house):
            said = self._step()
        self._look()
        self._schedule.due_at(house.ledger.next_due_after(house.now()))
        self._notifier.status(said)
        return said.startswith("edit ") and " waits:" not in said

    def _step(self) -> str:
        upcoming = cycle.next_edit(self._house)
        self._editing = upcoming.id if upcoming else None
        try:
            return cycle.step(self._house, self._idle)
        finally:
            self._editing = None
            self._run_file("progress.json").unlink(missing_ok=True)

    def _idle(self, stage: str) -> str | None:
        """Called a few times a second while a worker runs; a sentence ends the worker."""
        if self._stopping:
            return self._stopping
        now = time.monotonic()
        if now - self._last_look < 0.5:
            return None
        self._last_look = now
        self._drain()
        self._ingest()
        control.execute_open(self._house, kinds=control.QUICK)
        self._look()
        if self._editing is not None:
            self._write_run_file("progress.json", {"edit": self._editing, "stage": stage})
            return control.urgent(self._house, self._editing)
        return None

    def _ingest(self) -> None:
        if Signal.RESCAN in self._pending or self._inbox.waiting():
            self._pending.discard(Signal.RESCAN)
            ingest_resumed(self._house, self._inbox, self._between_files)  # what an error left half done
            ingest_ready(self._house, self._inbox, self._between_files)

    def _between_files(self) -> bool:
        """Thousands of files must neither delay the stop nor starve the watchdog."""
        self._notifier.watchdog()
        return bool(self._stopping)

    def _periodic(self) -> None:
        house, now = self._house, self._house.now()
        if Signal.BACKUP in self._pending:
            self._pending.discard(Signal.BACKUP)
            control.backup(house)
        if Signal.REPROBE in self._pending:
            self._pending.discard(Signal.REPROBE)
            broken = reprobe_live(house, self._idle)
            house.ledger.set_setting("last_reprobe", now.isoformat(), now=now)
            house.log.info("reprobe.done", requeued=broken)

    def _overdue(self) -> set[Signal]:
        """Periodic jobs that a daemon which is often restarted would never come to."""
        house = self._house
        hours = {
            Signal.BACKUP: house.config.backup.every_hours,
            Signal.REPROBE: house.config.daemon.reprobe_hours,
        }
        jobs = [
            Job(name.value, timedelta(hours=every), last)
            for name, every in hours.items()
            if (last := control.last_run(house, name.value)) is not None
        ]
        wanted = {Signal.REPROBE} if house.ledger.get_setting(REPROBE_WANTED, False) else set()
        return wanted | {Signal(each.job.name) for each in due(jobs, house.now())}

    def _look(self) -> None:
        """Gauges, the watchdog of systemd, and our own watcher."""
        house = self._house
        if self._watcher.supervise():
            house.metrics.watcher_restarts.inc()
            house.log.warning("watcher.restarted", restarts=self._watcher.restarts)
        house.metrics.show(take_vitals(house))
        self._notifier.watchdog()

    def _wait(self) -> None:
        with suppress(queue.Empty):
            settle = self._house.config.inbox.settle_seconds
            timeout = min(max(settle / 2, 0.05), 5.0) if self._inbox.waiting() else 5.0
            self._pending.add(self._signals.get(timeout=timeout))

    def _drain(self) -> None:
        with suppress(queue.Empty):
            while True:
                self._pending.add(self._signals.get_nowait())

    @contextmanager
    def _handle_signals(self) -> Iterator[None]:
        def on_stop(number: int, _frame: FrameType | None) -> None:
            # SIGALRM keeps its default action: whatever hangs by then, recovery will put in order.
            signal.setitimer(signal.ITIMER_REAL, self._house.config.daemon.stop_seconds)
            self.stop(f"{signal.Signals(number).name} was received")

        def on_rescan(_number: int, _frame: FrameType | None) -> None:
            self._signals.put(Signal.RESCAN)

        handlers: dict[int, Any] = {signal.SIGTERM: on_stop, signal.SIGINT: on_stop, signal.SIGHUP: on_rescan}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _run_file(self, name: str) -> Any:
        return self._house.layout.run / name

    def _write_run_file(self, name: str, value: dict[str, Any]) -> None:
        staged = self._run_file(f".{name}.tmp")
        staged.write_text(json.dumps(value))
        staged.rename(self._run_file(name))

    def _remove_run_files(self) -> None:
        for name in ("daemon.json", "progress.json"):
            self._run_file(name).unlink(missing_ok=True)
