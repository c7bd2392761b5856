"""A real daemon process whose worker is the fake one.

    python -m tests.daemon.fake_daemon STATE [SCRIPT [RETENTION]]

SCRIPT and RETENTION are the fake runner's, as JSON. STATE/config.toml may hold further settings, STATE/ahead
how many seconds its clock is ahead of ours. Initialises the state directory when it isn't.
"""

import json
import os
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from daemon.config import BackupSettings, Config, DaemonSettings, InboxSettings, MetricsSettings, load
from daemon.fakes import FakeRunner
from daemon.house import open_house, utc_now
from daemon.initialise import initialise
from daemon.runner import never
from daemon.service import Service
from store import failpoints
from store.errors import PalimpsestError
from store.lock import StateLock

BASE = {"France": "Paris", "South Korea": "Seoul", "Japan": "Tokyo", "Betelgeuse": "Centaurus"}


def make_config(state: Path) -> Config:
    given = state / "config.toml"
    return replace(
        load(given if given.is_file() else None),
        daemon=DaemonSettings(state_dir=state, tick_seconds=0.1, stop_seconds=2),
        inbox=InboxSettings(settle_seconds=0.2, rescan_seconds=0.5),
        metrics=MetricsSettings(port=0),
        backup=BackupSettings(every_hours=0),
    )


def clock(ahead: Path) -> datetime:
    """The time, and what the file says on top of it."""
    return utc_now() + timedelta(seconds=float(ahead.read_text()) if ahead.exists() else 0)


def main(state: Path, script: dict[str, str | list[str]], retention: list[float]) -> int:
    config = make_config(state)
    runner = FakeRunner(base=BASE, script=script, retention=retention)
    with (
        StateLock(config.layout.state),
        open_house(config, runner=runner, now=lambda: clock(state / "ahead")) as house,
    ):
        initialise(house, Path("fake"), never)
        status = Service(house).run()
    print("torch" in sys.modules, file=sys.stderr)
    return status


if __name__ == "__main__":
    try:
        failpoints.arm(os.environ)
        given = [json.loads(argument) for argument in sys.argv[2:]]
        sys.exit(main(Path(sys.argv[1]), *given, *({}, [])[len(given) :]))
    except PalimpsestError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
