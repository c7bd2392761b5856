"""What the operator may set: one frozen value built from TOML, every fault reported at once.

Knows the keys, their defaults, bounds and the layout of the state directory. Doesn't know what
any part of the daemon does with them, and creates nothing on disk.
"""

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from daemon.layout import Layout
from daemon.tables import section
from policies.hours import Hours, stretch
from policies.recipe import RECIPES
from policies.retries import LADDER
from policies.sources import repeated
from store.errors import ConfigError
from store.facts import Priority, Suite
from store.toml import read_toml

GIB = 1024**3
T = TypeVar("T")


def _bounded(default: Any, low: float, high: float) -> Any:
    return field(default=default, metadata={"low": low, "high": high})


def is_loopback(host: str) -> bool:
    """Whether `host` can only be reached from this machine; a name but localhost may mean anything."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _choice(default: str | None, *allowed: str) -> Any:
    return field(default=default, metadata={"allowed": allowed})


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    state_dir: Path = Path("var")
    tick_seconds: float = _bounded(1.0, 0.05, 3600)
    stop_seconds: float = _bounded(9.0, 1.0, 3600)  # a daemon that isn't done stopping by then is killed
    reprobe_hours: float = _bounded(24.0, 0.0, 24 * 366)  # 0: never


@dataclass(frozen=True, slots=True)
class InboxSettings:
    settle_seconds: float = _bounded(2.0, 0.0, 3600)
    rescan_seconds: float = _bounded(30.0, 0.1, 86400)
    max_file_bytes: int = _bounded(64 * 1024**2, 1, 2 * GIB)
    partial: bool = False


@dataclass(frozen=True, slots=True)
class ModelSettings:
    name: str = field(default="SmolLM2-135M-Instruct", metadata={"plain_name": True})
    source: str = "default"
    dtype: str = _choice("float32", "float32", "bfloat16", "float16")
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class EditingSettings:
    recipe: str = _choice("default", *RECIPES)
    deadline_seconds: float = _bounded(1800.0, 0.1, 7 * 86400)
    heartbeat_seconds: float = _bounded(600.0, 0.1, 86400)
    memory_limit_bytes: int = _bounded(12 * GIB, 0, 2**50)  # 0: no cap
    batch_size: int = _bounded(1, 1, 64)


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """What becomes of an edit that didn't make it (`policies.retries`). `recipes` are tried in turn after
    `[editing] recipe` when gates refuse; the waits are those after a breakdown."""

    attempts: int = _bounded(3, 1, 20)
    first_wait_seconds: float = _bounded(30.0, 0.0, 86400)
    longest_wait_seconds: float = _bounded(3600.0, 0.0, 7 * 86400)
    recipes: tuple[str, ...] = LADDER[1:]

    def faults(self) -> Iterator[str]:
        if self.longest_wait_seconds < self.first_wait_seconds:
            yield f"longest_wait_seconds: {self.longest_wait_seconds:g} is less than first_wait_seconds"
        for at, name in enumerate(self.recipes):
            if name == LADDER[0]:
                yield f"recipes[{at}]: {name!r} means [editing] recipe here, which comes first anyway"
            elif name not in RECIPES:
                yield f"recipes[{at}]: {name!r} is none of {', '.join(sorted(RECIPES))}"
            elif name in self.recipes[:at]:
                yield f"recipes[{at}]: {name!r} is there twice"


@dataclass(frozen=True, slots=True)
class HoursSettings:
    """When edits are started and heavy jobs run (`policies.hours`). Times of day in `zone`, an IANA name."""

    quiet: tuple[str, ...] = ()
    windows: tuple[str, ...] = ()
    zone: str = "UTC"
    high_priority_passes: bool = False

    def resolved(self) -> Hours:
        """Raises ValueError for what `faults` reports."""
        quiet, windows = (tuple(map(stretch, texts)) for texts in (self.quiet, self.windows))
        return Hours(quiet, windows, _zone(self.zone), self.high_priority_passes)

    def faults(self) -> list[str]:
        found = [f"zone: {fault}" for fault in _refused(_zone, self.zone)]
        for key, texts in (("quiet", self.quiet), ("windows", self.windows)):
            found += (
                f"{key}[{at}]: {fault}" for at, text in enumerate(texts) for fault in _refused(stretch, text)
            )
        return found or _refused(HoursSettings.resolved, self)


def _zone(name: str) -> tzinfo:
    """Raises ValueError for a name that isn't known; UTC needs no file of the system's."""
    try:
        return UTC if name == "UTC" else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        hint = "a name like Europe/Athens is wanted; Debian has them in the package tzdata"
        raise ValueError(f"{name!r} is no time zone known here: {hint}") from None


def _refused(make: Callable[[T], object], given: T) -> list[str]:
    try:
        make(given)
    except ValueError as error:
        return [str(error)]
    return []


@dataclass(frozen=True, slots=True)
class GateOverride:
    threshold: float | None = _bounded(None, 0.0, 1e6)
    min_n: int | None = _bounded(None, 1, 10**6)


@dataclass(frozen=True, slots=True)
class CapacitySettings:
    """`reserve` is a share of the loss that the gates allow: with less of it left, edits wait."""

    enforce: bool = True
    reserve: float = _bounded(0.05, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """What a source may state and how fast; what is left out is the default source's (`policies.sources`)."""

    relations: tuple[str, ...] | None = None
    subjects: tuple[str, ...] | None = None
    owners: tuple[str, ...] | None = None
    prompts: bool | None = None
    max_priority: str | None = _choice(None, *Priority)
    max_edits_per_hour: int | None = _bounded(None, 0, 10**6)  # 0: any number
    require_approval: bool | None = None
    wide_change: int | None = _bounded(None, 0, 10**6)  # 0: never
    approvals: int | None = _bounded(None, 1, 10)


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """The control socket in the state's run directory; off, nothing listens there."""

    enabled: bool = True


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """Off loopback only with TLS, and only for clients with a certificate that `client_ca` signed."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = _bounded(9464, 0, 65535)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    client_ca: Path | None = None

    @property
    def secured(self) -> bool:
        return all(self._tls().values())

    def faults(self) -> Iterator[str]:
        missing = [name for name, path in self._tls().items() if path is None]
        if missing and len(missing) < len(self._tls()):
            yield f"{', '.join(missing)}: missing; tls_cert, tls_key and client_ca go together"
        elif missing and not is_loopback(self.host):
            yield f"host: {self.host!r} is off loopback, which needs {', '.join(missing)}"

    def _tls(self) -> dict[str, Path | None]:
        return {"tls_cert": self.tls_cert, "tls_key": self.tls_key, "client_ca": self.client_ca}


@dataclass(frozen=True, slots=True)
class LogSettings:
    level: str = _choice("info", "debug", "info", "warning", "error")
    fact_text: bool = False


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    keep: int = _bounded(10, 2, 10**6)


@dataclass(frozen=True, slots=True)
class BackupSettings:
    every_hours: float = _bounded(24.0, 0.0, 24 * 366)  # 0: never
    keep: int = _bounded(7, 1, 10**4)


@dataclass(frozen=True, slots=True)
class Hook:
    """One command run after `current` moved: argv without a shell, JSON on its stdin."""

    argv: tuple[str, ...] = field(metadata={"non_empty": True})
    timeout: float = _bounded(30.0, 0.1, 3600)
    retries: int = _bounded(2, 0, 20)


@dataclass(frozen=True, slots=True)
class PublishSettings:
    hooks: tuple[Hook, ...] = ()


@dataclass(frozen=True, slots=True)
class SnapshotSettings:
    retract_missing: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    daemon: DaemonSettings = DaemonSettings()
    inbox: InboxSettings = InboxSettings()
    model: ModelSettings = ModelSettings()
    editing: EditingSettings = EditingSettings()
    retries: RetrySettings = RetrySettings()
    hours: HoursSettings = HoursSettings()
    gates: Mapping[str, GateOverride] = field(default_factory=dict, metadata={"keys": tuple(map(str, Suite))})
    capacity: CapacitySettings = CapacitySettings()
    sources: Mapping[str, SourceSettings] = field(default_factory=dict)
    control: ControlSettings = ControlSettings()
    metrics: MetricsSettings = MetricsSettings()
    logs: LogSettings = LogSettings()
    generations: GenerationSettings = GenerationSettings()
    backup: BackupSettings = BackupSettings()
    publish: PublishSettings = PublishSettings()
    snapshots: SnapshotSettings = SnapshotSettings()

    @property
    def layout(self) -> Layout:
        return Layout(self.daemon.state_dir.absolute(), self.model.name)


def load(path: Path | None, state_dir: Path | None = None) -> Config:
    """Read `path` (defaults when None); `state_dir` overrides the file's. Raises ConfigError."""
    config = Config() if path is None else parse(_read(path), str(path))
    if state_dir is not None:
        config = replace(config, daemon=replace(config.daemon, state_dir=state_dir))
    return config


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("read configuration", str(path), str(error)) from error


def parse(text: str, name: str) -> Config:
    """Config from TOML text; raises one ConfigError whose cause lists every fault, one a line."""
    try:
        raw = read_toml(text)
    except ValueError as error:
        raise ConfigError("parse configuration", name, str(error)) from error
    faults: list[str] = []
    config = section(Config, raw, "", faults)
    if config is not None:
        faults.extend(f"sources.{name}: the same source as another one" for name in repeated(config.sources))
    if faults:
        raise ConfigError(
            "check configuration",
            name,
            "\n".join(faults),
            "every fault found is listed; fix them all, then run `palimpsest config check`",
        )
    assert config is not None
    return config
