"""Commands about the installation: init, fetch-model, run, backup, verify, doctor, gc, config check.

Knows their arguments and what they print. Doesn't know how anything is done.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

from daemon import control, fetch
from daemon.commit import removable, tidy
from daemon.config import Config, load
from daemon.console import progress, show, table
from daemon.exposition import tls_context
from daemon.house import open_house, require_model
from daemon.initialise import initialise, source_directory
from daemon.logs import quiet_log
from daemon.orders import require_state
from daemon.service import Service
from store.blobs import BlobStore
from store.errors import EXIT_OK, EXIT_PLAN_HAS_CHANGES, PalimpsestError
from store.generations import ModelStore
from store.ledger import Ledger
from store.lock import StateLock

EXIT_FAULTS = 1


def init(args: argparse.Namespace, config: Config) -> int:
    source = source_directory(args.model or config.model.source)
    with (
        StateLock(config.layout.state),
        open_house(config, log=quiet_log(config.logs)) as house,
        progress("init") as on_stage,
    ):
        result = initialise(house, source, on_stage)
    done = "was initialised before" if result["already"] else f"initialised from {source}"
    sha256 = result["weights_sha256"]
    show(
        {"state": str(config.layout.state), **result},
        f"{config.layout.state} {done}\nweights {sha256}",
        as_json=args.json,
    )
    return EXIT_OK


def fetch_model(args: argparse.Namespace, _config: Config) -> int:
    path = fetch.default_model()
    show({"path": str(path)}, str(path), as_json=args.json)
    return EXIT_OK


def run(_args: argparse.Namespace, config: Config) -> int:
    with StateLock(config.layout.state), open_house(config) as house:
        require_model(house)
        return Service(house).run()


def backup(args: argparse.Namespace, config: Config) -> int:
    require_state(config)
    with open_house(config, log=quiet_log(config.logs)) as house:
        path = house.layout.backups / control.backup(house)
    show({"path": str(path)}, str(path), as_json=args.json)
    return EXIT_OK


def verify(args: argparse.Namespace, config: Config) -> int:
    """Read every byte of ledger, generations and blobs; exit status 1 when something is wrong."""
    require_state(config)
    ledger = Ledger.open_readonly(config.layout.ledger)
    models, blobs = ModelStore(config.layout.model), BlobStore(config.layout.blobs)
    try:
        faults = [f"ledger: {fault}" for fault in ledger.integrity()]
        faults += [f"generation {n}: {fault}" for n in models.numbers() for fault in models.verify(n)]
        faults += _blob_faults(blobs, ledger.referenced_blobs())
        live = ledger.live_generation()
        if live is not None and models.current_number() != live.number:
            faults.append(
                f"current shows generation {models.current_number()}, the ledger says {live.number}"
            )
    finally:
        ledger.close()
    show({"faults": faults}, "\n".join(faults) or "no faults found", as_json=args.json)
    return EXIT_FAULTS if faults else EXIT_OK


def _blob_faults(blobs: BlobStore, wanted: set[str]) -> list[str]:
    faults = []
    for sha256 in sorted(wanted):
        try:
            blobs.get(sha256)
        except PalimpsestError as error:
            faults.append(f"blob {sha256[:12]}: {error.cause}")
    return faults


def doctor(args: argparse.Namespace, config: Config) -> int:
    """Quick looks at what usually is wrong; exit status 1 when something is."""
    checks = list(_checks(config))
    rows = [("ok" if ok else "BAD", name, text) for name, ok, text in checks]
    show(
        [{"check": name, "ok": ok, "detail": text} for name, ok, text in checks],
        table(("", "check", "detail"), rows),
        as_json=args.json,
    )
    return EXIT_OK if all(ok for _, ok, _ in checks) else EXIT_FAULTS


def _checks(config: Config) -> list[tuple[str, bool, str]]:
    layout = config.layout
    holder = StateLock(layout.state).holder() if layout.state.is_dir() else None
    free = shutil.disk_usage(layout.state if layout.state.is_dir() else Path()).free
    models = ModelStore(layout.model)
    sealed = 0 in models.numbers()
    inbox = len(list(layout.inbox.iterdir())) if layout.inbox.is_dir() else 0
    failed = len(list(layout.failed.glob("*.error.json"))) if layout.failed.is_dir() else 0
    return [
        ("state directory", layout.ledger.is_file(), str(layout.state)),
        ("model", sealed, f"{layout.model_name} {'is' if sealed else 'was not'} initialised"),
        ("daemon", holder is not None, f"process {holder}" if holder is not None else "isn't running"),
        ("disk", not sealed or models.has_room(), f"{free / 1e9:.1f} GB free"),
        ("inbox", inbox == 0 or holder is not None, f"{inbox} entries wait"),
        ("refused files", failed == 0, f"{failed} in {layout.failed}"),
    ]


def gc(args: argparse.Namespace, config: Config) -> int:
    """Delete directories that the keep policy lets go and blobs that nothing refers to. With --dry-run say
    which, with exit status 2 when there are any."""
    require_state(config)
    if args.dry_run:
        ledger = Ledger.open_readonly(config.layout.ledger)
        try:
            generations = removable(config, ledger, ModelStore(config.layout.model))
            blobs = BlobStore(config.layout.blobs).unreferenced(ledger.referenced_blobs())
        finally:
            ledger.close()
        result: dict[str, Any] = {"generations": generations, "blobs": [path.name for path in blobs]}
    else:
        with StateLock(config.layout.state), open_house(config, log=quiet_log(config.logs)) as house:
            require_model(house)
            gone = house.blobs.gc(house.ledger.referenced_blobs())
            result = {"generations": tidy(house), "blobs": gone}
    what = f"{len(result['generations'])} generations and {len(result['blobs'])} blobs"
    show(result, f"{what} {'would go' if args.dry_run else 'removed'}", as_json=args.json)
    return EXIT_PLAN_HAS_CHANGES if args.dry_run and any(result.values()) else EXIT_OK


def config_check(args: argparse.Namespace, config: Config) -> int:
    checked = load(args.file) if args.file else config
    tls_context(checked.metrics)  # the files it names are looked into
    limits = checked.capacity
    when = f"below a headroom of {limits.reserve:g}" if limits.enforce else "never"
    show(
        {
            "ok": True,
            "state_dir": str(checked.layout.state),
            "capacity": {"enforce": limits.enforce, "reserve": limits.reserve},
        },
        f"the configuration is good\nedits wait for capacity: {when}",
        as_json=args.json,
    )
    return EXIT_OK
