"""The daemon for a set time under random files, orders and kills: does it grow, does it lose anything?

    python -m tests.soak [--seconds 60] [--seed 1] [--fake]

The first half is one life under load, measured at rest before and after it; the second half is many
lives that end by SIGKILL. The model is tiny and random, the worker the real one (`--fake`: neither).
Exit status 1 when resident memory, descriptors or threads grew, or an invariant is broken.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from store.facts import EditState
from store.ledger import Ledger
from tests.crash import tiny, world
from tests.crash.storm import Storm
from tests.crash.zygote import PATIENCE_SECONDS, Child, Zygote

GROWTH_BYTES = 16 * 1024**2  # the allocator's own; a leak of a kilobyte an event shows in an hour
GROWTH_SHARE = 0.1
LINGER_SECONDS = 5.0  # the hook of the last edit holds its pipes until it has run; a leak stays


@dataclass(frozen=True, slots=True)
class Size:
    """What a process holds."""

    rss: int
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> "Size":
        proc = Path("/proc") / str(pid)
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        rss = int(status["VmRSS"].split()[0]) * 1024
        return cls(rss, len(list((proc / "fd").iterdir())), int(status["Threads"]))

    def grown_to(self, end: "Size") -> list[str]:
        found = []
        if end.rss > self.rss + max(GROWTH_BYTES, self.rss * GROWTH_SHARE):
            found.append(f"resident memory grew from {self.rss} to {end.rss} bytes")
        if end.descriptors > self.descriptors:
            found.append(f"descriptors grew from {self.descriptors} to {end.descriptors}")
        if end.threads > self.threads:
            found.append(f"threads grew from {self.threads} to {end.threads}")
        return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fake", action="store_true", help="a list of facts instead of a model")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="palimpsest-soak-") as folder:
        caches = {"XDG_CACHE_HOME": str(Path(folder) / "cache")}
        with Zygote("tests.crash.tiny", environment=caches) as zygote:
            return soak(zygote, Path(folder), args.seconds, args.seed, fake=args.fake)


def soak(zygote: Zygote, folder: Path, seconds: float, seed: int, *, fake: bool) -> int:
    """Prints what was seen; returns the exit status."""
    state, log = folder / "state", folder / "log"
    log.touch()
    if fake:
        begun, serve = world.with_work(state), "tests.crash.world:serve"
    else:
        print("initialising a tiny model", flush=True)
        assert zygote.start("tests.crash.tiny:prepare", str(state), log=log).end() == 0, log.read_text()
        begun, serve = world.World(tiny.tiny_config(state), ()), "tests.crash.tiny:serve"
    storm = Storm(zygote, begun, log, seed, serve, patience=min(seconds / 10, 20.0))
    storm.backlog = 1_000 if fake else 3  # an edit takes seconds, and at the end all are waited for
    start, end = steady(storm, seconds / 2)
    faults = storm.said([*start.grown_to(end), *storm.broken(recovered=True), *storm.undone()])
    deadline = time.monotonic() + seconds / 2
    while not faults and time.monotonic() < deadline:
        faults = storm.life()
    child = started(storm)
    rest(storm, child)
    stop(child)
    faults += storm.said([*storm.broken(recovered=True), *storm.undone()])
    show(storm, start, end, faults)
    if faults:
        print(f"the daemon's log ends with\n{log.read_text()[-4000:]}")
    return 1 if faults else 0


def steady(storm: Storm, seconds: float) -> tuple[Size, Size]:
    """One life under load: what the daemon held at rest, after its first work and after its last."""
    child = started(storm)
    storm.blow()
    rest(storm, child)
    start = Size.of(child.pid)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        storm.blow()
        assert child.wait(storm.random.uniform(0, storm.patience / 5)) is None, child.log.read_text()
    rest(storm, child)
    end, patience = Size.of(child.pid), time.monotonic() + LINGER_SECONDS
    while start.grown_to(end) and time.monotonic() < patience:
        assert child.wait(0.1) is None, child.log.read_text()
        end = Size.of(child.pid)
    stop(child)
    return start, end


def started(storm: Storm) -> Child:
    """A daemon that is ready: one that isn't yet doesn't know how to stop."""
    before = storm.log.stat().st_size
    child = storm.start()
    wait_for(lambda: b'"daemon.ready"' in storm.log.read_bytes()[before:], child)
    return child


def rest(storm: Storm, child: Child) -> None:
    """Wait until all that was asked is done."""
    layout = storm.world.config.layout

    def done() -> bool:
        with closing(Ledger.open_readonly(layout.ledger)) as ledger:
            return world.at_rest(layout, ledger)

    wait_for(done, child)


def wait_for(done: Callable[[], bool], child: Child) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        assert child.wait(0.2) is None, f"the daemon ended: {child.log.read_text()[-4000:]}"
        assert time.monotonic() < deadline, f"not at rest: {child.log.read_text()[-4000:]}"


def stop(child: Child) -> None:
    os.kill(child.pid, signal.SIGTERM)
    assert child.end() == 0, f"status {child.wait()}: {child.log.read_text()[-4000:]}"


def show(storm: Storm, start: Size, end: Size, faults: Sequence[str]) -> None:
    with closing(Ledger.open_readonly(storm.world.config.layout.ledger)) as ledger:
        generations, live = len(ledger.generations()) - 1, ledger.state_counts()[EditState.LIVE]
    print(f"seed {storm.seed}: {storm.drops} files, {storm.orders} rollbacks, {storm.kills} kills, ", end="")
    print(f"{generations} generations, {live} edits live")
    print(f"{'':16}{'start':>12}{'end':>12}")
    for name, unit in (("rss", 1024**2), ("descriptors", 1), ("threads", 1)):
        values = [f"{getattr(size, name) / unit:12.0f}" for size in (start, end)]
        print(f"{name + (' (MiB)' if unit > 1 else ''):16}{''.join(values)}")
    print("invariants      " + ("I1 to I7 hold" if not faults else "BROKEN"))
    for fault in faults:
        print(fault)


if __name__ == "__main__":
    sys.exit(main())
