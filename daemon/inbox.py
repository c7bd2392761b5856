"""The inbox's folders: what is ready, taking it, and where it ends; input is moved, never deleted.

Knows names, sizes and file kinds. Doesn't know what is in a file, and never reads one that is too
large, not regular or reached through a link.
"""

import errno
import json
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from daemon.config import InboxSettings
from daemon.layout import Layout
from daemon.users import owner_of
from policies.sources import Owner
from store.errors import FactFileError
from store.failpoints import reach

_IGNORED_ENDINGS = ("~", ".tmp", ".part", ".swp")
_READY = ".ready"
_RESULT, _ERROR = ".result.json", ".error.json"
_MAX_NAME = 200  # bytes; leaves room for `.17` and `.result.json` in the 255 that file systems allow
_MAX_LISTED_ERRORS = 100
# Why one entry can't be opened; anything else (no memory, a failing disk) is no reason to refuse it.
_OWN_FAULTS = frozenset({errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENXIO, errno.ENODEV, errno.EISDIR})


@dataclass(frozen=True, slots=True)
class Claim:
    """One entry of the inbox that is now ours. `resumed`: it was already claimed by a process that died."""

    name: str
    path: Path
    resumed: bool = False

    @property
    def label(self) -> str:
        """The name in messages and in the ledger."""
        return printable(self.name)


@dataclass(frozen=True, slots=True)
class _Seen:
    size: int
    mtime_ns: int
    since: float  # monotonic seconds


def is_ignored(name: str) -> bool:
    """Dotfiles, editors' and downloaders' temporaries, and the `NAME.ready` markers."""
    return name.startswith(".") or name.endswith((*_IGNORED_ENDINGS, _READY))


def printable(name: str) -> str:
    """A file name as text that JSON, SQLite and terminals take, whatever bytes the file system allowed."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def error_report(label: str, errors: Sequence[FactFileError], now: datetime) -> dict[str, Any]:
    """What stands in `NAME.error.json`, the first error on top."""
    listed = [_report(error) for error in errors[:_MAX_LISTED_ERRORS]]
    about = {"file": label, "at": now.isoformat(), **listed[0]}
    return {**about, "error_count": len(errors), "errors": listed}


class Inbox:
    """The four folders of one state directory. `monotonic` is in seconds."""

    def __init__(
        self, layout: Layout, settings: InboxSettings, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._layout = layout
        self._settings = settings
        self._monotonic = monotonic
        self._seen: dict[str, _Seen] = {}

    def claims(self, now: datetime, on_stuck: Callable[[str, OSError], None]) -> Iterator[Claim]:
        """Take what is ready, oldest first, one at a time as the caller asks for the next.

        `on_stuck` hears of what can't be moved; it stays, and is tried again by the next scan.
        """
        for name in self.ready(now):
            try:
                path = _move(self._layout.inbox / name, self._layout.processing, name)
            except FileNotFoundError:
                continue  # its owner took it back
            except OSError as error:
                on_stuck(name, error)
                continue
            reach("inbox.claimed")
            _remove_marker(self._layout.inbox / (name + _READY))
            yield Claim(name, path)

    def resume(self) -> Iterator[Claim]:
        """What was claimed and not finished: the process died, or the disk was full. Oldest first."""
        stats = _stats(self._layout.processing)
        for name in sorted(stats, key=lambda name: (stats[name].st_mtime_ns, name)):
            yield Claim(name, self._layout.processing / name, resumed=True)

    def ready(self, now: datetime) -> list[str]:
        """Names that are complete, by (mtime, name); none while the folder itself is missing."""
        try:
            stats = _stats(self._layout.inbox)
        except (FileNotFoundError, NotADirectoryError):
            stats = {}
        self._seen = {name: seen for name, seen in self._seen.items() if name in stats}
        waiting = {name: found for name, found in stats.items() if not is_ignored(name)}
        return sorted(
            (
                name
                for name, found in waiting.items()
                if name + _READY in stats or self._is_still(name, found, now)
            ),
            key=lambda name: (stats[name].st_mtime_ns, name),
        )

    def waiting(self) -> bool:
        """Whether the last scan saw entries that weren't still yet: scan again after `settle_seconds`."""
        return bool(self._seen)

    def _is_still(self, name: str, found: os.stat_result, now: datetime) -> bool:
        """Not written to for `settle_seconds`, by its mtime or by what earlier scans saw of it."""
        settle = self._settings.settle_seconds
        if not stat.S_ISREG(found.st_mode) or now.timestamp() - found.st_mtime >= settle:
            self._seen.pop(name, None)
            return True
        moment = self._monotonic()
        seen = self._seen.get(name)
        if seen is None or (seen.size, seen.mtime_ns) != (found.st_size, found.st_mtime_ns):
            self._seen[name] = _Seen(found.st_size, found.st_mtime_ns, moment)
            return settle == 0
        if moment - seen.since < settle:
            return False
        self._seen.pop(name)
        return True

    def read(self, claim: Claim) -> tuple[bytes, Owner]:
        """The bytes of a claim and whose they are; raises FactFileError for anything but a regular file
        within the cap."""
        cap = self._settings.max_file_bytes
        try:
            handle = os.open(claim.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno not in _OWN_FAULTS:
                raise
            raise _refusal(claim, error) from error
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise _fault(claim, "not_a_file", f"is {_kind(found.st_mode)}", "drop a regular file")
            if found.st_size > cap:
                raise _too_large(claim, found.st_size, cap)
            with os.fdopen(handle, "rb", closefd=False) as file:
                data = file.read(found.st_size + 1)
            if len(data) != found.st_size or os.fstat(handle).st_mtime_ns != found.st_mtime_ns:
                hint = "write it under a name that ends in .tmp and rename it; drop it again"
                raise _fault(claim, "changing", "was written to while it was read", hint)
        finally:
            os.close(handle)
        return data, owner_of(found)

    def accept(self, claim: Claim, result: Mapping[str, Any], now: datetime) -> Path:
        """Move to `done/DATE/` with `NAME.result.json` beside it; returns where it went."""
        folder = self._layout.done / now.date().isoformat()
        return _finish(claim, folder, _RESULT, result)

    def refuse(self, claim: Claim, errors: Sequence[FactFileError], now: datetime) -> Path:
        """Move to `failed/` with `NAME.error.json` beside it, the first error on top."""
        report = error_report(claim.label, errors, now)
        return _finish(claim, self._layout.failed, _ERROR, report)


def _stats(folder: Path) -> dict[str, os.stat_result]:
    with os.scandir(folder) as entries:
        return {entry.name: found for entry in entries if (found := _lstat(entry)) is not None}


def _lstat(entry: "os.DirEntry[str]") -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None


def _report(error: FactFileError) -> dict[str, Any]:
    return {
        "code": error.code,
        "line": error.line,
        "column": error.column,
        "excerpt": error.excerpt,
        "cause": error.cause,
        "hint": error.hint,
    }


def _finish(claim: Claim, folder: Path, ending: str, report: Mapping[str, Any]) -> Path:
    """Report first, move last: a crash between the two leaves the claim to be finished again."""
    folder.mkdir(parents=True, exist_ok=True)
    target = _free(folder, claim.name)
    staged = folder / f".{os.getpid()}{ending}.tmp"
    try:
        staged.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    except OSError:
        staged.unlink(missing_ok=True)  # half a report would keep what little room there is
        raise
    staged.rename(target.with_name(target.name + ending))
    reach("inbox.reported")
    claim.path.rename(target)
    reach("inbox.moved")
    return target


def _move(source: Path, folder: Path, name: str) -> Path:
    target = _free(folder, name)
    source.rename(target)
    return target


def _free(folder: Path, name: str) -> Path:
    """`folder/name`, or with a count before the ending when that is taken; never an existing path.

    A report without its file is what a crash left, and may be replaced: no input lies under such a name.
    """
    stem, ending = os.path.splitext(_safe(name))
    for count in range(1, 1_000_000):
        target = folder / (f"{stem}{ending}" if count == 1 else f"{stem}.{count}{ending}")
        if not os.path.lexists(target):
            return target
    raise FileExistsError(errno.EEXIST, "no free name", str(folder / name))


def _safe(name: str) -> str:
    """A name that leaves room for what is added to it, and that no report will ever have."""
    raw = os.fsencode(name)
    if len(raw) > _MAX_NAME:  # cut between characters, where they are UTF-8
        head = raw[: _MAX_NAME - 40].decode("utf-8", "ignore") or os.fsdecode(raw[: _MAX_NAME - 40])
        name = head + (raw[-40:].decode("utf-8", "ignore") or os.fsdecode(raw[-40:]))
    stem, ending = os.path.splitext(name)
    return f"{stem}.input{ending}" if name.endswith((_RESULT, _ERROR)) else name


def _remove_marker(path: Path) -> None:
    """A `NAME.ready` marker has done its work; anything but an empty file is input and stays."""
    with suppress(OSError):  # none is there, or none can be: its name would be too long
        found = path.lstat()
        if stat.S_ISREG(found.st_mode) and found.st_size == 0:
            path.unlink()


def _fault(claim: Claim, code: str, cause: str, hint: str) -> FactFileError:
    return FactFileError("take fact file", claim.label, cause, hint, code=code)


def _too_large(claim: Claim, size: int, cap: int) -> FactFileError:
    return _fault(
        claim,
        "too_large",
        f"{size} bytes are more than the {cap} allowed",
        "split the file or raise [inbox] max_file_bytes",
    )


def _refusal(claim: Claim, error: OSError) -> FactFileError:
    if error.errno == errno.ELOOP:
        return _fault(claim, "symlink", "is a symbolic link", "copy the file itself into the inbox")
    if error.errno == errno.ENXIO:
        return _fault(claim, "not_a_file", "is a socket or a device", "drop a regular file")
    return _fault(claim, "unreadable", error.strerror or str(error), "check its kind, owner and mode")


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")
