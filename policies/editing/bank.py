"""What the pristine base knows: built once for a base model, cached, never edited.

Knows which probes the base answers firmly, the bank's answers and their retention rows, and remembers what
else the base was asked. Doesn't know any edit. Damage is always measured against this, so it can't
accumulate unseen.
"""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file, save_file

from policies.answers import find, name_words, words
from policies.editing.adapters import AdapterStack
from policies.editing.architectures import ScaledModule
from policies.editing.measure import answers
from policies.editing.memo import Memo
from policies.editing.model import LanguageModel, fit_dtype, holding, prompt_ids
from policies.editing.objectives import batches, retention_rows
from policies.editing.packing import Sequence_, split_prefix
from policies.probes import Probe, load_probes, matches, split
from store.facts import EditRequest, Phrasing

PROBES = 1000  # asked at most
SAMPLE = 12  # of each domain, before the best known domains get the rest
PROBE_ROWS = 900
ANSWER_TOKENS = 12
FIRST_SEED = 20_240_817
SAID = "said.json"

Beat = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class BankPrompt:
    """A question, its subject and what the base answers, as it stands."""

    question: str
    subject: str
    answer: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question that the base answers right on two phrasings."""

    question: str
    subject: str
    answer: str
    aliases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Bank:
    """`prompts[i]` belongs to `rows[i]` (R, P). `gate` and `report` share no fact with it."""

    prompts: tuple[BankPrompt, ...]
    rows: torch.Tensor
    gate: tuple[Question, ...]
    report: tuple[Question, ...]
    memo: Memo = field(default_factory=Memo)

    def for_edit(self, *requests: EditRequest) -> list[int]:
        """Which prompts may hold edits back: none that mentions a subject of theirs, which must be free to
        change."""
        subjects = {r.key.subject.casefold() for r in requests}
        asked = [p.question.casefold() for p in self.prompts]
        return [i for i, question in enumerate(asked) if not any(s in question for s in subjects)]

    def judges(self, subject: str, answer: str) -> bool:
        """Whether a gate or report probe asks for this fact, either way round: it may not be trained on."""
        name = name_words(subject)
        return any(
            name == name_words(one) and find(name_words(other), words(answer)) >= 0
            for q in (*self.gate, *self.report)
            for one, other in ((q.subject, q.answer), (q.answer, q.subject))
        )

    def apart_from(self, facts: Iterable[tuple[str, str]]) -> "Bank":
        """Less the prompts that ask for one of `facts`, each a question with its answer, either way round."""
        known = [(words(question), answer) for question, answer in facts]

        def same(prompt: BankPrompt) -> bool:
            name = name_words(prompt.subject)
            return any(
                name == name_words(answer) or (find(name, asked) >= 0 and matches(prompt.answer, answer))
                for asked, answer in known
            )

        keep = [i for i, p in enumerate(self.prompts) if not same(p)]
        return replace(self, prompts=tuple(self.prompts[i] for i in keep), rows=self.rows[keep])


def key(lm: LanguageModel, modules: Sequence[ScaledModule], base_sha256: str) -> str:
    """Name of a bank in the cache: it depends on the weights, as they are computed with, the probes and
    what may be scaled."""
    digest = hashlib.sha256(base_sha256.encode())
    digest.update(repr((str(lm.model.dtype), [(m.tensor, m.size, m.fixed) for m in modules])).encode())
    digest.update(repr((load_probes(), PROBES, SAMPLE, PROBE_ROWS, ANSWER_TOKENS, FIRST_SEED)).encode())
    return digest.hexdigest()[:16]


def weights_digest(directory: Path) -> str:
    """SHA-256 over the weight files of a directory."""
    digest = hashlib.sha256()
    for file in sorted(directory.glob("*.safetensors")):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def load_or_build(
    lm: LanguageModel,
    modules: Sequence[ScaledModule],
    shared: Path,
    cache: Path,
    base_sha256: str,
    beat: Beat,
) -> Bank:
    """The bank in `cache`, taken from `shared` or built; a build is written to both. What `cache` knows of
    another base goes."""
    named, told = key(lm, modules, base_sha256), cache / "bank.key"
    if not told.exists() or told.read_text("ascii") != named:
        built = shared / named
        if not (built / "bank.json").exists():
            write(built, build(lm, modules, beat))
        cache.mkdir(parents=True, exist_ok=True)
        told.unlink(missing_ok=True)
        (cache / SAID).unlink(missing_ok=True)
        for name in ("rows.safetensors", "bank.json"):
            shutil.copyfile(built / name, cache / name)
        told.write_text(named, "ascii")
    return read(cache)


def build(lm: LanguageModel, modules: Sequence[ScaledModule], beat: Beat) -> Bank:
    """Ask the base the probes, keep apart what is to be judged, and take the retention rows of the rest.

    Firm is what is answered right on two phrasings; the second is only asked where the first was
    right. Every domain is sampled first; the rest of `PROBES` goes to where the base knows most.
    """
    probes = load_probes()
    said: dict[str, str] = {}

    def right(asked: Sequence[Probe], phrasing: int) -> list[Probe]:
        questions = [p.questions[phrasing] for p in asked]
        given = answers(
            lm,
            [Phrasing(q, True) for q in questions],
            max_new_tokens=ANSWER_TOKENS,
            on_batch=lambda done: beat(f"probes, phrasing {phrasing + 1} of 2: {done}/{len(asked)}"),
        )
        said.update(zip(questions, given, strict=True))
        return [p for p, a in zip(asked, given, strict=True) if matches(a, p.answer, p.aliases)]

    sample, rest = sampled(probes)
    known = right(sample, 0)
    more = promising(rest, sample, known)
    firm = {p.id for p in right(known + right(more, 0), 1)}
    sets = split(firm, sample + more)
    prompts = [BankPrompt(p.questions[0], p.subject, said[p.questions[0]]) for p in sets.bank]
    taken = by_hash(prompts, lambda p: p.question)[:PROBE_ROWS]
    rows = bank_rows(lm, modules, taken, beat)
    return Bank(tuple(taken), rows, questions(sets.gate), questions(sets.report))


T = TypeVar("T")


def by_hash(items: Iterable[T], name: Callable[[T], str]) -> list[T]:
    """In the order of the SHA-256 of their names: shuffled, and the same every time."""
    return sorted(items, key=lambda item: hashlib.sha256(name(item).encode()).digest())


def sampled(probes: Iterable[Probe]) -> tuple[list[Probe], list[Probe]]:
    """(`SAMPLE` probes of every domain, all others)."""
    seen: Counter[str] = Counter()
    sample: list[Probe] = []
    rest: list[Probe] = []
    for probe in by_hash(probes, lambda p: p.id):
        (sample if seen[probe.domain] < SAMPLE else rest).append(probe)
        seen[probe.domain] += 1
    return sample, rest


def promising(rest: Sequence[Probe], sample: Sequence[Probe], known: Sequence[Probe]) -> list[Probe]:
    """As many of `rest` as `PROBES` leaves room for, from the domains best known in the sample."""
    asked, right = Counter(p.domain for p in sample), Counter(p.domain for p in known)
    ranked = sorted(rest, key=lambda p: (-right[p.domain] / asked[p.domain], p.domain))
    return ranked[: max(0, PROBES - len(sample))]


def questions(probes: Sequence[Probe]) -> tuple[Question, ...]:
    return tuple(Question(p.questions[0], p.subject, p.answer, p.aliases) for p in probes)


def bank_rows(
    lm: LanguageModel, modules: Sequence[ScaledModule], prompts: Sequence[BankPrompt], beat: Beat
) -> torch.Tensor:
    """Retention rows (R, P), prefix included: every sequence carries its own copy of it."""
    generator = torch.Generator().manual_seed(FIRST_SEED)
    sequences = [bank_sequence(lm, p, share_prefix=False) for p in prompts]
    parts = []
    with holding({p: p.data.to(fit_dtype(lm)) for p in lm.model.parameters()}):
        stack = AdapterStack(lm, modules)
        try:
            for start in range(0, len(sequences), 16):
                beat(f"retention rows {start}/{len(sequences)}")
                part = sequences[start : start + 16]
                made = batches(lm, part, stack.first, tokens=300)
                parts.append(retention_rows(stack, made, len(part), generator))
        finally:
            stack.remove()
    return torch.cat(parts) if parts else torch.zeros(0, sum(m.size for m in modules))


def bank_sequence(lm: LanguageModel, prompt: BankPrompt, *, share_prefix: bool = True) -> Sequence_:
    """The question with the base's answer, up to `ANSWER_TOKENS` tokens of it."""
    return answer_sequence(lm, Phrasing(prompt.question, True), prompt.answer, share_prefix=share_prefix)


def answer_sequence(
    lm: LanguageModel,
    phrasing: Phrasing,
    answer: str,
    *,
    limit: int = ANSWER_TOKENS,
    share_prefix: bool = True,
) -> Sequence_:
    """A phrasing followed by an answer as scored tokens. A space stands between the two, except where
    a chat template ends in a line of its own."""
    templated = phrasing.is_question and lm.tokenizer.chat_template
    text = answer.strip() if templated else " " + answer.strip()
    ids = lm.tokenizer(text, add_special_tokens=False)["input_ids"][:limit]
    prompt = prompt_ids(lm, phrasing)
    if share_prefix:
        return split_prefix(lm, prompt, ids)
    return Sequence_(tuple(prompt) + tuple(ids), len(ids), has_prefix=False)


def write(folder: Path, bank: Bank) -> None:
    """Rows first, the JSON last: a bank without its JSON doesn't exist."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"rows": bank.rows.contiguous()}, folder / "rows.safetensors")
    record = {
        "prompts": [(p.question, p.subject, p.answer) for p in bank.prompts],
        "gate": [(q.question, q.subject, q.answer, q.aliases) for q in bank.gate],
        "report": [(q.question, q.subject, q.answer, q.aliases) for q in bank.report],
    }
    staged = folder / f"bank.{os.getpid()}.tmp"
    staged.write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", "utf-8")
    staged.rename(folder / "bank.json")


def read(folder: Path) -> Bank:
    record = json.loads((folder / "bank.json").read_text("utf-8"))
    rows = load_file(folder / "rows.safetensors")["rows"]
    # Earlier banks held neighbours too, a relation as fourth item; gates may ask for those.
    probes = [i for i, p in enumerate(record["prompts"]) if not any(p[3:])]
    return Bank(
        tuple(BankPrompt(*record["prompts"][i][:3]) for i in probes),
        rows[probes],
        tuple(Question(q, s, a, tuple(x)) for q, s, a, x in record["gate"]),
        tuple(Question(q, s, a, tuple(x)) for q, s, a, x in record["report"]),
        Memo(folder / SAID),
    )
