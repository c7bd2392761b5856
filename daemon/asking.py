"""Asking a model by a one-shot worker, the served one or one of the past; comparing two of them.

Knows which directory to ask, and writes a past generation again when its directory is gone. Needs no
lock; of the state directory nothing is changed.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from daemon.config import Config
from daemon.house import make_runner, operator_relations
from daemon.jobs import common
from daemon.runner import Runner
from policies.relations import load_relations, relation_for, request_for, shown_wording
from store.blobs import BlobStore
from store.disk import fsync_dir
from store.errors import GenerationError, UsageError
from store.facts import Generation
from store.generations import ModelStore, weights_sha256
from store.ledger import Ledger

OnStage = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Difference:
    """A prompt that two generations answer differently; `about` is "fact" or "probe"."""

    about: str
    prompt: str
    one: str
    other: str


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
    found = find_generation(config, number, when)
    with directory_of(config, found, on_stage, runner) as directory:
        return found.number, _ask(config, runner, directory, prompts, on_stage)


def differences(
    config: Config, one: int, other: int, on_stage: OnStage, runner: Runner | None = None
) -> tuple[int, list[Difference]]:
    """How many prompts two generations were asked, and those whose answers differ: every fact that an edit
    in either is about, and the questions that the base answers and no edit was trained on."""
    runner = runner or make_runner(config)
    first, second = find_generation(config, one, None), find_generation(config, other, None)
    facts, probes = _fact_prompts(config, (first, second)), _probe_prompts(config)
    prompts = list(dict.fromkeys([*facts, *probes]))
    said = []
    for generation in (first, second):
        with directory_of(config, generation, on_stage, runner) as directory:
            said.append(_ask(config, runner, directory, prompts, on_stage))
    return len(prompts), [
        Difference("fact" if prompt in facts else "probe", prompt, a, b)
        for prompt, a, b in zip(prompts, *said, strict=True)
        if a != b
    ]


def materialize(
    config: Config, found: Generation, to: Path, on_stage: OnStage, runner: Runner | None = None
) -> None:
    """Write a generation as a plain Hugging Face directory `to`, bit for bit as it was served. Raises
    UsageError when `to` exists already."""
    if to.exists() or to.is_symlink():
        raise UsageError("materialize", str(to), "it exists already", "give a new directory")
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{to.name}.", dir=to.parent) as folder:
        staging = Path(folder) / "model"
        _rebuild(config, found, staging, on_stage, runner or make_runner(config))
        for path in sorted(p for p in staging.rglob("*") if p.is_file() and p.stat().st_nlink > 1):
            own = path.with_name(f"{path.name}.own")  # shared with the base, which nobody may write into
            shutil.copyfile(path, own)
            own.replace(path)
        staging.rename(to)
    fsync_dir(to.parent)


def find_generation(config: Config, number: int | None, when: datetime | None) -> Generation:
    """Generation `number`, or the one that was live at `when`; raises when there is none."""
    with Ledger.open_readonly(config.layout.ledger) as ledger:
        found = ledger.generation_as_of(when) if when is not None else ledger.generation(number or 0)
    if found is None:
        raise UsageError("find generation", str(when), "none was live then", "see `palimpsest history`")
    return found


@contextmanager
def directory_of(config: Config, found: Generation, on_stage: OnStage, runner: Runner) -> Iterator[Path]:
    """The directory of a generation, written for the time being when the keep policy removed it."""
    models = ModelStore(config.layout.model)
    if found.number in models.numbers():
        yield models.gen_dir(found.number)
        return
    with tempfile.TemporaryDirectory(prefix=f"past-{os.getpid()}-", dir=config.layout.run) as folder:
        staging = Path(folder) / "model"
        _rebuild(config, found, staging, on_stage, runner)
        yield staging


def _rebuild(config: Config, found: Generation, staging: Path, on_stage: OnStage, runner: Runner) -> None:
    """Write a generation from the base and its vectors; raises when the bytes aren't those it had."""
    if found.theta_blob is None and found.number != 0:
        raise GenerationError("rebuild", f"generation {found.number}", "its vectors weren't kept")
    staging.mkdir()
    theta = found.theta_blob and str(BlobStore(config.layout.blobs).path(found.theta_blob))
    out = str(staging.parent)
    job = {**common(config, "materialize"), "theta": theta, "staging": str(staging), "out": out}
    runner.run(job, _idle(on_stage))
    if weights_sha256(staging) != found.weights_sha256:
        hint = "run `palimpsest verify`; library versions may have changed"
        raise GenerationError("rebuild", f"generation {found.number}", "the rebuilt weights differ", hint)


def _fact_prompts(config: Config, generations: Sequence[Generation]) -> list[str]:
    """One question for each fact that an edit of `generations` is about."""
    relations = load_relations(operator_relations(config.layout))
    with Ledger.open_readonly(config.layout.ledger) as ledger:
        numbers = sorted({number for generation in generations for number in generation.edits})
        edits = [ledger.edit(number) for number in numbers]
    requests = (request_for(edit, relation_for(edit.key.relation, relations)) for edit in edits)
    return list(dict.fromkeys(shown_wording(request).text for request in requests))


def _probe_prompts(config: Config) -> list[str]:
    """The questions that the base answers firmly and that are only ever measured."""
    try:
        bank = json.loads((config.layout.cache / "bank.json").read_text("utf-8"))
    except FileNotFoundError:  # tidied away; facts can be compared all the same
        return []
    return [question for question, *_ in (*bank["gate"], *bank["report"])]


def _ask(config: Config, runner: Runner, model: Path, prompts: Sequence[str], on_stage: OnStage) -> list[str]:
    job = {**common(config, "ask"), "model": str(model), "prompts": list(prompts)}
    return [str(answer) for answer in runner.run(job, _idle(on_stage))["answers"]]


def _idle(on_stage: OnStage) -> Callable[[str], str | None]:
    def idle(stage: str) -> None:
        on_stage(stage)

    return idle
