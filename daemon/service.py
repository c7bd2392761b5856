"""The main loop: the one thread that owns the ledger, woken by the watcher, ticks and signals.

Knows when each part has its turn, how to stop within ten seconds, and what to do when the machine
fails it: a full disk or a locked ledger is waited out, everything else ends the process. Doesn't know
how a part does its work. Other threads and signal handlers only put names into one queue.

Systemd is told READY once recovery and the first scan are done, WATCHDOG while every part shows life
(`daemon.pulse`), RELOADING and READY around a reload, and STOPPING.
"""

import queue
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any

from daemon import control, control_socket, cycle, run_files, waits
from daemon.chain import ChainWatch
from daemon.control_socket import ControlSocket
from daemon.exposition import serving
from daemon.house import House, with_relations_reread
from daemon.inbox import Inbox
from daemon.ingest import ingest_ready, ingest_resumed
from daemon.notify import Notifier
from daemon.patience import Patience, explained
from daemon.periodic import Periodic
from daemon.publish import longest
from daemon.pulse import Part, Pulse, limits_of
from daemon.runner import WorkerError, WorkerStopped
from daemon.schedule import Schedule, Signal
from daemon.vitals import describe, take_vitals
from daemon.watch import Watcher
from store.errors import LedgerError, PalimpsestError

_DAMAGED = "run `palimpsest restore --replace BACKUP` with the newest folder in backups/"


class Service:
    """One daemon on one open house. `run` returns when a signal asked for it."""

    def __init__(
        self,
        house: House,
        inbox: Inbox | None = None,
        notifier: Notifier | None = None,
        pulse: Pulse | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self._house = house
        self._inbox = inbox or Inbox(house.layout, house.config.inbox)
        self._notifier = notifier or Notifier()
        # A SimpleQueue may be put to from a signal handler; a threading.Event can deadlock there.
        self._signals: queue.SimpleQueue[Signal] = queue.SimpleQueue()
        self._pending: set[Signal] = set()
        self._watcher = watcher or Watcher(house.layout.inbox, lambda: self.post(Signal.RESCAN))
        self._schedule = Schedule(self.post)
        self._pulse = pulse or Pulse(limits_of(house.config), self._notifier, house.layout.alive, house.log)
        self._chain = ChainWatch(house)
        views = control_socket.views_of(house.config)
        self._control = ControlSocket(house.layout.run, views, lambda: self.post(Signal.TICK))
        self._rescan_seconds = house.config.inbox.rescan_seconds
        self._stopping = ""
        self._editing: tuple[int, ...] = ()
        self._last_look = 0.0
        self._last_scan = time.monotonic()
        self._patience = Patience()
        self._periodic = Periodic()
        self.metrics_port = 0

    def post(self, signal: Signal) -> None:
        """Have something done soon; safe from signal handlers and other threads."""
        self._signals.put(signal)

    def stop(self, reason: str) -> None:
        """End the loop soon; safe from signal handlers and other threads."""
        self._stopping = self._stopping or reason
        self.post(Signal.TICK)

    def run(self) -> int:
        """Recover, then work until stopped; returns the exit status."""
        house = self._house
        with ExitStack() as stack:
            stack.enter_context(self._handle_signals())
            try:
                self._start(stack)
                self._first_scan()
                house.log.info("daemon.ready", state=str(house.layout.state), port=self.metrics_port)
                self._notifier.ready("watching the inbox")
                self._notifier.lengthen_watchdog(longest(house.config.publish.hooks))
                self._pulse.begin()
                while not self._stopping:
                    if not self.turn():
                        self._wait()
            except Exception as error:
                with suppress(OSError):
                    house.log.exception("daemon.crashed")  # the next start recovers
                raise explained(error, str(house.layout.state)) from error
            self._notifier.stopping()
        house.log.info("daemon.stopped", cause=self._stopping)
        return 0

    def _start(self, stack: ExitStack) -> None:
        house = self._house
        self._pulse.end()  # what a killed process left
        # Recovery may have to make a generation anew, which is a worker's job.
        self._notifier.extend(house.config.editing.deadline_seconds + 120, "recovering")
        if faults := house.ledger.integrity():
            raise LedgerError("check ledger", str(house.layout.ledger), "; ".join(faults[:5]), _DAMAGED)
        with self._enduring():
            self._settle()
        describe(house)
        house.metrics.show(take_vitals(house))  # before the first scrape: 0 would be an alarm
        if house.config.metrics.enabled:
            self.metrics_port = stack.enter_context(serving(house.metrics.registry, house.config.metrics))
        if house.config.control.enabled:
            self._control.start()
            stack.callback(self._control.stop)
        stack.callback(run_files.forget, house.layout, run_files.DAEMON, run_files.PROGRESS)
        stack.callback(self._pulse.end)
        with self._enduring():
            run_files.write(self._house.layout, run_files.DAEMON, {"metrics_port": self.metrics_port})
        with suppress(OSError):  # the supervisor tries again
            self._watcher.start()
        stack.callback(self._watcher.stop)
        self._schedule.start({Signal.TICK: house.config.daemon.tick_seconds})
        stack.callback(self._schedule.stop)
        self._pending.add(Signal.RESCAN)

    def _first_scan(self) -> None:
        """What lies in the inbox already is in the queue before anybody hears that we are ready."""
        self._notifier.status("reading the inbox")
        if not self._patience.unsettled:
            with self._enduring():
                self._ingest()

    def turn(self) -> bool:
        """Orders, then files, then periodic jobs, then one edit; True when there may be more to do.

        While a trouble lasts nothing is written: it is only looked whether it is over.
        """
        self._drain()
        self._reload()
        with self._enduring():
            if not self._patience.unsettled or self._settle():
                return self._work()
        self._pulse.beat(Part.WORKER)
        self._look()
        self._pulse.say(f"waiting: {self._patience.trouble}")
        return False

    def _enduring(self) -> AbstractContextManager[None]:
        return self._patience.enduring(self._house)

    def _settle(self) -> bool:
        """Put rows and disk in order once there is no trouble any more; True when that is done."""
        if not self._patience.settle(self._house):
            return False
        run_files.write(self._house.layout, run_files.DAEMON, {"metrics_port": self.metrics_port})
        self._pending.add(Signal.RESCAN)
        return True

    def _work(self) -> bool:
        house = self._house
        self._control.note_orders(house.ledger, house.now())
        control.execute_open(house, self._idle)
        self._ingest()
        try:
            self._periodic.run_due(house, self._idle)
        except WorkerStopped:
            return True
        except WorkerError as error:
            house.log.error("periodic.failed", kind=error.kind, reason=str(error))
        said = "editing is paused"
        if not self._stopping and not control.is_paused(house):
            said = self._step()
        self._pulse.beat(Part.WORKER)
        self._look()
        self._schedule.due_at(waits.next_change(house))
        self._pulse.say(said)
        return said.startswith(("edit ", "edits ")) and " waits:" not in said

    def _step(self) -> str:
        self._editing = tuple(edit.id for edit in cycle.next_batch(self._house))
        try:
            return cycle.step(self._house, self._idle)
        finally:
            self._editing = ()
            run_files.forget(self._house.layout, run_files.PROGRESS)

    def _idle(self, stage: str) -> str | None:
        """Called a few times a second while a worker runs; a sentence ends the worker."""
        if self._stopping:
            return self._stopping
        self._pulse.beat(Part.WORKER)
        now = time.monotonic()
        if now - self._last_look < 0.5:
            return None
        self._last_look = now
        self._drain()
        self._reload()
        if not self._patience.unsettled:
            with self._enduring():
                self._meanwhile(stage)
        self._look()
        return control.urgent(self._house, self._editing) if self._editing else None

    def _meanwhile(self, stage: str) -> None:
        """What is also done while a worker runs; trouble here is no reason to end what it does."""
        self._ingest()
        self._control.note_orders(self._house.ledger, self._house.now())
        control.execute_open(self._house, kinds=control.QUICK)
        if self._editing:
            work = {"edits": self._editing, "stage": stage}
            run_files.write(self._house.layout, run_files.PROGRESS, work)

    def _ingest(self) -> None:
        # By this clock and not by the scheduler's: that one stands still while the time of day is set back.
        now = time.monotonic()
        scan = Signal.RESCAN in self._pending or now - self._last_scan >= self._rescan_seconds
        if scan:
            self._last_scan = now
            self._pending.discard(Signal.RESCAN)
            ingest_resumed(self._house, self._inbox, self._between_files)
        if scan or self._inbox.waiting():
            ingest_ready(self._house, self._inbox, self._between_files)

    def _between_files(self) -> bool:
        """Thousands of files must neither delay the stop nor starve the watchdog."""
        self._drain()
        self._control.beat()
        self._pulse.beat(Part.LEDGER)
        self._supervise()
        self._pulse.feed()
        return bool(self._stopping)

    def _reload(self) -> None:
        """SIGHUP: read the operator's relations and the inbox again. An edit in work keeps the old ones."""
        if Signal.RELOAD not in self._pending:
            return
        self._pending = self._pending - {Signal.RELOAD} | {Signal.RESCAN}
        self._notifier.reloading("reading relations and the inbox again")
        try:
            self._house = with_relations_reread(self._house)
            said = f"{len(self._house.relations)} relations"
            self._house.log.info("reload.done", relations=len(self._house.relations))
        except PalimpsestError as error:
            said = "relations stay as they were, see the log"
            self._house.log.error("reload.refused", cause=str(error))
        self._notifier.ready(f"reloaded: {said}")

    def _look(self) -> None:
        """Gauges, the watchdog of systemd, and our own watcher."""
        self._supervise()
        self._chain.look()
        self._house.metrics.show(take_vitals(self._house))
        self._control.beat()
        self._pulse.beat(Part.LEDGER)
        self._pulse.feed()

    def _supervise(self) -> None:
        if self._watcher.supervise():
            self._house.metrics.watcher_restarts.inc()
            self._house.log.warning("watcher.restarted", restarts=self._watcher.restarts)
        else:
            self._pulse.beat(Part.OBSERVER)

    def _wait(self) -> None:
        with suppress(queue.Empty):
            settle = self._house.config.inbox.settle_seconds
            timeout = (
                min(max(settle / 2, 0.05), 5.0) if self._inbox.waiting() else min(self._rescan_seconds, 5.0)
            )
            self._note(self._signals.get(timeout=min(timeout, self._notifier.watchdog_seconds or timeout)))

    def _drain(self) -> None:
        with suppress(queue.Empty):
            while True:
                self._note(self._signals.get_nowait())

    def _note(self, signal: Signal) -> None:
        if signal is Signal.TICK:
            self._pulse.beat(Part.TICK)
        self._pending.add(signal)

    @contextmanager
    def _handle_signals(self) -> Iterator[None]:
        def on_stop(number: int, _frame: FrameType | None) -> None:
            # SIGALRM keeps its default action: whatever hangs by then, recovery will put in order.
            signal.setitimer(signal.ITIMER_REAL, self._house.config.daemon.stop_seconds)
            self.stop(f"{signal.Signals(number).name} was received")

        def on_reload(_number: int, _frame: FrameType | None) -> None:
            self.post(Signal.RELOAD)

        handlers: dict[int, Any] = {signal.SIGTERM: on_stop, signal.SIGINT: on_stop, signal.SIGHUP: on_reload}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)
