"""A state directory from a model: split the base, measure what it knows, seal it as generation 0.

Knows the order and that doing it again is free. Doesn't know what is measured: that is a job of the
worker child.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from daemon import fetch
from daemon.config import Config
from daemon.house import House, make_runner
from daemon.runner import Runner
from store.errors import GenerationError, PalimpsestError, UsageError
from store.facts import Generation
from store.failpoints import reach
from store.generations import ModelStore
from store.ledger import Ledger


def is_initialised(house: House) -> bool:
    return house.ledger.live_generation() is not None and 0 in house.models.numbers()


def was_initialised(config: Config) -> bool:
    """The same of a state directory that isn't opened; False when it can't be told."""
    try:
        with Ledger.open_readonly(config.layout.ledger) as ledger:
            live = ledger.live_generation()
    except PalimpsestError:
        return False
    return live is not None and 0 in ModelStore(config.layout.model).numbers()


def source_directory(source: str) -> Path:
    """The model to start from; fetches the default one. Raises UsageError when it isn't a model."""
    if source == "default":
        return fetch.default_model()
    path = Path(source).expanduser().absolute()
    if not (path / "config.json").is_file():
        hint = 'give a local Hugging Face directory with safetensors weights, or "default"'
        raise UsageError("initialise", source, "there is no config.json in it", hint)
    return path


def initialise(house: House, source: Path, idle: Callable[[str], str | None]) -> dict[str, Any]:
    """Make `source` generation 0 of this state directory. Does nothing when that was done before.

    The caller holds the state directory's lock.
    """
    if is_initialised(house):
        return {"already": True, "weights_sha256": house.ledger.generation(0).weights_sha256}
    manifest = build_base(house.config, house.models, source, idle, house.runner)
    sha256, found, now = str(manifest["weights_sha256"]), manifest["init"], house.now()
    reach("init.sealed")
    house.models.promote(0)
    reach("init.promoted")
    house.ledger.insert_generation(Generation(0, None, "live", sha256, None, (), now, "the base"), now)
    house.log.info("model.initialised", model=house.config.model.name, weights_sha256=sha256, found=found)
    return {"already": False, "weights_sha256": sha256, **found}


def build_base(
    config: Config,
    models: ModelStore,
    source: Path,
    idle: Callable[[str], str | None],
    runner: Runner | None = None,
) -> dict[str, Any]:
    """Make `base/` and the bank from `source`, sealed; returns its manifest. What was there goes."""
    base = models.base_dir.absolute()
    if base.exists():  # what an interrupted init left; it has no manifest or no row
        shutil.rmtree(base)
    job = {
        "kind": "init",
        "source": str(source),
        "base": str(base),
        "cache": str(config.layout.cache),
        "shared": str(fetch.cache_home() / "banks"),
        "dtype": config.model.dtype,
        "device": config.model.device,
    }
    found = (runner or make_runner(config)).run(job, idle)
    if not (base / "config.json").is_file():
        raise GenerationError("initialise", str(base), "the worker left no model")
    reach("init.written")
    return models.seal_base({"source": source.name, "init": found})
