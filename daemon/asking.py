"""Asking a model by a one-shot worker, the served one or one of the past.

Knows which directory to ask, and writes a past generation again when its directory is gone. Needs no
lock and writes nothing that lasts.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from daemon.config import Config
from daemon.house import make_runner
from daemon.jobs import common
from daemon.runner import Runner
from store.blobs import BlobStore
from store.errors import GenerationError, UsageError
from store.generations import ModelStore, weights_sha256
from store.ledger import Ledger

OnStage = Callable[[str], None]


def ask_model(
    config: Config, prompts: Sequence[str], on_stage: OnStage, runner: Runner | None = None
) -> tuple[int, list[str]]:
    """The served model's number and its answers."""
    models = ModelStore(config.layout.model)
    number, directory = models.current_number(), models.current()
    return number, _ask(config, runner or make_runner(config), directory, prompts, on_stage)


def ask_generation(
    config: Config,
    prompts: Sequence[str],
    on_stage: OnStage,
    number: int | None,
    when: datetime | None,
    runner: Runner | None = None,
) -> tuple[int, list[str]]:
    """The answers of generation `number`, or of the one that was live at `when`."""
    runner = runner or make_runner(config)
    ledger = Ledger.open_readonly(config.layout.ledger)
    try:
        found = ledger.generation_as_of(when) if when is not None else ledger.generation(number or 0)
    finally:
        ledger.close()
    if found is None:
        raise UsageError("ask", str(when), "no generation was live then", "see `palimpsest history`")
    models = ModelStore(config.layout.model)
    if found.number in models.numbers():
        return found.number, _ask(config, runner, models.gen_dir(found.number), prompts, on_stage)
    if found.theta_blob is None:
        raise GenerationError("ask", f"generation {found.number}", "its vectors weren't kept")
    with tempfile.TemporaryDirectory(prefix=f"ask-{os.getpid()}-", dir=config.layout.run) as folder:
        staging = Path(folder) / "model"
        staging.mkdir()
        theta = BlobStore(config.layout.blobs).path(found.theta_blob)
        job = {**common(config, "materialize"), "theta": str(theta), "staging": str(staging), "out": folder}
        runner.run(job, _idle(on_stage))
        if weights_sha256(staging) != found.weights_sha256:
            raise GenerationError("ask", f"generation {found.number}", "the rebuilt weights differ")
        return found.number, _ask(config, runner, staging, prompts, on_stage)


def _ask(config: Config, runner: Runner, model: Path, prompts: Sequence[str], on_stage: OnStage) -> list[str]:
    job = {**common(config, "ask"), "model": str(model), "prompts": list(prompts)}
    return [str(answer) for answer in runner.run(job, _idle(on_stage))["answers"]]


def _idle(on_stage: OnStage) -> Callable[[str], str | None]:
    def idle(stage: str) -> None:
        on_stage(stage)

    return idle
