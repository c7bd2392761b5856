"""What the gauges show, read from the ledger and the disk.

Knows where each figure is. Doesn't know Prometheus.
"""

import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from daemon import capacity, control, waits
from daemon.chain import EVERY_SECONDS
from daemon.house import House
from daemon.metrics import Stage, Vitals
from daemon.publish import SERVED
from policies.gates import gates_for
from policies.sources import For
from store.errors import GenerationError
from store.facts import EditState, Op, Suite

_OPEN = (EditState.PENDING, EditState.EDITING, EditState.JUDGED)


def our_version() -> str:
    try:
        return version("palimpsest-daemon")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "unknown"


def describe(house: House) -> None:
    """Set the metrics that stay the same while the daemon runs."""
    config = house.config
    try:
        sha256 = str(house.models.manifest(0)["weights_sha256"])
    except GenerationError:
        sha256 = ""
    base = next(iter(house.ledger.generations()), None)
    house.metrics.describe(
        our_version(),
        config.model.name,
        sha256,
        gates_for(Op.UPSERT, config.gates),
        initialised=base.created_at.timestamp() if base else None,
        disk_needed_bytes=house.models.disk_needed(),
        periods={
            Stage.SCAN: config.inbox.rescan_seconds,
            Stage.BACKUP: config.backup.every_hours * 3600,
            Stage.REPROBE: config.daemon.reprobe_hours * 3600,
            Stage.AUDIT: EVERY_SECONDS,
        },
    )


def take_vitals(house: House) -> Vitals:
    ledger, now = house.ledger, house.now()
    states = ledger.state_counts()
    left, by_source = capacity.current(house), waits.current(house)
    due, hours = ledger.due_edits(now, limit=1000, without=by_source.edits), house.config.hours.resolved()
    by_hours = waits.count_by_hours(ledger, hours, now, by_source.edits)
    waiting = [edit.dropped_at for edit in due if edit.dropped_at and hours.let_start(edit.priority, now)]
    wal = house.layout.ledger.with_name(house.layout.ledger.name + "-wal")
    return Vitals(
        queue_depth=sum(states.get(state, 0) for state in _OPEN),
        oldest_pending_age=max((now - min(waiting)).total_seconds(), 0.0) if waiting else 0.0,
        held=states.get(EditState.HELD, 0),
        live_generation=house.live_number,
        served_generation=_served_generation(house),
        rollbacks=_rollbacks(house),
        paused_since=_paused_since(house),
        disk_free_bytes=shutil.disk_usage(house.layout.state).free,
        disk_full=house.room.lacking,
        ledger_bytes=_size(house.layout.ledger),
        wal_bytes=_size(wal),
        headroom=left.headroom,
        edits_left=left.edits_left,
        capacity_full=bool(left.waits),
        waiting={reason: by_source.count(reason) for reason in For} | {For.HOURS: by_hours},
        suites=_suites(house),
        last_success=_last_success(house),
    )


def _served_generation(house: House) -> int | None:
    """What the hooks last found; nothing is known without hooks."""
    found: int | None = house.ledger.get_setting(SERVED) if house.config.publish.hooks else None
    return found


def _rollbacks(house: House) -> int:
    newest = house.ledger.newest_switch()
    if newest not in house.rollbacks:
        house.rollbacks.clear()
        house.rollbacks[newest] = len(house.ledger.rollbacks())
    return house.rollbacks[newest]


def _paused_since(house: House) -> float | None:
    since = house.ledger.setting_changed_at(control.PAUSED) if control.is_paused(house) else None
    return since.timestamp() if since else None


def _suites(house: House) -> dict[Suite, float]:
    """What was read of the served weights; a suite that had nothing to measure has no value."""
    key = (house.live_number, house.ledger.newest_outcome())
    if key not in house.suites:
        house.suites.clear()
        readings = capacity.live_readings(house.ledger, house.config)
        house.suites[key] = {reading.suite: reading.value for reading in readings if reading.n}
    return house.suites[key]


def _last_success(house: House) -> dict[Stage, float]:
    """Of the stages that the ledger knows of, so that a restart forgets none."""
    times = {Stage(name): when for name, when in house.ledger.last_times().items()}
    for stage in (Stage.BACKUP, Stage.REPROBE):
        if last := control.last_run(house, stage.value):
            times[stage] = last
    return {stage: when.timestamp() for stage, when in times.items()}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
