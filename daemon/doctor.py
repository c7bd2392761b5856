"""What usually is wrong with an installation, and what to do about it.

Each check is a function of plain facts and returns findings; `examine` gathers the facts. Knows hazards.
Doesn't mend anything and doesn't read whole files (`daemon.verifying` does).
"""

import importlib.metadata
import json
import os
import shutil
import sqlite3
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from safetensors import SafetensorError, safe_open

from daemon.config import Config
from daemon.house import utc_now
from daemon.kernel_clock import is_synchronised
from daemon.layout import Layout
from store.errors import PalimpsestError
from store.generations import ModelStore
from store.ledger import Ledger
from store.lock import StateLock
from store.times import parse_time

OK, WARNING, PROBLEM = "ok", "warning", "problem"
NETWORK = (
    "nfs",
    "cifs",
    "smb",
    "9p",
    "fuse",
    "afs",
    "ceph",
    "gluster",
    "lustre",
    "davfs",
    "vboxsf",
    "virtiofs",
)
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
FEW_WATCHES, FEW_INSTANCES = 1024, 16
AHEAD = timedelta(minutes=5)

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """`level` is ok, warning or problem; `hint` says what to do, empty when nothing is."""

    check: str
    level: str
    detail: str
    hint: str = ""


def sqlite_version(version: Version) -> Finding:
    """STRICT tables need 3.37. Before 3.51.3 (3.50.7, 3.44.6) two connections that write and checkpoint
    at the same moment could, very rarely, lose a reset of the log (sqlite.org/wal.html, WAL-reset bug)."""
    text = ".".join(map(str, version))
    if version < (3, 37):
        return Finding("SQLite", PROBLEM, text, "the ledger needs 3.37 or newer: use a newer Python")
    mended = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
    if not mended:
        hint = "it has the WAL-reset bug, rare with one writer: upgrade to 3.51.3, and keep backups"
        return Finding("SQLite", WARNING, text, hint)
    return Finding("SQLite", OK, text)


def file_system(kind: str, where: str) -> Finding:
    """SQLite's log needs shared memory, inotify needs a local kernel, rename must be atomic."""
    if kind.startswith(NETWORK):
        hint = "put the state directory on a local disk; the ledger can be lost on a network"
        return Finding("file system", PROBLEM, f"{where} is on {kind}", hint)
    return Finding("file system", OK, f"{where} is on {kind or 'an unknown file system'}")


def devices(found: Mapping[str, int]) -> Finding:
    """Parts between which files are renamed must be on one file system."""
    others = sorted(name for name, device in found.items() if device != next(iter(found.values())))
    if others:
        hint = "mount the whole state directory, not parts of it"
        return Finding("devices", PROBLEM, f"{', '.join(others)} lie on another one", hint)
    return Finding("devices", OK, "all parts are on one file system")


def inotify(watches: int | None, instances: int | None) -> Finding:
    few = [
        f"{name} is {value}"
        for name, value, least in (
            ("max_user_watches", watches, FEW_WATCHES),
            ("max_user_instances", instances, FEW_INSTANCES),
        )
        if value is not None and value < least
    ]
    if few:
        hint = f"sysctl fs.inotify.max_user_watches=65536 fs.inotify.max_user_instances={FEW_INSTANCES * 8}"
        return Finding("inotify", WARNING, ", ".join(few), f"files are found by scans only; {hint}")
    return Finding("inotify", OK, "limits are high enough" if watches else "limits can't be read")


def rights(modes: Mapping[str, int], euid: int, owners: Mapping[str, int]) -> list[Finding]:
    """Who may write the inbox may change what the model says; who may write the ledger, everything."""
    findings = []
    for name, mode in modes.items():
        if mode & stat.S_IWOTH:
            level = WARNING if name == "inbox" else PROBLEM
            findings.append(
                Finding(
                    "permissions",
                    level,
                    f"anybody may write {name}",
                    "take that right away: chmod o-w",
                )
            )
        if name == "ledger" and mode & (stat.S_IRWXG | stat.S_IRWXO):
            hint = "chmod 600 ledger.sqlite*: it holds every fact"
            findings.append(Finding("permissions", WARNING, "others may read the ledger", hint))
    strangers = sorted(name for name, uid in owners.items() if uid != euid)
    if strangers and euid != 0:
        hint = "run commands as the user that owns the state directory"
        findings.append(
            Finding("permissions", WARNING, f"{', '.join(strangers)} belong to another user", hint)
        )
    return findings or [Finding("permissions", OK, "nobody else may write")]


def disk(free: int, needed: int) -> Finding:
    text = f"{free / 1e9:.1f} GB free, an edit needs {needed / 1e9:.1f}"
    if free < needed:
        return Finding(
            "disk", PROBLEM, text, "make room: `palimpsest gc`, fewer [generations] keep; edits wait"
        )
    if free < 3 * needed:
        return Finding("disk", WARNING, text, "it will soon be too little; see [generations] keep")
    return Finding("disk", OK, text)


def clock(now: datetime, newest: datetime | None) -> Finding:
    """Facts take effect by the clock."""
    if newest is not None and newest - now > AHEAD:
        hint = "set the clock (timedatectl); facts with effective_at wait for it"
        detail = f"it is {now:%Y-%m-%d %H:%M}, but the ledger was written at {newest:%Y-%m-%d %H:%M}"
        return Finding("clock", PROBLEM, detail, hint)
    return Finding("clock", OK, f"{now:%Y-%m-%d %H:%M} UTC")


def synchronised(by_kernel: bool | None) -> Finding:
    """A clock that nothing corrects drifts: facts take effect early or late, and backups sort wrongly."""
    if by_kernel is False:
        hint = "let chrony or systemd-timesyncd run (timedatectl set-ntp true), or have the host set it"
        return Finding("clock", WARNING, "no time service has synchronised it", hint)
    return Finding("clock", OK, "is synchronised" if by_kernel else "whether it is synchronised isn't known")


def model_files(directory: Path, found: Iterable[str], broken: Mapping[str, str]) -> list[Finding]:
    """`found` are the names in a model's directory, `broken` the weight files whose header can't be read."""
    names = set(found)
    findings = [
        Finding("model", PROBLEM, f"{name}: {cause}", "`palimpsest verify`, then restart the daemon")
        for name, cause in sorted(broken.items())
    ]
    missing = sorted({"config.json", "manifest.json"} - names)
    if not any(name.startswith("tokenizer") for name in names):
        missing.append("tokenizer")
    if missing:
        findings.append(
            Finding("model", PROBLEM, f"{directory.name} lacks {', '.join(missing)}", "restore it")
        )
    pickles = sorted(n for n in names if any(Path(n).match(pattern) for pattern in PICKLES))
    if pickles:
        hint = "remove them: engines that load pickles run code in them; nothing here reads them"
        findings.append(Finding("model", WARNING, f"{directory.name} holds {', '.join(pickles)}", hint))
    return findings or [Finding("model", OK, f"{directory.name} has what an engine needs")]


def packages(versions: Mapping[str, str | None]) -> Finding:
    if versions.get("python-daemon"):
        hint = "pip uninstall python-daemon, or use a virtual environment: it also is called `daemon`"
        return Finding("packages", PROBLEM, "python-daemon is installed", hint)
    missing = sorted(n for n, v in versions.items() if v is None and n != "python-daemon")
    if missing:
        return Finding(
            "packages", PROBLEM, f"{', '.join(missing)} missing", "pip install -c constraints.txt ."
        )
    return Finding("packages", OK, ", ".join(f"{n} {v}" for n, v in sorted(versions.items()) if v))


def activity(holder: int | None, waiting: int, refused: int) -> list[Finding]:
    """What lies around because nobody takes it."""
    findings = []
    if holder is None:
        level = WARNING if waiting else OK
        hint = "`palimpsest run`, or systemctl start palimpsest@NAME" if waiting else ""
        findings.append(Finding("daemon", level, f"isn't running, {waiting} files wait in the inbox", hint))
    else:
        findings.append(Finding("daemon", OK, f"process {holder}"))
    if refused:
        hint = "read NAME.error.json beside each, mend it, drop it again, remove it from failed/"
        findings.append(Finding("refused files", WARNING, f"{refused} in failed/", hint))
    return findings


def examine(config: Config) -> list[Finding]:
    """Every check on the state directory of `config`, the facts read from this machine."""
    layout = config.layout
    versions = {name: _version(name) for name in ("torch", "transformers", "peft", "python-daemon")}
    findings = [sqlite_version(sqlite3.sqlite_version_info), packages(versions)]
    findings.append(inotify(_limit("max_user_watches"), _limit("max_user_instances")))
    findings.append(synchronised(is_synchronised()))
    if not layout.state.is_dir() or not layout.ledger.is_file():
        hint = "`palimpsest init`, or give --state DIR"
        return [*findings, Finding("state directory", PROBLEM, f"{layout.state} holds no ledger", hint)]
    findings.append(file_system(_file_system(layout.state), str(layout.state)))
    parts = {path.name: path.stat().st_dev for path in (layout.state, *_renamed_between(layout))}
    findings.append(devices(parts))
    looked = {"state directory": layout.state, "inbox": layout.inbox, "ledger": layout.ledger}
    stats = {name: path.stat() for name, path in looked.items() if path.exists()}
    owners = {name: s.st_uid for name, s in stats.items()}
    findings += rights({name: s.st_mode for name, s in stats.items()}, os.geteuid(), owners)
    findings += _of_ledger(layout)
    models = ModelStore(layout.model)
    if 0 not in models.numbers():
        hint = "`palimpsest init`"
        findings.append(Finding("model", PROBLEM, f"{layout.model_name} was not initialised", hint))
    else:
        findings.append(disk(shutil.disk_usage(layout.state).free, models.disk_needed()))
        findings += _of_model(models)
    holder = StateLock(layout.state).holder()
    waiting = sum(not p.name.startswith(".") for p in layout.inbox.iterdir()) if layout.inbox.is_dir() else 0
    return findings + activity(holder, waiting, len(list(layout.failed.glob("*.error.json"))))


def _of_ledger(layout: Layout) -> list[Finding]:
    try:
        with Ledger.open_readonly(layout.ledger) as ledger:
            events = ledger.audit_events(limit=1)
    except PalimpsestError as error:
        return [Finding("ledger", PROBLEM, error.cause, error.hint)]
    return [clock(utc_now(), parse_time(events[-1]["at"]) if events else None)]


def _of_model(models: ModelStore) -> list[Finding]:
    try:
        served = models.current()
    except PalimpsestError as error:
        return [Finding("model", PROBLEM, error.cause, error.hint)]
    findings = []
    for directory in dict.fromkeys((models.base_dir.resolve(), served)):
        files = [p for p in directory.iterdir() if p.is_file()]
        broken = {p.name: cause for p in files if (cause := _broken(p))}
        findings += model_files(directory, [p.name for p in files], broken)
    return findings


def _broken(path: Path) -> str:
    """Why a file that should be read can't be, empty when it can."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "numpy") as tensors:
                tensors.keys()
        elif path.name == "config.json":
            json.loads(path.read_bytes())
    except (SafetensorError, OSError, ValueError) as error:
        return str(error)
    return ""


def _renamed_between(layout: Layout) -> Sequence[Path]:
    parts = (layout.inbox, layout.processing, layout.done, layout.failed, layout.model)
    return [path for path in parts if path.is_dir()]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _limit(name: str) -> int | None:
    try:
        return int(Path(f"/proc/sys/fs/inotify/{name}").read_text())
    except (OSError, ValueError):
        return None


def _file_system(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """The kind of file system that `path` is on, by the longest mount point above it."""
    resolved, best, kind = path.resolve(), "", ""
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return ""
    for line in lines:
        _device, point, found, *_ = line.split(" ")
        point = point.encode().decode("unicode_escape")
        if resolved.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, found
    return kind
