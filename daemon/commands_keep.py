"""Commands that keep a state directory safe: verify, doctor, backup, restore.

Knows their arguments and what they print. Doesn't know how anything is checked or copied.
"""

import argparse
from textwrap import wrap

from daemon import backups, doctor, verifying
from daemon.config import Config, load
from daemon.console import WIDTH, progress, show
from daemon.house import open_house
from daemon.initialise import source_directory
from daemon.logs import quiet_log
from daemon.orders import require_state
from daemon.tones import word
from store.errors import EXIT_FAILED, EXIT_OK


def verify(args: argparse.Namespace, config: Config) -> int:
    """Read every byte of ledger, generations, blobs, files and backups; exit status 1 when one is wrong."""
    require_state(config)
    with progress("verify") as on_stage:
        faults = verifying.verify(config, on_stage)
    first = f"{len(faults)} faults; the first: {faults[0].where}" if faults else "no faults found"
    lines = [first, *(_told(f"{f.where}: {f.cause}", f.hint) for f in faults)]
    value = [{"where": f.where, "cause": f.cause, "hint": f.hint} for f in faults]
    show({"ok": not faults, "faults": value}, "\n".join(lines), as_json=args.json)
    return EXIT_FAILED if faults else EXIT_OK


def examine(args: argparse.Namespace, config: Config) -> int:
    """Look for what usually is wrong; exit status 1 when a problem is found, warnings don't count."""
    found = doctor.examine(config)
    lines = [
        word(f.level) + _told(f"{f.level:8} {f.check}: {f.detail}", f.hint).removeprefix(f.level)
        for f in found
    ]
    value = [{"check": f.check, "level": f.level, "detail": f.detail, "hint": f.hint} for f in found]
    show(value, "\n".join(lines), as_json=args.json)
    return EXIT_FAILED if any(f.level == doctor.PROBLEM for f in found) else EXIT_OK


def _told(text: str, hint: str) -> str:
    """What is so and, below it, what to do; wrapped."""
    lines = wrap(text, WIDTH, subsequent_indent=" " * 9)
    return "\n".join(
        lines + (wrap(hint, WIDTH, initial_indent=" " * 9, subsequent_indent=" " * 9) if hint else [])
    )


def backup(args: argparse.Namespace, config: Config) -> int:
    """Write and verify one backup."""
    require_state(config)
    with open_house(config, log=quiet_log(config.logs)) as house, progress("backup") as on_stage:
        path = backups.make(house, args.to and args.to.absolute(), on_stage)
    show({"path": str(path)}, str(path), as_json=args.json)
    return EXIT_OK


def restore(args: argparse.Namespace, config: Config) -> int:
    """Make the state directory again from a backup and the base model."""
    place, kept = args.backup.absolute(), args.backup / backups.CONFIG
    if args.config is None and not (config.layout.state / backups.CONFIG).exists() and kept.is_file():
        config = load(kept, config.daemon.state_dir)  # what the restored daemon will read
    source = source_directory(args.model or config.model.source)
    with progress("restore") as on_stage:
        result = backups.restore(config, place, source, replace=args.replace, idle=on_stage)
    lines = [
        f"{config.layout.state} is as it was at {result['made'][:19]}",
        f"generation {result['live_generation']} is live, weights {result['weights_sha256']}",
    ]
    lines += [f"what was there is in {result['set_aside']}"] if result["set_aside"] else []
    show(result, "\n".join(lines), as_json=args.json)
    return EXIT_OK
