"""Cases of the bench: counterfactual edits with what the editor may see kept apart from what is measured.

A case's `paraphrases`, `paraphrase_questions` and `neighbours` are for measuring: the editor is
given the training wordings, the shipped relation's templates less anything the case measures with,
and neighbours less anyone that the case asks about. Knows files of cases; doesn't know how they are edited.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policies.relations import Relation, is_question, load_relations, relation_for
from store.errors import UsageError
from store.facts import EditRequest, FactKey, Op, Phrasing

_FIELDS = (
    "id",
    "subject",
    "relation",
    "old",
    "new",
    "prompts",
    "questions",
    "paraphrases",
    "paraphrase_questions",
)


@dataclass(frozen=True, slots=True)
class Case:
    """One counterfactual edit: what the editor may see, and what is only measured."""

    id: str
    request: EditRequest
    train: tuple[Phrasing, ...]  # the case's own; the request may train on more
    held_out: tuple[Phrasing, ...]
    neighbours: tuple[tuple[str, str], ...]  # (question, answer that the base gives)


def read_cases(path: Path, limit: int, skip: int = 0) -> list[Case]:
    """`limit` cases of a JSON Lines file after the first `skip`. Raises UsageError naming the line at
    fault."""
    relations = load_relations()
    lines = [(i, t) for i, t in enumerate(path.read_text("utf-8").splitlines(), start=1) if t.strip()]
    cases: list[Case] = []
    for number, line in lines[skip : skip + limit]:
        try:
            record = json.loads(line)
            missing = [f for f in _FIELDS if f not in record]
            if missing:
                raise ValueError(f"missing {', '.join(missing)}")
            cases.append(_case(record, relation_for(record["relation"], relations)))
        except (ValueError, KeyError, TypeError) as error:
            hint = "one JSON object a line; see the README for the fields of a case"
            raise UsageError("read cases", f"{path} line {number}", str(error), hint) from error
    return cases


def _case(record: Mapping[str, Any], relation: Relation) -> Case:
    subject = record["subject"]
    held = (*record["paraphrase_questions"], *record["paraphrases"])
    neighbours = tuple((n["question"], n["answer"]) for n in record.get("neighbours", ()))
    asked = " ".join(q for q, _ in neighbours).casefold()
    shown = {h.casefold() for h in held}
    own = _wordings((*record["questions"], *record["prompts"]), subject, shown)
    training = _wordings((*own, *relation.training), subject, shown)
    request = EditRequest(
        key=FactKey(subject, record["relation"]),
        op=Op.UPSERT,
        new=record["new"],
        new_aliases=(),
        old=record["old"],
        old_aliases=(),
        train=_phrasings(training),
        held_out=(),
        templates=_templates(training, subject),
        held_out_templates=_templates(_wordings(relation.held_out, subject, shown), subject),
        neighbours=tuple(
            n for n in relation.neighbours if n.casefold() not in asked and n.casefold() != subject.casefold()
        ),
    )
    return Case(record["id"], request, _phrasings(own), _phrasings(held), neighbours)


def pretended_live(count: int) -> tuple[EditRequest, ...]:
    """`count` neighbours of the shipped relations as facts that are said to be live. Nothing was edited for
    them: they show what a long ledger costs an edit."""
    shipped = {r.name: r for r in load_relations().values()}
    named = [(r, subject) for _, r in sorted(shipped.items()) for subject in r.neighbours]
    return tuple(
        EditRequest(
            key=FactKey(subject, r.name),
            op=Op.UPSERT,
            new=None,
            new_aliases=(),
            old=None,
            old_aliases=(),
            train=_phrasings(_wordings(r.training, subject, set())),
            held_out=(),
            templates=(),
            held_out_templates=(),
            neighbours=(),
        )
        for r, subject in named[:count]
    )


def _phrasings(texts: Sequence[str]) -> tuple[Phrasing, ...]:
    return tuple(Phrasing(t, is_question(t)) for t in texts)


def _wordings(templates: Sequence[str], subject: str, hidden: set[str]) -> list[str]:
    filled = (t.replace("{subject}", subject) for t in templates)
    return [t for t in dict.fromkeys(filled) if t.casefold() not in hidden]


def _templates(texts: Sequence[str], subject: str) -> tuple[Phrasing, ...]:
    made = (t.replace(subject, "{subject}") for t in texts)
    return _phrasings([t for t in made if t.count("{subject}") == 1])
