"""Re-probe and backup: when each is due, and one try at it.

Knows the periods, when each last ran, and that both are heavy, so that they wait for the end of quiet hours
(`policies.cadence`). Doesn't know the queue. A try that fails isn't repeated before its period is over: what
keeps it from working mostly lasts, and every turn of the main loop would meet it.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from daemon import backups, control
from daemon.house import House
from daemon.rollback import REPROBE_WANTED, reprobe_live
from policies.cadence import Job, due
from store.errors import PalimpsestError
from store.trouble import Trouble, trouble_of

BACKUP, REPROBE = "backup", "reprobe"


class Periodic:
    """The periodic jobs of one process."""

    def __init__(self) -> None:
        self._tried: dict[str, datetime] = {}

    def run_due(self, house: House, idle: Callable[[str], str | None]) -> None:
        """Raises WorkerError or WorkerStopped for a re-probe that came to nothing."""
        now = house.now()
        for each in due(self._jobs(house), now, house.config.hours.resolved()):
            self._tried[each.job.name] = now
            if each.job.name == BACKUP:
                _back_up(house)
            else:
                _reprobe(house, idle)

    def _jobs(self, house: House) -> list[Job]:
        config = house.config
        hours = {BACKUP: config.backup.every_hours, REPROBE: config.daemon.reprobe_hours}
        last = {name: self._tried.get(name) or control.last_run(house, name) for name in hours}
        if REPROBE not in self._tried and house.ledger.get_setting(REPROBE_WANTED, False):
            last[REPROBE], hours[REPROBE] = None, hours[REPROBE] or 1.0  # owed, also where none is periodic
        return [Job(name, timedelta(hours=every), last[name], heavy=True) for name, every in hours.items()]


def _back_up(house: House) -> None:
    """A backup for which there is no room is no reason to stop editing."""
    try:
        backups.make(house)
    except (PalimpsestError, OSError) as error:
        if trouble_of(error) is not Trouble.FULL:
            raise
        house.log.error("backup.failed", cause=str(error))


def _reprobe(house: House, idle: Callable[[str], str | None]) -> None:
    now = house.now()
    broken = reprobe_live(house, idle)
    house.ledger.set_setting("last_reprobe", now.isoformat(), now=now)
    house.log.info("reprobe.done", requeued=broken)
