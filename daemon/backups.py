"""Backups that a whole state directory can be made from again, and making it again.

    backups/20260131T120000Z/  ledger.sqlite  blobs/  relations/  config.toml  manifest.json

Knows what can't be had from elsewhere: the ledger, the vectors that it names, the operator's own files. The
base comes from its source, generations are folded from it again. Doesn't know when a backup is due.
"""

import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from daemon.config import Config
from daemon.house import House, open_house
from daemon.initialise import build_base
from daemon.logs import quiet_log
from daemon.recovery import recover
from daemon.rollback import restore as rebuild
from daemon.runner import Runner, never
from store.blobs import BlobStore
from store.disk import fsync_dir, make_dirs, write_atomic
from store.errors import GenerationError, UsageError
from store.failpoints import reach
from store.generations import ModelStore
from store.ledger import Ledger
from store.lock import StateLock
from store.manifest import MANIFEST, differences, read_manifest, seal

LEDGER, BLOBS, RELATIONS, CONFIG = "ledger.sqlite", "blobs", "relations", "config.toml"
KEPT = frozenset({"lock", "backups", "replaced"})  # what a restore leaves where it is

Idle = Callable[[str], str | None]
OnStage = Callable[[str], None]


def make(house: House, to: Path | None = None, on_stage: OnStage = lambda _stage: None) -> Path:
    """Write one backup below `to` (default: backups/), verify it, let the oldest ones go; returns its folder.

    What is written appears by one rename. Raises GenerationError when its bytes can't be read back.
    """
    now, parent = house.now(), to or house.layout.backups
    make_dirs(parent)
    target = _free(parent, f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}")
    staging = parent / f".{target.name}.tmp"
    _sweep(parent)
    staging.mkdir()
    try:
        _fill(house, staging, newest(parent), on_stage)
        fields = {"model": house.config.model.name, "made": now.isoformat(), "live": house.live_number}
        on_stage("verifying")
        seal(staging, fields, weights=False)
        if faults := differences(staging):
            raise GenerationError("back up", str(target), faults[0], "check the disk, then try again")
        reach("backup.sealed")
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    fsync_dir(parent)
    reach("backup.named")
    house.ledger.set_setting("last_backup", now.isoformat(), now=now)
    reach("backup.noted")
    for old in every(parent)[: -house.config.backup.keep]:
        (old / MANIFEST).unlink()  # from here on it is no backup
    _sweep(parent)
    _let_copies_go(house.layout.backups, every(parent), house.config.backup.keep)
    house.log.info("backup.done", name=target.name)
    return target


def _sweep(parent: Path) -> None:
    """Remove what was cut off while it was made or removed: the manifest is there last and goes first."""
    for path in (*parent.glob(".[0-9]*Z*.tmp"), *parent.glob("[0-9]*T[0-9]*Z*")):
        if path.name.startswith(".") or not (path / MANIFEST).exists():
            shutil.rmtree(path)


def _let_copies_go(folder: Path, kept: list[Path], keep: int) -> None:
    """Remove the ledger's copies of before a migration, and those that older versions made, once there are
    `keep` whole backups and all are newer."""
    if len(kept) < keep:
        return
    oldest = (kept[0] / MANIFEST).stat().st_mtime
    for path in (*folder.glob("before-*.sqlite"), *folder.glob("ledger-*.sqlite")):
        if path.stat().st_mtime < oldest:
            path.unlink()


def every(parent: Path) -> list[Path]:
    """The backups in a folder, oldest first."""
    return sorted(path.parent for path in parent.glob(f"[0-9]*/{MANIFEST}"))


def newest(parent: Path) -> Path | None:
    return next(reversed(every(parent)), None)


def _free(parent: Path, name: str) -> Path:
    """`name`, or the first `name-2`, `name-3`, ... that isn't taken: two in one second are two."""
    count, path = 1, parent / name
    while path.exists():
        count += 1
        path = parent / f"{name}-{count}"
    return path


def _fill(house: House, staging: Path, before: Path | None, on_stage: OnStage) -> None:
    """The ledger first: the blobs that this very copy names are what has to be with it."""
    on_stage("ledger")
    house.ledger.backup(staging / LEDGER)
    with Ledger.open_readonly(staging / LEDGER) as copy:
        wanted = sorted(copy.referenced_blobs())
    for name in (f"{LEDGER}-wal", f"{LEDGER}-shm"):
        (staging / name).unlink(missing_ok=True)
    blobs = BlobStore(staging / BLOBS)
    old = None if before is None else BlobStore(before / BLOBS)
    for count, sha256 in enumerate(wanted):
        on_stage(f"vectors: {count}/{len(wanted)}")
        # Backups share blobs with each other, never with what they protect.
        if old is not None and old.has(sha256):
            make_dirs(blobs.path(sha256).parent)
            os.link(old.path(sha256), blobs.path(sha256))
        else:
            blobs.put(house.blobs.get(sha256))
    (staging / RELATIONS).mkdir()
    for path in sorted(house.layout.relations.glob("*.toml")):
        shutil.copyfile(path, staging / RELATIONS / path.name)
    config = house.layout.state / CONFIG
    if config.is_file():
        shutil.copyfile(config, staging / CONFIG)


def restore(
    config: Config,
    backup: Path,
    source: Path,
    *,
    replace: bool = False,
    idle: Idle = never,
    runner: Runner | None = None,
) -> dict[str, Any]:
    """Make the state directory of `config` from a backup and the base's `source`; the live generation is
    folded again and must have the very bytes that it had.

    A state directory that holds a ledger is refused, or with `replace` moved into `replaced/`. The ledger
    comes last: cut off, this can simply be run again. Raises UsageError, GenerationError when bytes differ.
    """
    manifest = _checked(config, backup)
    layout = config.layout
    with StateLock(layout.state):
        aside = _set_aside(config, replace=replace)
        layout.create()
        with Ledger.open_readonly(backup / LEDGER) as ledger:
            base, wanted = ledger.generation(0), sorted(ledger.referenced_blobs())
        old, blobs = BlobStore(backup / BLOBS), BlobStore(layout.blobs)
        for sha256 in wanted:
            blobs.put(old.get(sha256))
        for path in sorted((backup / RELATIONS).glob("*.toml")):
            write_atomic(layout.relations / path.name, path.read_bytes())
        if (backup / CONFIG).is_file() and not (layout.state / CONFIG).exists():
            write_atomic(layout.state / CONFIG, (backup / CONFIG).read_bytes())
        made = build_base(config, ModelStore(layout.model), source, idle, runner)
        if made["weights_sha256"] != base.weights_sha256:
            hint = "give the model that this state directory was made from with --model"
            cause = f"its weights are {made['weights_sha256'][:12]}, not {base.weights_sha256[:12]}"
            raise GenerationError("restore", str(source), cause, hint)
        write_atomic(layout.ledger, (backup / LEDGER).read_bytes())
        layout.ledger.chmod(0o600)
        with open_house(config, runner=runner, log=quiet_log(config.logs)) as house:
            live = house.live_number
            if live:
                rebuild(house, live, idle)
            house.models.promote(live)
            recover(house)
            sha256 = house.ledger.generation(live).weights_sha256
    return {
        "backup": str(backup),
        "made": manifest["made"],
        "live_generation": live,
        "weights_sha256": sha256,
        "set_aside": aside and str(aside),
    }


def _checked(config: Config, backup: Path) -> dict[str, Any]:
    """The manifest of a backup that is whole and of this model."""
    if not (backup / MANIFEST).is_file():
        raise UsageError("restore", str(backup), "it isn't a backup", "give one of the folders in backups/")
    if faults := differences(backup):
        raise GenerationError("restore", str(backup), faults[0], "use another backup")
    manifest = read_manifest(backup)
    if manifest.get("model") != config.model.name:
        cause = f"it is of the model {manifest.get('model')}, the configuration says {config.model.name}"
        raise UsageError("restore", str(backup), cause, "set [model] name, or give --config")
    return manifest


def _set_aside(config: Config, *, replace: bool) -> Path | None:
    """Empty the state directory for what comes; nothing of it is deleted."""
    state = config.layout.state
    if not config.layout.ledger.exists():
        return None
    if not replace:
        hint = "give another --state, or --replace to move what is there into replaced/"
        raise UsageError("restore", str(state), "there is a ledger in it", hint)
    aside = _free(state / "replaced", f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    make_dirs(aside)
    for path in sorted(
        state.iterdir(), key=lambda p: p.name != LEDGER
    ):  # without a ledger it can be run again
        if path.name not in KEPT:
            path.rename(aside / path.name)
    return aside
