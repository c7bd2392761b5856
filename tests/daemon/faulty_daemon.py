"""A real daemon process with the fake worker, whose surroundings fail when a file in its run/ says so.

    python -m tests.daemon.faulty_daemon STATE [SCRIPT]

`kill-observer` ends every thread that watches the inbox, `clock-back` sets every clock but the monotonic
one back by an hour. With `deaf` in the state directory at the start, the inbox isn't watched at all; with
`eio`, which holds a kind and a number, that call fails.
"""

import json
import sys
import threading
import time
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import apscheduler.schedulers.base
from watchdog.utils import BaseThread

import daemon.service
from daemon.fakes import FakeRunner
from daemon.house import open_house, utc_now
from daemon.initialise import initialise
from daemon.runner import never
from store.errors import PalimpsestError
from store.lock import StateLock
from tests.daemon.fake_daemon import BASE, make_config
from tests.daemon.faulty import DeafWatcher, FaultyDisk


class Shift:
    """How far the clocks are off."""

    by = timedelta()


class ShiftedTime(datetime):
    """The scheduler's clock."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Any:
        return datetime.now(tz) + Shift.by


def obey(run: Path) -> None:
    """Look for orders, for ever."""
    while True:
        if (run / "kill-observer").exists():
            for thread in threading.enumerate():
                if isinstance(thread, BaseThread):
                    thread.stop()
            (run / "kill-observer").unlink()
        if (run / "clock-back").exists():
            Shift.by = timedelta(hours=-1)
            (run / "clock-back").unlink()
        time.sleep(0.01)


def main(state: Path, script: dict[str, Any]) -> int:
    config = make_config(state)
    apscheduler.schedulers.base.datetime = ShiftedTime
    if (state / "deaf").exists():
        vars(daemon.service)["Watcher"] = DeafWatcher
    runner = FakeRunner(base=BASE, script=script)
    given = (state / "eio").read_text().split() if (state / "eio").exists() else ["none", "1"]
    with (
        FaultyDisk(frozenset(given[:1]), int(given[1])).plugged_in(),
        StateLock(config.layout.state),
        open_house(config, runner=runner, now=lambda: utc_now() + Shift.by) as house,
    ):
        threading.Thread(target=obey, args=[config.layout.run], daemon=True).start()
        initialise(house, Path("fake"), never)
        return daemon.service.Service(house).run()


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1]), json.loads(sys.argv[2]) if sys.argv[2:] else {}))
    except PalimpsestError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
