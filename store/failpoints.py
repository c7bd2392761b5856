"""Named places between two durable writes, where a test may kill, fail or slow down the process.

Knows the names and what may be done there. Doesn't know what its callers do. Unless `arm` found the
variable PALIMPSEST_FAILPOINT set, a place costs one comparison; the worker child and hooks inherit
the variable and never arm it.

    PALIMPSEST_FAILPOINT=serve.swapped:kill      SIGKILL when that place is reached
    PALIMPSEST_FAILPOINT=ledger.commit:error:3   an OSError (EIO) the third time, and only then
    PALIMPSEST_FAILPOINT=disk.written:delay      a fifth of a second, each time
"""

import difflib
import errno
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from store.errors import ConfigError

VARIABLE = "PALIMPSEST_FAILPOINT"
ACTIONS = ("kill", "error", "delay")
DELAY_SECONDS = 0.2

POINTS: Mapping[str, str] = {
    # store: any file, the ledger, its copies
    "disk.written": "a file's temporary is written, not yet fsynced",
    "disk.fsynced": "a file's temporary is on disk, not yet renamed",
    "ledger.created": "the ledger's file exists, without tables",
    "ledger.commit": "a transaction's statements have run, not yet committed",
    "ledger.committed": "a transaction is committed",
    "migration.backed_up": "the ledger was copied before its migration",
    "migration.step": "one migration's statements have run, not yet committed",
    "backup.copied": "a copy of the ledger is written, not yet fsynced",
    "backup.fsynced": "a copy of the ledger is on disk, without its name",
    "backup.sealed": "a backup is complete and verified, without its name",
    "backup.named": "a backup has its name and isn't noted",
    "backup.noted": "a backup is noted in the ledger, old ones not yet removed",
    # store: generations
    "stage.made": "a staging directory exists, empty",
    "manifest.file": "one file of a directory is hashed and fsynced",
    "manifest.files": "all files of a directory are fsynced, the manifest isn't written",
    "stage.sealed": "a staged directory has its manifest, not yet its place",
    "stage.renamed": "a generation is in its place, its folders not yet fsynced",
    "promote.previous": "`previous` points at what is served, `current` not yet at the new one",
    "link.made": "a new symlink exists beside the one it will replace",
    "quarantine.moved": "a directory was set aside, without its reason",
    "gc.moved": "a generation's directory left its place, not yet removed",
    "gc.blob": "one blob that nothing refers to was removed",
    # daemon: a file's way
    "inbox.claimed": "a file was moved to processing/",
    "ingest.parsed": "a file was parsed, nothing recorded",
    "ingest.recorded": "a file's rows are in the ledger, without a report",
    "inbox.reported": "the report lies in done/ or failed/, the file doesn't",
    "inbox.moved": "the file lies beside its report",
    # daemon: an edit's way
    "edit.taken": "an edit is in work, nothing is staged",
    "edit.refused": "a candidate didn't pass, what comes next isn't recorded",
    "commit.delta": "an edit's vectors are in the blob store",
    "commit.intent": "a generation's intent row is written",
    "commit.judged": "the edit is judged, its generation has no files",
    "commit.built": "the generation is whole, not served",
    "serve.swapped": "`current` points at a generation that isn't live in the ledger",
    "serve.live": "the ledger says live, no hook was run",
    "hook.ran": "one hook was run",
    "serve.announced": "all hooks were run, nothing tidied up",
    "edit.concluded": "an edit has its state, its outcome isn't recorded",
    # daemon: orders, rollback, recovery, init
    "rollback.restored": "a generation's directory was written again, `current` not moved",
    "rollback.swapped": "`current` points back, the ledger doesn't",
    "rollback.live": "the ledger is rolled back, no hook was run",
    "order.executed": "an order was carried out, not yet finished",
    "recovery.swept": "leftovers were swept, nothing recovered",
    "recovery.acted": "one action of a recovery was done",
    "init.written": "the base's files are there, not sealed",
    "init.sealed": "the base is sealed, not served",
    "init.promoted": "the base is served, without a row",
}


@dataclass(slots=True)
class Failpoint:
    """Acts the `nth` time its place is reached (a delay: from then on)."""

    name: str
    action: str
    nth: int = 1
    reached: int = field(default=0, init=False)

    def __call__(self, name: str) -> None:
        if name != self.name:
            return
        self.reached += 1
        if self.action == "delay" and self.reached >= self.nth:
            import time  # the store's only use of it, and not to know what time it is

            time.sleep(DELAY_SECONDS)
        elif self.reached == self.nth:
            if self.action == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.EIO, f"failpoint {name}")


# The one piece of module state in the house: it must reach every module without being handed through.
_armed: Callable[[str], None] | None = None


def reach(name: str) -> None:
    """Say that a place was reached."""
    if _armed is not None:
        _armed(name)


def arm(environment: Mapping[str, str]) -> None:
    """Arm what PALIMPSEST_FAILPOINT asks for, if anything. Raises ConfigError when it makes no sense."""
    global _armed  # noqa: PLW0603 - see above
    text = environment.get(VARIABLE, "")
    _armed = parse(text) if text else None


@contextmanager
def armed(act: Callable[[str], None]) -> Iterator[None]:
    """`act` hears of every place that is reached inside; for tests in one process."""
    global _armed  # noqa: PLW0603 - see above
    before, _armed = _armed, act
    try:
        yield
    finally:
        _armed = before


def parse(text: str) -> Failpoint:
    """A Failpoint from `NAME:ACTION[:N]`. Raises ConfigError."""
    name, _, rest = text.partition(":")
    action, _, count = rest.partition(":")
    if name not in POINTS:
        near = difflib.get_close_matches(name, POINTS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(POINTS)}"
        raise ConfigError("arm failpoint", f"{VARIABLE}={text}", f"there is no place {name!r}", hint)
    if action not in ACTIONS:
        cause = f"there is no action {action!r}"
        raise ConfigError("arm failpoint", f"{VARIABLE}={text}", cause, f"one of {', '.join(ACTIONS)}")
    if count and not (count.isascii() and count.isdigit() and int(count) > 0):
        cause = f"{count!r} isn't a count"
        raise ConfigError("arm failpoint", f"{VARIABLE}={text}", cause, "write NAME:ACTION:N, N from 1")
    return Failpoint(name, action, int(count or 1))
