"""Mutated files of the corpus against every parser: `python -m tests.fuzz --inputs 100000 --seed 1`.

The contract: a parser gives what it read or raises its own error, at a place that exists, in bounded time
and memory, and the same for the same bytes. Input number N of a seed is always the same bytes, so a
violation is found again by its two numbers. Knows no coverage: the corpus is what leads it into corners.
"""

import argparse
import json
import random
import resource
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import yaml

from daemon import config
from policies.relations import Relation, parse_relation
from store.errors import ConfigError, FactFileError
from store.factfile import ParsedFile, parse
from store.facts import FactUpdate, Op
from store.names import normalise
from store.spelling import flaw_in_name, flaw_in_text
from tests.corpus import FILES
from tests.relation_text import GOOD as RELATION

MAX_SEED, MAX_INPUT, LONG_INPUT = 2_000, 5_000, 100_000  # bytes
MAX_SECONDS = 2.0  # of processor time for one input; the longest takes a tenth of it
ENDINGS = ("jsonl", "json", "csv", "yaml", "snapshot.csv", "snapshot.jsonl")

CONFIG = """\
[daemon]
state_dir = "/var/lib/palimpsest"
reprobe_hours = 24
[inbox]
settle_seconds = 2.0
max_file_bytes = 67108864
partial = false
[gates.neighbours]
threshold = 0.6
min_n = 1
[metrics]
port = 9464
[[publish.hooks]]
argv = ["/bin/true"]
timeout = 30
"""
# Every field, in every format.
_RICH: dict[str, Any] = {
    "subject": "São Tomé", "relation": "capital city", "object": "Lima", "op": "upsert",
    "aliases": ["Lima City"], "old": "Cusco", "old_aliases": ["Qosqo", "Cuzco"],
    "effective_at": "2026-01-31T09:00:00+02:00", "version": 3, "source": "atlas",
    "priority": "high", "note": "seen", "prompts": ["Where is {subject}'s seat?"],
    "paraphrases": ["{subject} is run from"],
}  # fmt: skip
_PLAIN = [{**_RICH, "subject": f"Place {number}"} for number in range(3)]
_CELLS = ",".join("|".join(value) if isinstance(value, list) else str(value) for value in _RICH.values())
_QUOTED = _CELLS.replace("Lima", '"Lima, Peru"')
RICH = {
    "rich.jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in (_RICH, *_PLAIN)),
    "rich.json": json.dumps([_RICH, *_PLAIN], indent=1),
    "rich.csv": f"{','.join(_RICH)}\n{_CELLS}\n{_QUOTED}\n",
    "rich.yaml": yaml.safe_dump([_RICH, *_PLAIN], allow_unicode=True),
    "rich.snapshot.csv": f"{','.join(_RICH)}\n{_CELLS}\n",
}
TOKENS = [
    *(bytes([byte]) for byte in b"\0\t\n\r\x0b\x0c\x1b \"'#%&*,-.:;<=>?@[\\]^`{|}~\x7f\x80\xc3\xed\xff"),
    *(char.encode() for char in "\u0085\u00a0\u0301\u0345\u0430\u200b\u200d\u2028\u202e"),
    *(char.encode() for char in "\u3000\ufb01\ufeff\ufffd\uffff\U0001d400"),
    b"\r\n", b"\n\n", b'""', b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"\\N",
    b"null", b"true", b"NaN", b"-0", b"1e999", b"9" * 40,
    b"9" * 4_400, b"0x" + b"f" * 40, b"0x" + b"f" * 4_000, b".inf", b"yes", b"~", b"=",
    b"---\n", b"...\n", b"- ", b"? ", b": ", b"&a ", b"*a", b"<<: *a", b"!!binary ", b"!x ", b"|\n", b">-\n",
    b"%YAML 1.1\n", b"[" * 700, b"{subject}", b'"subject"', b'"object"', b'"op": "retract", ',
    b'"prompts": ["', b"]]", b'"""', b"'''",
    b"subject,relation,object\n", b"2026-01-31T09:00:00Z", b"[[", b"{{", b"[[publish.hooks]]\n",
]  # fmt: skip


class ViolationError(Exception):
    """An input for which the contract doesn't hold."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One family of parsers: whole inputs to start from, and what must hold for any bytes."""

    seeds: tuple[tuple[str, bytes], ...]
    check: Callable[[bytes, str, bool], str]


def make_input(kind: Kind, seed: int, number: int) -> tuple[bytes, str]:
    """Input `number` of `seed`: the bytes and the name."""
    rng = random.Random(f"{seed}:{number}")
    name, data = rng.choice(kind.seeds)
    limit = LONG_INPUT if rng.random() < 0.005 else MAX_INPUT
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5, 8))):
        data = _mutated(rng, data, kind.seeds)[:limit]
    if rng.random() < 0.8:  # mostly text, or most inputs would end at their first bad byte
        data = data.decode("utf-8", "ignore").replace("\0", "").encode()
    if rng.random() < 0.05 and kind.seeds is FACTS.seeds:
        name = f"a.{rng.choice(ENDINGS)}"
    return data, name


def _mutated(rng: random.Random, data: bytes, seeds: tuple[tuple[str, bytes], ...]) -> bytes:
    start = rng.randint(0, len(data))
    end = min(len(data), start + int(rng.expovariate(0.1)))
    head, middle, tail, token = data[:start], data[start:end], data[end:], rng.choice(TOKENS)
    other = rng.choice(seeds)[1]
    cut = rng.randint(0, len(other))
    ways: list[Callable[[], bytes]] = [
        lambda: head + rng.randbytes(1) + data[start + 1 :],
        lambda: head + tail,
        lambda: head,
        lambda: head + middle * rng.choice((2, 3, 100)) + tail,
        lambda: head + token * rng.choice((1, 1, 1, 2, 50)) + middle + tail,
        lambda: head + token + tail,
        lambda: head + other[cut:],
        lambda: head + other[:cut] + middle + tail,
    ]
    return rng.choices(ways, weights=(1, 1, 1, 1, 3, 1, 1, 1))[0]()


def _expect(holds: object, what: str) -> None:
    if not holds:
        raise ViolationError(what)


def check_facts(data: bytes, name: str, thorough: bool) -> str:
    """`store.factfile.parse` on one input; says how it ended."""
    try:
        parsed = parse(data, name)
    except FactFileError as error:
        _check_error(error, data)
        if thorough:
            _expect(_refusal(data, name) == error.as_dict(), "two different refusals of the same bytes")
        return error.code
    for refused in parsed.errors:
        _check_error(refused, data)
    for update in parsed.updates:
        _check_update(update)
    _expect(parsed.updates or parsed.errors, "a file without rows is read")
    if thorough:
        _expect(parse(data, name) == parsed, "two different readings of the same bytes")
        _check_said_again(parsed)
    return "rows refused" if parsed.errors else "read"


def _refusal(data: bytes, name: str) -> dict[str, str | int] | None:
    try:
        parse(data, name)
    except FactFileError as error:
        return error.as_dict()
    return None


def _check_error(error: FactFileError, data: bytes) -> None:
    _expect(error.code and error.cause, "an error says nothing")
    _expect(len(error.excerpt) <= 120 and len(error.cause) + len(error.hint) < 1_000, "an error is too long")
    json.dumps(error.as_dict(), ensure_ascii=False).encode()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        _expect(error.line >= 1 and error.column >= 1, "a place before the first")
        return
    lines = text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    _expect(1 <= error.line <= len(lines), f"line {error.line} of {len(lines)}")
    width = len(lines[error.line - 1]) + 1
    _expect(1 <= error.column <= width, f"column {error.column} of {width}")


def _check_update(update: FactUpdate) -> None:
    names = [update.key.subject, update.key.relation, update.source]
    names += [update.object or "", update.old or "", *update.aliases, *update.old_aliases]
    for text in names:
        _expect(text == normalise(text), f"{text!r} isn't normalised")
        _expect(len(text) <= 3_000 and not flaw_in_text(text) and not flaw_in_name(text), f"{text!r} is read")
    for text in (*update.prompts, *update.paraphrases, update.note):
        _expect(len(text) <= 10_000 and not flaw_in_text(text), f"{text!r} is read")
    _expect(update.key.subject and update.key.relation, "an empty key")
    _expect(update.key.folded().folded() == update.key.folded(), "folding twice isn't folding once")
    _expect((update.object is None) is (update.op is Op.RETRACT), "an upsert without object")
    _expect(update.version is None or 0 <= update.version < 2**63, "a version that SQLite can't hold")
    json.dumps(asdict(update), default=str, ensure_ascii=False).encode()


def _check_said_again(parsed: ParsedFile) -> None:
    """What was read, written down as JSON Lines, is read as the same."""
    lines = "\n".join(json.dumps(_record(update)) for update in parsed.updates)
    if not lines:
        return
    again = parse(lines.encode(), "again.jsonl")
    _expect(not again.errors, f"what was read is refused: {again.errors[:1]}")
    _expect(
        [_record(update) for update in again.updates] == [_record(update) for update in parsed.updates],
        "what was read is read otherwise",
    )


def _record(update: FactUpdate) -> dict[str, Any]:
    values = {key: value for key, value in asdict(update).items() if key not in {"key", "line"} and value}
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
    values |= {"subject": update.key.subject, "relation": update.key.relation, "version": update.version}
    return values | ({"effective_at": update.effective_at.isoformat()} if update.effective_at else {})


def check_relation(data: bytes, name: str, thorough: bool) -> str:
    """`policies.relations.parse_relation` on one input."""
    text = data.decode("utf-8", "replace")
    relation, faults = parse_relation(name, text)
    _expect((relation is None) is bool(faults), "neither a relation nor a fault")
    _expect(all(fault.startswith(f"{name}: ") for fault in faults), "a fault without its file")
    if isinstance(relation, Relation):
        _expect(relation.name and relation.training and relation.held_out, "a relation that asks nothing")
    return "read" if relation else "refused"


def check_config(data: bytes, name: str, thorough: bool) -> str:
    """`daemon.config.parse` on one input."""
    try:
        config.parse(data.decode("utf-8", "replace"), name)
    except ConfigError as error:
        _expect(error.cause, "an error says nothing")
        return "refused"
    return "read"


_SHORT = tuple((name, data) for name, data in FILES.items() if len(data) <= MAX_SEED)
FACTS = Kind(_SHORT + tuple((name, text.encode()) for name, text in RICH.items()) * 20, check_facts)
KINDS = {
    "facts": FACTS,
    "relations": Kind((("shoe_size.toml", RELATION.encode()),), check_relation),
    "config": Kind((("config.toml", CONFIG.encode()),), check_config),
}


def fuzz(kind: str, inputs: int, seed: int, first: int = 0) -> Counter[str]:
    """Check inputs `first`, `first` + 1, ... of a seed; says how they ended. Raises ViolationError."""
    ends: Counter[str] = Counter()
    for number in range(first, first + inputs):
        data, name = make_input(KINDS[kind], seed, number)
        began = time.process_time()
        try:
            ends[KINDS[kind].check(data, name, number % 8 == 0)] += 1
            _expect(time.process_time() - began < MAX_SECONDS, "it takes too long")
        except Exception as error:
            where = f"{kind} input {number} of seed {seed}: {name!r} {data!r}"
            raise ViolationError(f"{where}\n{traceback.format_exc()}") from error
    return ends


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--kind", choices=KINDS, default="facts")
    args = parser.parse_args()
    began = time.perf_counter()
    try:
        ends = fuzz(args.kind, args.inputs, args.seed, args.first)
    except ViolationError as violation:
        print(violation, file=sys.stderr)
        return 1
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"{args.inputs} {args.kind} inputs of seed {args.seed}: 0 violations, {seconds:.0f} s, peak {peak} MB"
    )
    print(", ".join(f"{end} {count}" for end, count in ends.most_common()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
