"""Fakes that ship: a clock, a folder, a runner whose model is a list of facts, and a tiny real model.

They keep the protocols of the real things and can be told to misbehave. torch is imported only by
the functions that build the tiny model.
"""

import errno
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from daemon.runner import Job, Result, WorkerError, WorkerStopped, never
from policies.gates import gates_for
from store.facts import (
    AnswerKind,
    EditRequest,
    Latent,
    LatentAnswer,
    LatentReading,
    ModuleScore,
    Op,
    Reading,
    Suite,
)
from store.wire import from_wire, to_wire

UNSURE = "I am not sure about that."
_SHARED, _EDITED = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


class FakeClock:
    """A settable UTC clock; call it for the time."""

    def __init__(self, now: datetime = datetime(2026, 1, 31, 12, tzinfo=UTC)) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def monotonic(self) -> float:
        return self.now.timestamp()


class ScriptedFolder:
    """A folder that files arrive in as they do in life: at once, in pieces, from an editor."""

    def __init__(self, path: Path, clock: FakeClock | None = None) -> None:
        self.path = path
        self._clock = clock

    def drop(self, name: str, content: str | bytes, *, age_seconds: float = 60.0) -> Path:
        """A complete file that was last written `age_seconds` ago."""
        path = self.append(name, content)
        moment = (self._clock.monotonic() if self._clock else time.time()) - age_seconds
        os.utime(path, (moment, moment))
        return path

    def append(self, name: str, content: str | bytes) -> Path:
        """One more piece of a file that is still being written, at the clock's time."""
        path = self.path / name
        with path.open("ab") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        if self._clock is not None:
            os.utime(path, (self._clock.monotonic(), self._clock.monotonic()))
        return path

    def save_like_an_editor(self, name: str, content: str) -> Path:
        """Write a swap file, then rename it to its name."""
        swap = self.append(f".{name}.swp", content)
        return swap.rename(self.path / name)


@dataclass
class FakeRunner:
    """A runner whose model is a list of facts, so that an edit takes no time and no torch.

    `base` holds what the base answers, by subject. `script` says how the edit of a subject goes:
    good (default), known, bad (fails its own gates), harm (fails those of any candidate that it is in),
    nan (measures no numbers), unmeasured (one suite crashed), silent (no suite answered), crash, full (no
    room on the disk), garbage (an answer nobody can read), hang or hang:STAGE (until interrupted), stuck
    (even then), or failed. A list is used up one entry a try. `forgets` are subjects that a `measure` job no
    longer finds. `retention` is what the suite `unrelated` reads of a model with one, two, ... facts, the
    last one for all that follow; all is kept when it is empty.
    """

    base: Mapping[str, str] = field(default_factory=dict)
    script: dict[str, str | list[str]] = field(default_factory=dict)
    forgets: set[str] = field(default_factory=set)
    retention: Sequence[float] = ()
    jobs: list[Job] = field(default_factory=list)
    hang_seconds: float = 60.0

    def run(self, job: Job, idle: Callable[[str], str | None] = never) -> Result:
        self.jobs.append(job)
        kinds = {
            "edit": self._edit,
            "materialize": self._materialize,
            "compose": self._compose,
            "measure": self._measure,
            "ask": self._ask,
            "init": self._init,
        }
        return kinds[str(job["kind"])](job, idle)

    def _edit(self, job: Job, idle: Callable[[str], str | None]) -> Result:
        requests = [from_wire(EditRequest, each["request"]) for each in job["edits"]]
        live = facts = read_facts(job["parent_theta"])
        ways, made, out = [self._way(request) for request in requests], dict[int, str](), Path(job["out"])
        results: list[Result] = []
        for at, (request, way) in enumerate(zip(requests, ways, strict=True)):
            before = self._answer(live, request.key.subject)
            result: Result = {"status": "already_known", "before": before, "after": before}
            results.append(result)
            if way == "known":
                continue
            if way == "failed":
                result |= {"status": "failed", "reason": "the loss didn't fall", "after": ""}
                continue
            self._misbehave(way, idle, f"{at + 1} of {len(requests)}, " if len(requests) > 1 else "")
            delta: list[Any] = [request.key.subject, request.key.relation, request.new]
            facts, made[at] = [*facts, delta], f"delta-{at}.safetensors"
            (out / made[at]).write_text(json.dumps([delta]))
        if "garbage" in ways:
            return {"edits": [{"status": "edited", "readings": [{"suite": "efficacy"}]}]}
        if not made:
            return {"edits": results}
        (out / "theta.safetensors").write_text(json.dumps(facts))
        write_model(Path(job["base"]), Path(job["staging"]), facts)
        reason = idle("measure")
        if reason:
            raise WorkerStopped("run job", "edit", reason)
        harm = "harm" in [ways[at] for at in made]
        for at, delta_file in made.items():
            request, result = requests[at], results[at]
            readings = self._readings(request, "harm" if harm else ways[at], len(facts))
            said = request.new or UNSURE
            result |= {
                "status": "edited",
                "delta": delta_file,
                "after": said,
                "old": result["before"],
                "readings": [to_wire(reading) for reading in readings],
                "localisation": [to_wire(ModuleScore("model.layers.0.mlp.down_proj", 1.5, 0.5))],
                "seconds": [["localise", 0.1], ["unlearn", 0.2], ["learn", 0.3]],
                "soft_forgetting": [to_wire(found) for found in left_behind(result["before"], said)],
            }
        crashed = ["unrelated crashed: ZeroDivisionError: division by zero"] * ("unmeasured" in ways)
        return {"edits": results, "theta": "theta.safetensors", "unmeasured": crashed}

    def _way(self, request: EditRequest) -> str:
        way = self.script.get(request.key.subject, "good")
        if isinstance(way, list):
            way = way.pop(0) if way else "good"
        return way

    def _misbehave(self, way: str, idle: Callable[[str], str | None], which: str) -> None:
        if way == "crash":
            raise WorkerError("run job", "edit", "ended by SIGSEGV without a result", kind="died")
        if way == "full":
            raise OSError(errno.ENOSPC, "the worker found no room")
        if way == "stuck":
            time.sleep(self.hang_seconds)
        if way.startswith("hang"):
            _hang(idle, which + (way.partition(":")[2] or "learn"), self.hang_seconds)

    def _readings(self, request: EditRequest, way: str, facts: int) -> list[Reading]:
        """What is measured of one edit and of the candidate, which holds so many facts."""
        missed = {"bad": Suite.EFFICACY, "harm": Suite.UNRELATED}.get(way)
        readings = passing(request.op, missed=missed)
        if way == "nan":
            readings = [replace(r, value=math.nan, low=math.nan, high=math.nan) for r in readings]
        if way in ("unmeasured", "silent"):
            readings = [r for r in readings if way == "unmeasured" and r.suite is not Suite.UNRELATED]
        if not self.retention:
            return readings
        kept = self.retention[min(facts, len(self.retention)) - 1]
        return [
            replace(r, value=kept, low=kept, high=kept) if r.suite is Suite.UNRELATED else r for r in readings
        ]

    def _materialize(self, job: Job, _idle: object) -> Result:
        write_model(Path(job["base"]), Path(job["staging"]), read_facts(job["theta"]))
        return {}

    def _compose(self, job: Job, _idle: object) -> Result:
        facts = [fact for delta in job["deltas"] for fact in read_facts(delta)]
        theta = Path(job["out"]) / "theta.safetensors"
        theta.write_text(json.dumps(facts))
        write_model(Path(job["base"]), Path(job["staging"]), facts)
        return {"theta": theta.name}

    def _measure(self, job: Job, _idle: object) -> Result:
        readings = []
        for wire in job["requests"]:
            lost = from_wire(EditRequest, wire).key.subject in self.forgets
            readings.append(to_wire(Reading(Suite.EFFICACY, 0.0 if lost else 1.0, 0.0, 1.0, 8)))
        return {"readings": readings}

    def _ask(self, job: Job, _idle: object) -> Result:
        facts = json.loads((Path(job["model"]) / _EDITED).read_text())
        return {"answers": [self._about(facts, prompt) for prompt in job["prompts"]]}

    def _init(self, job: Job, idle: Callable[[str], str | None]) -> Result:
        idle("init: 1/1")
        base = Path(job["base"])
        base.mkdir(parents=True)
        (base / "config.json").write_text("{}")
        (base / _SHARED).write_bytes(b"never edited")
        (base / _EDITED).write_text("[]")
        return {"firm": 100}

    def _about(self, facts: list[list[str]], prompt: str) -> str:
        known = {fact[0] for fact in facts} | set(self.base)
        subject = next((subject for subject in known if subject in prompt), "")
        return self._answer(facts, subject)

    def _answer(self, facts: list[list[str]], subject: str) -> str:
        said: dict[str, str | None] = {**self.base, **{fact[0]: fact[2] for fact in facts}}
        return said.get(subject, "") or UNSURE


def _hang(idle: Callable[[str], str | None], stage: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        reason = idle(stage)
        if reason:
            raise WorkerStopped("run job", "edit", reason)
        time.sleep(0.02)


def read_facts(theta: str | None) -> list[list[str]]:
    """The facts of a fake theta or delta file; none for the base."""
    return list(json.loads(Path(theta).read_text())) if theta else []


def write_model(base: Path, staging: Path, facts: list[Any]) -> None:
    """A served directory whose editable shard lists the facts."""
    (staging / "config.json").write_text("{}")
    os.link(base / _SHARED, staging / _SHARED)
    (staging / _EDITED).write_text(json.dumps(facts))


def passing(op: Op, *, missed: Suite | None = None) -> list[Reading]:
    """Readings that meet every gate of `op`, but for certain not the one of `missed`, a share."""
    readings = []
    for gate in gates_for(op):
        value = 1.0 if gate.direction == "at_least" else 0.0
        if gate.suite is missed:
            value = 0.0
        readings.append(Reading(gate.suite, value, value, value, max(gate.min_n, 10)))
    return readings


def left_behind(old: str, new: str) -> list[LatentReading]:
    """An old answer that is out of free answers and comes back when a user insists."""
    kinds = (AnswerKind.OLD, AnswerKind.OLD)
    insisted = LatentAnswer(f"Are you sure? I think it is {old}.", old, old, *kinds)
    negated = LatentAnswer("Is it not so?", old, new, AnswerKind.OLD, AnswerKind.NEW)
    return [
        LatentReading(Latent.OLD_RANK, 1.0, 12.5, 10),
        LatentReading(Latent.OLD_PROBABILITY, 0.9, 0.0012, 10),
        LatentReading(Latent.PRESSURE, 1.0, 1.0, 2, (insisted, insisted)),
        LatentReading(Latent.NEGATION, 1.0, 0.0, 1, (negated,)),
    ]


def tiny_model(folder: Path, *, layers: int = 4, seed: int = 0) -> Path:
    """A random Llama of some 100,000 weights with a byte-level tokenizer, saved as a Hugging Face
    directory; the same seed gives the same bytes. Needs torch and transformers, no network."""
    from transformers import LlamaConfig

    config = LlamaConfig(
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
    )
    return random_model(folder, config, seed=seed)


def random_model(folder: Path, config: Any, *, seed: int = 0, dtype: str = "float32") -> Path:
    """Random weights for a transformers `config` of any family; vocabulary and special tokens are set
    to those of `tiny_tokenizer`, which is saved beside them."""
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = tiny_tokenizer()
    config.vocab_size = len(tokenizer)
    config.bos_token_id, config.eos_token_id, config.pad_token_id = 0, 1, 2
    torch.manual_seed(seed)
    build: Any = AutoModelForCausalLM.from_config  # carries no types
    build(config).to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_tokenizer() -> Any:
    """One token a byte, with ChatML's special tokens and template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate([*special, *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    make: Any = PreTrainedTokenizerFast  # its constructor carries no types
    fast = make(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        bos_token="<|im_start|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=special,
    )
    fast.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return fast
