"""Commands about the installation: init, fetch-model, run, gc, config check.

Knows their arguments and what they print. Doesn't know how anything is done.
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from daemon import config_words, fetch
from daemon.commands_queue import reading
from daemon.commit import removable, tidy
from daemon.config import Config, load
from daemon.console import progress, show
from daemon.exposition import tls_context
from daemon.house import open_house, require_model, utc_now
from daemon.initialise import initialise, source_directory, was_initialised
from daemon.logs import quiet_log
from daemon.orders import require_state
from daemon.service import Service
from store.blobs import BlobStore
from store.errors import EXIT_FAILED, EXIT_OK, EXIT_PLAN_HAS_CHANGES, PalimpsestError
from store.generations import ModelStore
from store.lock import StateLock


def init(args: argparse.Namespace, config: Config) -> int:
    """Nothing is fetched for a state directory that was initialised before."""
    wanted = args.model or config.model.source
    source = None if wanted == "default" and was_initialised(config) else source_directory(wanted)
    with (
        StateLock(config.layout.state),
        open_house(config, log=quiet_log(config.logs)) as house,
        progress("init") as on_stage,
    ):
        result = initialise(house, source or Path(wanted), on_stage)
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


def run(args: argparse.Namespace, config: Config) -> int:
    """The log goes to stderr; stdout has nothing but, with --json, that it stopped as it should."""
    with StateLock(config.layout.state), open_house(config) as house:
        require_model(house)
        try:
            status = Service(house).run()
            show({"stopped": True}, "", as_json=args.json)
            return status
        except PalimpsestError:
            raise
        except Exception:
            return EXIT_FAILED  # logged already; the interpreter's own traceback would quote fact text


def gc(args: argparse.Namespace, config: Config) -> int:
    """Delete directories that the keep policy lets go and blobs that nothing refers to. With --dry-run say
    which, with exit status 2 when there are any."""
    require_state(config)
    if args.dry_run:
        with reading(config) as ledger:
            generations = removable(config, ledger, ModelStore(config.layout.model))
            blobs = BlobStore(config.layout.blobs).unreferenced(ledger.referenced_blobs())
        result: dict[str, Any] = {"generations": generations, "blobs": [path.name for path in blobs]}
    else:
        with (
            StateLock(config.layout.state),
            open_house(config, log=quiet_log(config.logs)) as house,
            progress("gc") as on_stage,
        ):
            require_model(house)
            on_stage("blobs and generations")
            gone = house.blobs.gc(house.ledger.referenced_blobs())
            result = {"generations": tidy(house), "blobs": gone}
    what = f"{len(result['generations'])} generations and {len(result['blobs'])} blobs"
    show(result, f"{what} {'would go' if args.dry_run else 'removed'}", as_json=args.json)
    return EXIT_PLAN_HAS_CHANGES if args.dry_run and any(result.values()) else EXIT_OK


def config_check(args: argparse.Namespace, config: Config) -> int:
    checked = load(args.file) if args.file else config
    tls_context(checked.metrics)  # the files it names are looked into
    lines = config_words.told(checked, utc_now())
    show(
        {"ok": True, "state_dir": str(checked.layout.state), "policies": [asdict(line) for line in lines]},
        f"the configuration is good\n\n{config_words.text(lines)}",
        as_json=args.json,
    )
    return EXIT_OK
