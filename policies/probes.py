"""General-knowledge probes: questions whose answers an edit to something else must leave alone.

Knows the shipped probe and text files, when an answer counts as right, and which probe may be used
for what (bank, gate, report). Doesn't know any model: which probes are firm is told to it.
"""

import hashlib
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from policies.answers import find, name_words, words
from store.errors import ConfigError

_MIN_PHRASINGS = 2  # a probe is firm when two of its phrasings are answered right
_BANK_BELOW, _GATE_BELOW = 30, 60  # percent of the firm facts: 30 bank, 30 gate, 40 report


@dataclass(frozen=True, slots=True)
class Probe:
    """One fact and its phrasings: `questions` all ask for `answer` and go through the chat template."""

    id: str
    domain: str
    subject: str
    answer: str
    aliases: tuple[str, ...]
    questions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProbeSplit:
    """Three sets that share no fact. `bank` may be trained on, `gate` decides, `report` is only reported."""

    bank: tuple[Probe, ...]
    gate: tuple[Probe, ...]
    report: tuple[Probe, ...]


def load_probes() -> tuple[Probe, ...]:
    """All shipped probes, in file and line order."""
    folder = files("policies") / "data" / "probes"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".jsonl"))
    return tuple(
        probe
        for name in names
        for probe in parse_probes(name.removesuffix(".jsonl"), (folder / name).read_text("utf-8"))
    )


def parse_probes(domain: str, text: str) -> tuple[Probe, ...]:
    """The probes of one JSON Lines text. Raises ConfigError naming the line that can't be read."""
    lines = enumerate(text.splitlines(), start=1)
    return tuple(_parse_line(domain, number, line) for number, line in lines if line.strip())


def _parse_line(domain: str, number: int, line: str) -> Probe:
    try:
        record: dict[str, Any] = json.loads(line)
        probe = Probe(
            id=str(record["id"]),
            domain=domain,
            subject=str(record["subject"]),
            answer=str(record["answer"]),
            aliases=tuple(map(str, record.get("aliases", ()))),
            questions=tuple(map(str, record["questions"])),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError("load probes", f"{domain}.jsonl line {number}", f"{error!r}") from error
    if len(probe.questions) < _MIN_PHRASINGS:
        raise ConfigError("load probes", probe.id, "fewer than two questions", "firmness needs two phrasings")
    return probe


def load_texts(name: str = "texts") -> tuple[str, ...]:
    """Plain English passages for drift: "texts" (measured on) or "texts_bank" (may be trained on)."""
    text = (files("policies") / "data" / f"{name}.txt").read_text("utf-8")
    return tuple(" ".join(passage.split()) for passage in text.split("\n\n") if passage.strip())


def matches(answer_text: str, expected: str, aliases: Iterable[str] = ()) -> bool:
    """Whether the answer contains the expected name or an alias as whole words (see `answers.words`)."""
    said = words(answer_text)
    return any(find(name_words(name), said) >= 0 for name in (expected, *aliases))


def fact_hash(probe: Probe) -> str:
    """SHA-256 of the unordered pair {subject, answer}: "France, Paris" and "Paris, France" are one fact."""
    pair = sorted((" ".join(words(probe.subject)), " ".join(words(probe.answer))))
    return hashlib.sha256("\x1f".join(pair).encode()).hexdigest()


def split(firm_ids: Collection[str], probes: Iterable[Probe]) -> ProbeSplit:
    """Share the probes out by fact. Deterministic, and unmoved by what else is in the list.

    Firm probes go 30 / 30 / 40 % to bank / gate / report by their fact's hash. The others only say
    that the model keeps its own answer: they join the bank, but for those whose fact is being judged.
    """
    firm, everything = frozenset(firm_ids), tuple(probes)
    judged = {fact_hash(p) for p in everything if p.id in firm and _bucket(p) >= _BANK_BELOW}
    bank = tuple(p for p in everything if fact_hash(p) not in judged)
    firm_judged = tuple(p for p in everything if p.id in firm and fact_hash(p) in judged)
    return ProbeSplit(
        bank=bank,
        gate=tuple(p for p in firm_judged if _bucket(p) < _GATE_BELOW),
        report=tuple(p for p in firm_judged if _bucket(p) >= _GATE_BELOW),
    )


def apart_from(names: Iterable[str], probes: Iterable[Probe]) -> tuple[Probe, ...]:
    """The probes in which none of `names` is asked for or asked about.

    Called with an edit's subject, objects and the neighbours that constrain it, it keeps what was
    trained on out of what is measured as unrelated.
    """
    wanted = {name_words(name) for name in names} - {()}

    def mentions(probe: Probe) -> bool:
        texts = [words(text) for text in (probe.answer, *probe.questions)]
        return any(find(name, text) >= 0 for name in wanted for text in texts)

    return tuple(probe for probe in probes if not mentions(probe))


def _bucket(probe: Probe) -> int:
    return int(fact_hash(probe)[:8], 16) % 100
