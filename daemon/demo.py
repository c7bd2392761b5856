"""`palimpsest demo`: the whole path on a scratch state directory, each step proved or said not to be so.

Knows three facts and what must become of them. Uses the daemon only as an operator can: files,
commands, metrics. Every claim is checked; one that isn't so makes the exit status 1.
"""

import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from daemon import orders, status, submission
from daemon.asking import ask_model
from daemon.config import Config, MetricsSettings
from daemon.console import progress, table
from daemon.house import make_runner, open_house
from daemon.initialise import initialise, source_directory
from daemon.logs import quiet_log
from daemon.runner import Runner, child_environment
from daemon.scraping import scrape
from policies.answers import classify, is_unsure
from policies.relations import SLOT, load_relations, relation_for
from store.errors import EXIT_FAILED, EXIT_OK, UnreachableError, UsageError
from store.facts import AnswerKind
from store.generations import weights_sha256
from store.ledger import Ledger
from store.lock import StateLock

START_SECONDS = 120.0
STOP_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Fact:
    """One update of the demonstration. `object` None retracts; `wanted` is the state it must come to."""

    subject: str
    relation: str
    object: str | None
    old: str
    priority: str
    wanted: str
    prompts: tuple[str, ...] = ()
    paraphrases: tuple[str, ...] = ()

    def row(self) -> dict[str, Any]:
        row: dict[str, Any] = {"subject": self.subject, "relation": self.relation, "priority": self.priority}
        row |= {"op": "retract"} if self.object is None else {"object": self.object}
        own = {"prompts": self.prompts, "paraphrases": self.paraphrases}
        return row | {key: wordings for key, wordings in own.items() if wordings}


# The change goes last, so that taking it back must lead to the very weights that were served before it.
# A model this small misses some wordings of everything: what it knows already is asked in its own, and
# the retraction is measured as a chat bot would be asked, in questions.
KNOWN = Fact(
    "France",
    "capital",
    "Paris",
    "Paris",
    "high",
    "already_known",
    prompts=("What is the capital of {subject}?", "Tell me the capital of {subject}."),
    paraphrases=("Which city is the capital of {subject}?", "The capital city of {subject} is"),
)
RETRACTED = Fact(
    "Japan",
    "capital",
    None,
    "Tokyo",
    "normal",
    "live",
    paraphrases=(
        "I am filling in a map quiz. What should I write for the capital of {subject}?",
        "Where would I find the national capital if I travelled to {subject}?",
        "In {subject}, what is the name of the capital?",
        "Could you remind me which city has the status of capital in {subject}?",
    ),
)
# Another relation than the retraction's, which leaves a model this small unsteady about its own. The old
# answer is what the model believes, wrong as it is.
CHANGED = Fact("Betelgeuse", "constellation", "Lyra", "Centaurus", "low", "live")
FACTS = (KNOWN, CHANGED, RETRACTED)


@dataclass
class Proof:
    """What was claimed and whether it was so."""

    tell: Callable[[str], None]
    checks: list[tuple[bool, str]] = field(default_factory=list)

    def claim(self, so: bool, text: str) -> None:
        self.checks.append((so, text))
        self.tell(f"  {'ok    ' if so else 'NOT SO'}  {text}")

    @property
    def holds(self) -> bool:
        return all(so for so, _ in self.checks)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="DIR", help='Hugging Face directory, or "default"')
    parser.add_argument("--keep", action="store_true", help="leave the scratch state directory")


def run(args: argparse.Namespace, config: Config) -> int:
    """The command. Uses a scratch directory unless --state names one that is new."""
    if args.state is not None and args.state.exists():
        raise UsageError("run demonstration", str(args.state), "it exists; the demonstration wants a new one")
    source = source_directory(args.model or config.model.source)
    state = args.state or Path(tempfile.mkdtemp(prefix="palimpsest-demo-")) / "state"
    scratch = replace(
        config,
        daemon=replace(config.daemon, state_dir=state),
        metrics=MetricsSettings(port=0),
    )
    said: list[str] = []

    def tell(line: str) -> None:
        said.append(line)
        print(line, file=sys.stderr if args.json else sys.stdout, flush=True)

    # A demonstration that is told to end must end its daemon too.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(128 + signal.SIGTERM))
    try:
        prepare(scratch, source, tell)
        command = [sys.executable, "-P", "-m", "daemon.cli", "run", "--state", str(state)]
        proof = demonstrate(scratch, command, make_runner(scratch), tell)
    finally:
        if args.state is None and not args.keep:
            shutil.rmtree(state.parent, ignore_errors=True)
    tell("everything was so" if proof.holds else "NOT everything was so")
    if args.json:
        print(json.dumps([{"ok": so, "claim": text} for so, text in proof.checks], indent=2))
    return EXIT_OK if proof.holds else EXIT_FAILED


def prepare(config: Config, source: Path, tell: Callable[[str], None]) -> None:
    """Initialise the scratch state directory from `source`."""
    tell(f"initialising {config.layout.state} from {source}")
    with (
        StateLock(config.layout.state),
        open_house(config, log=quiet_log(config.logs)) as house,
        progress("init") as on_stage,
    ):
        initialise(house, source, on_stage)
    (config.layout.state / "config.toml").write_text(
        f'[metrics]\nport = 0\n[model]\nname = "{config.model.name}"\n'
    )


def demonstrate(
    config: Config,
    command: Sequence[str],
    runner: Runner,
    tell: Callable[[str], None],
    facts: Sequence[Fact] = FACTS,
) -> Proof:
    """Everything from starting the daemon (`command`) to stopping it."""
    proof = Proof(tell)
    changed = next(fact for fact in facts if fact.object is not None and fact.object != fact.old)
    with running(config, command) as process:
        tell(f"\nthe daemon runs as process {process.pid}")
        before, scraped = ask(config, runner, facts), scrape(config)
        settled = drop(config, facts)
        after = ask(config, runner, facts)
        for fact, was, is_now in zip(facts, before, after, strict=True):
            show_fact(proof, fact, settled[fact.subject], was, is_now)
        show_retention(config, settled[changed.subject]["edit"], proof)
        show_metrics(scraped, scrape(config), proof)
        roll_back(config, runner, changed, before[facts.index(changed)], settled, proof)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        code = process.wait(STOP_SECONDS)
        took = time.monotonic() - began
        proof.claim(
            code == 0 and took < 10, f"the daemon stopped {took:.1f} s after SIGTERM, exit status {code}"
        )
    return proof


@contextmanager
def running(config: Config, command: Sequence[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A daemon process, ready; ended at the end if it still runs. Its log goes to `daemon.log`."""
    log = config.layout.state / "daemon.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=child_environment())
    try:
        deadline = time.monotonic() + START_SECONDS
        while status.metrics_port(config) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-2000:]
                raise UnreachableError("start daemon", str(config.layout.state), f"it isn't ready: {tail}")
            time.sleep(0.1)
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def questions(fact: Fact) -> list[str]:
    """Two ways to ask for a fact."""
    relation = relation_for(fact.relation, load_relations())
    return [template.replace(SLOT, fact.subject) for template in relation.questions[:2]]


def ask(config: Config, runner: Runner, facts: Sequence[Fact]) -> list[list[tuple[str, str]]]:
    """(question, answer) pairs of the served model for each fact."""
    asked = [questions(fact) for fact in facts]
    prompts = [prompt for prompts in asked for prompt in prompts]
    with progress("ask") as on_stage:
        _, answers = ask_model(config, prompts, on_stage, runner)
    pairs = iter(list(zip(prompts, answers, strict=True)))
    return [[next(pairs) for _ in prompts] for prompts in asked]


def drop(config: Config, facts: Sequence[Fact]) -> dict[str, dict[str, Any]]:
    """Drop the file of updates and wait; returns each subject's settled row."""
    path = config.layout.state / "updates.jsonl"
    path.write_text("".join(json.dumps(fact.row()) + os.linesep for fact in facts))
    with progress("updates") as on_stage:
        rows = submission.wait(config, submission.drop(config, path), on_stage, 3600)
    return {row["subject"]: row for row in rows}


def show_fact(
    proof: Proof, fact: Fact, row: dict[str, Any], before: list[tuple[str, str]], after: list[tuple[str, str]]
) -> None:
    what = "retract" if fact.object is None else fact.object
    proof.tell(f"\n{fact.subject} / {fact.relation} -> {what}: {row['state']} ({row['reason']})")
    for (question, was), (_, is_now) in zip(before, after, strict=True):
        proof.tell(f"  {question}\n    before  {_line(was)}\n    after   {_line(is_now)}")
    proof.claim(row["state"] == fact.wanted, f"the edit is {fact.wanted}")
    answers = [answer for _, answer in after]
    if fact.object is None:
        proof.claim(
            all(is_unsure(a) and not _says(a, fact.old) for a in answers), "the model says it doesn't know"
        )
    elif fact.object == fact.old:
        proof.claim(all(_says(a, fact.object) for a in answers), f"it still answers {fact.object}")
    else:
        proof.claim(all(_says(a, fact.old) for _, a in before), f"it answered {fact.old} before")
        new = all(classify(a, fact.object, old=fact.old) is AnswerKind.NEW for a in answers)
        proof.claim(new, f"it answers {fact.object} now, and not {fact.old}")


def _line(answer: str) -> str:
    return " ".join(answer.split())


def _says(answer: str, name: str) -> bool:
    return classify(answer, name) is AnswerKind.NEW


def show_retention(config: Config, edit: int, proof: Proof) -> None:
    with _reading(config) as ledger:
        readings = [row for row in ledger.readings(edit_id=edit) if row["value"] is not None]
    cells = [
        (r["suite"], f"{r['value']:.3f}", f"{r['low']:.3f} to {r['high']:.3f}", r["n"], r["verdict"])
        for r in readings
    ]
    proof.tell("\n" + table(("suite", "value", "95 % interval", "n", "verdict"), cells))
    retention = next((r for r in readings if r["suite"] == "unrelated"), None)
    text = (
        "unmeasured"
        if retention is None
        else f"{retention['value']:.1%} of {retention['n']} firm answers kept"
    )
    proof.claim(retention is not None and retention["verdict"] == "pass", f"retention: {text}")


_QUIET = ("_bucket", "_bytes", "_timestamp_seconds")  # too many, or moving by themselves


def show_metrics(before: dict[str, float], after: dict[str, float], proof: Proof) -> None:
    moved = [
        (name, before.get(name, 0.0), value)
        for name, value in sorted(after.items())
        if value != before.get(name, 0.0)
        and not math.isnan(value)
        and not name.partition("{")[0].endswith(_QUIET)
    ]
    cells = [(name.removeprefix("palimpsest_"), f"{was:g}", f"{value:g}") for name, was, value in moved]
    proof.tell("\n" + table(("metric", "before", "after"), cells))
    lived = after.get('palimpsest_edits_total{"state": "live"}', 0) - before.get(
        'palimpsest_edits_total{"state": "live"}', 0
    )
    proof.claim(lived == 2, "the metrics count two edits gone live")


def roll_back(
    config: Config,
    runner: Runner,
    fact: Fact,
    before: list[tuple[str, str]],
    settled: dict[str, dict[str, Any]],
    proof: Proof,
) -> None:
    """Undo the changed fact, and compare answers and bytes with what they were."""
    with _reading(config) as ledger:
        made = ledger.generation(ledger.edit(settled[fact.subject]["edit"]).generation or 0)
        parent = ledger.generation(made.parent or 0)
    proof.tell(
        f"\nrolling back {fact.subject} / {fact.relation}; before it, generation {parent.number} was served"
    )
    began = time.monotonic()
    result = orders.give(config, "rollback", {"fact": [fact.subject, fact.relation]})
    took = time.monotonic() - began
    served = (config.layout.model / "current").resolve()
    (answers,) = ask(config, runner, [fact])
    for (question, was), (_, is_now) in zip(before, answers, strict=True):
        proof.tell(f"  {question}\n    at first  {_line(was)}\n    again     {_line(is_now)}")
    proof.tell(f"  weights were  {parent.weights_sha256}\n  weights are   {weights_sha256(served)}")
    proof.claim(result["to"] != made.number, f"rolled back to generation {result['to']} in {took:.1f} s")
    proof.claim(all(_says(answer, fact.old) for _, answer in answers), f"it answers {fact.old} again")
    proof.claim(weights_sha256(served) == parent.weights_sha256, "the weights' SHA-256 is what it was")


@contextmanager
def _reading(config: Config) -> Iterator[Ledger]:
    ledger = Ledger.open_readonly(config.layout.ledger)
    try:
        yield ledger
    finally:
        ledger.close()
