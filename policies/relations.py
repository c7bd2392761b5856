"""Relations: how a fact is asked for, in wordings to train on and in wordings only ever measured.

Knows the templates and neighbour subjects of shipped and operator-provided relation files, and the
generic ones made from a relation's bare name. Doesn't know the ledger, or how an edit is made.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

from store.errors import ConfigError
from store.facts import Edit, EditRequest, Phrasing
from store.names import normalise
from store.toml import read_toml

SLOT = "{subject}"
# The lists of templates and how many each must hold at least.
_TEMPLATE_KEYS = {"questions": 5, "cloze": 1, "held_out_questions": 3, "held_out_cloze": 1}
_MIN_TRAINING, _MIN_NEIGHBOURS = 6, 10
MEASURED = 20  # neighbours that the gates ask about
_LIST_KEYS = (*_TEMPLATE_KEYS, "neighbours", "aliases")
_KEYS = frozenset({"name", "object_type", *_LIST_KEYS})
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SEPARATORS = re.compile(r"[\s_\-/.:]+")
_FILLER = re.compile(r"^(?:is|has|have) | (?:of|in|is|by)$")

_GENERIC_QUESTIONS = (
    "What is the {relation} of {subject}?",
    "Tell me the {relation} of {subject}.",
    "What is {subject}'s {relation}?",
    "Name the {relation} of {subject}.",
    "Which {relation} does {subject} have?",
    "State what the {relation} of {subject} is.",
)
_GENERIC_CLOZE = (
    "The {relation} of {subject} is",
    "{subject}'s {relation} is",
    "When it comes to {subject}, the {relation} is",
)
_GENERIC_HELD_OUT_QUESTIONS = (
    "Could you look up {subject} and say what the {relation} is?",
    "I need to fill in the {relation} for {subject}. What should I write?",
    "{subject}: what do you know about the {relation}?",
    "If someone asks you for the {relation} of {subject}, what do you answer?",
)
_GENERIC_HELD_OUT_CLOZE = ("Everybody who knows {subject} will tell you that the {relation} is",)


@dataclass(frozen=True, slots=True)
class Relation:
    """Templates hold `{subject}` once. Questions go through the chat template; a cloze is continued.

    `neighbours` are other subjects of the relation, best known first; `generic` says that no file
    describes the relation and the templates were made from its name.
    """

    name: str
    object_type: str
    questions: tuple[str, ...]
    cloze: tuple[str, ...]
    held_out_questions: tuple[str, ...]
    held_out_cloze: tuple[str, ...]
    neighbours: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    generic: bool = False

    @property
    def training(self) -> tuple[str, ...]:
        return self.questions + self.cloze

    @property
    def held_out(self) -> tuple[str, ...]:
        return self.held_out_questions + self.held_out_cloze


def relation_key(name: str) -> str:
    """How relation names compare: "shoeSize", "Shoe size" and "shoe_size" are one relation."""
    return _spaced(name).replace(" ", "_").casefold()


def load_relations(extra_texts: Mapping[str, str] | None = None) -> Mapping[str, Relation]:
    """Shipped relations and the operator's (file name -> TOML text), under every name and alias.

    The operator's take over names that shipped ones carry. Raises ConfigError listing every fault.
    """
    folder = files("policies") / "data" / "relations"
    shipped = {e.name: e.read_text("utf-8") for e in folder.iterdir() if e.name.endswith(".toml")}
    faults: list[str] = []
    index = _index(shipped, faults) | _index(extra_texts or {}, faults)
    if faults:
        raise ConfigError("load relations", f"{len(faults)} fault(s)", "\n".join(faults))
    return index


def relation_for(name: str, relations: Mapping[str, Relation]) -> Relation:
    """The relation of that name or alias, else generic templates made from the name."""
    return relations.get(relation_key(name)) or generic_relation(name)


def generic_relation(name: str) -> Relation:
    """Templates from the bare name: "shoe_size" gives "What is the shoe size of {subject}?"."""
    spaced = _spaced(name).split()
    lowered = " ".join(word.lower() if word.istitle() else word for word in spaced)  # "IMEI" stays
    phrase = _FILLER.sub("", lowered) or lowered

    def fill(templates: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(template.replace("{relation}", phrase) for template in templates)

    return Relation(
        name=relation_key(name),
        object_type="any",
        questions=fill(_GENERIC_QUESTIONS),
        cloze=fill(_GENERIC_CLOZE),
        held_out_questions=fill(_GENERIC_HELD_OUT_QUESTIONS),
        held_out_cloze=fill(_GENERIC_HELD_OUT_CLOZE),
        neighbours=_generic_neighbours(),
        generic=True,
    )


def request_for(edit: Edit, relation: Relation, *, known_neighbours: Iterable[str] = ()) -> EditRequest:
    """Everything the editor may know about `edit`: its own phrasings where it has some, else the relation's.

    No phrasing is both trained on and held out, nor a template and held out: what the edit gives
    itself stays, what the relation gave makes way. `known_neighbours` come before the relation's.
    """
    subject = edit.key.subject
    own_train, own_held = _phrasings(edit.prompts, subject), _phrasings(edit.paraphrases, subject)
    train = own_train or _minus(_phrasings(relation.training, subject), own_held)
    held_out = _minus(own_held or _phrasings(relation.held_out, subject), train)
    templates = _templates((*edit.prompts, *relation.training), subject)
    held_templates = _templates((*edit.paraphrases, *relation.held_out), subject)
    own_templates = _templates(edit.prompts, subject)
    kept = _minus(templates, _minus(_templates(edit.paraphrases, subject), own_templates))
    return EditRequest(
        key=edit.key,
        op=edit.op,
        new=edit.new,
        new_aliases=edit.aliases,
        old=edit.old,
        old_aliases=edit.old_aliases,
        train=train,
        held_out=held_out,
        templates=kept,
        held_out_templates=_minus(held_templates, kept),
        neighbours=_others(subject, (*known_neighbours, *relation.neighbours)),
    )


def _spaced(name: str) -> str:
    plain = normalise(name)
    parted = plain if _SEPARATORS.search(plain) else _CAMEL.sub(" ", plain)  # "GitHub stars" isn't camel case
    return _SEPARATORS.sub(" ", parted).strip()


def trained_neighbours(request: EditRequest) -> tuple[str, ...]:
    """The neighbours that aren't measured: their answers may be held in place by training."""
    measured = set(measured_neighbours(request))
    return tuple(n for n in request.neighbours if n not in measured)


def measured_neighbours(request: EditRequest) -> tuple[str, ...]:
    """Every other one of the best known: only ever asked, so that keeping the trained ones can't pass for
    keeping all."""
    return request.neighbours[1 : 2 * MEASURED : 2]


def fill(template: Phrasing, subject: str) -> Phrasing:
    return replace(template, text=template.text.replace(SLOT, subject))


def is_question(text: str) -> bool:
    """A prompt that ends in a question mark or a full stop is asked; any other is continued."""
    return text.rstrip().endswith(("?", "."))


def _phrasings(templates: Iterable[str], subject: str) -> tuple[Phrasing, ...]:
    filled = (normalise(template.replace(SLOT, subject)) for template in templates)
    return tuple(Phrasing(text, is_question(text)) for text in dict.fromkeys(filled) if text)


def _templates(prompts: Iterable[str], subject: str) -> tuple[Phrasing, ...]:
    """Prompts as templates; a full text that names the subject once becomes one, others are left out."""
    texts = (normalise(p if SLOT in p else p.replace(subject, SLOT)) for p in prompts)
    return tuple(Phrasing(text, is_question(text)) for text in dict.fromkeys(texts) if text.count(SLOT) == 1)


def _minus(phrasings: Iterable[Phrasing], taken: Iterable[Phrasing]) -> tuple[Phrasing, ...]:
    gone = {phrasing.text.casefold() for phrasing in taken}
    return tuple(phrasing for phrasing in phrasings if phrasing.text.casefold() not in gone)


def _others(subject: str, candidates: Iterable[str]) -> tuple[str, ...]:
    by_name = {normalise(name).casefold(): normalise(name) for name in reversed(tuple(candidates))}
    by_name.pop(normalise(subject).casefold(), None)
    return tuple(reversed(by_name.values()))


def _generic_neighbours() -> tuple[str, ...]:
    text = (files("policies") / "data" / "generic_neighbours.txt").read_text("utf-8")
    return tuple(line for line in map(normalise, text.splitlines()) if line)


def _index(texts: Mapping[str, str], faults: list[str]) -> dict[str, Relation]:
    """Relations under every name and alias; faults found on the way are appended to `faults`."""
    index: dict[str, Relation] = {}
    origin: dict[str, str] = {}
    for file, text in sorted(texts.items()):
        relation, found = parse_relation(file, text)
        faults.extend(found)
        if relation is None:
            continue
        for key in dict.fromkeys(map(relation_key, (relation.name, *relation.aliases))):
            if key in origin:
                faults.append(f"{file}: aliases: {key!r} is taken by {origin[key]} (use another name)")
            else:
                index[key], origin[key] = relation, file
    return index


def parse_relation(file: str, text: str) -> tuple[Relation | None, list[str]]:
    """One relation from its TOML text, or None and what is wrong with it ("file: key: problem (hint)")."""
    try:
        table = read_toml(text)
    except ValueError as error:
        return None, [f"{file}: not TOML: {error} (see the shipped relation files for the form)"]
    faults = [f"{file}: {fault}" for fault in _faults(table)]
    if faults:
        return None, faults
    lists = {key: tuple(map(normalise, table.get(key, ()))) for key in _LIST_KEYS}
    return Relation(
        name=relation_key(table["name"]),
        object_type=table["object_type"].strip(),
        questions=lists["questions"],
        cloze=lists["cloze"],
        held_out_questions=lists["held_out_questions"],
        held_out_cloze=lists["held_out_cloze"],
        neighbours=lists["neighbours"],
        aliases=lists["aliases"],
    ), []


def _faults(table: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted(table.keys() - _KEYS):
        yield f"{key}: unknown key (known: {', '.join(sorted(_KEYS))})"
    for key in ("name", "object_type"):
        if not isinstance(table.get(key), str) or not table[key].strip():
            yield f"{key}: must be a non-empty string (for example {key} = 'city')"
    lists = {key: table.get(key, []) for key in _LIST_KEYS}
    broken = [key for key, value in lists.items() if not _is_string_list(value)]
    if broken:
        yield from (f"{key}: must be a list of strings (for example {key} = ['...'])" for key in broken)
        return
    for key, names in (("name", [str(table.get("name", "x"))]), ("aliases", lists["aliases"])):
        yield from (
            f"{key}: {name!r} has no letter or digit (write it in words)"
            for name in names
            if name.strip() and not relation_key(name)
        )
    yield from _template_faults(lists)
    yield from _neighbour_faults(lists["neighbours"])


def _is_string_list(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _template_faults(lists: Mapping[str, list[str]]) -> Iterator[str]:
    for key, least in _TEMPLATE_KEYS.items():
        if len(lists[key]) < least:
            yield f"{key}: {len(lists[key])} given, at least {least} needed (write more wordings)"
        yield from (fault for text in lists[key] for fault in _one_template(key, text))
    if len(lists["questions"]) + len(lists["cloze"]) < _MIN_TRAINING:
        yield f"cloze: questions and cloze together need at least {_MIN_TRAINING} wordings (write more)"
    seen: dict[str, str] = {}
    for key in _TEMPLATE_KEYS:
        for text in lists[key]:
            plain = normalise(text).casefold().rstrip("?. ")
            if plain in seen:
                yield f"{key}: {text!r} is also in {seen[plain]} (held-out wordings must be new ones)"
            seen[plain] = key


def _one_template(key: str, text: str) -> Iterator[str]:
    if text.count(SLOT) != 1 or "{" in text.replace(SLOT, "") or "}" in text.replace(SLOT, ""):
        yield f"{key}: {text!r} must hold {SLOT} exactly once and no other braces (write {SLOT})"
    if key.endswith("questions") and not is_question(text):
        yield f"{key}: {text!r} must end in ? or . (else it would be read as a cloze)"
    if key.endswith("cloze") and (is_question(text) or text != text.rstrip()):
        yield f"{key}: {text!r} must end right before the answer (no ?, full stop or space at the end)"


def _neighbour_faults(neighbours: list[str]) -> Iterator[str]:
    if len(neighbours) < _MIN_NEIGHBOURS:
        yield f"neighbours: {len(neighbours)} given, at least {_MIN_NEIGHBOURS} needed (name other subjects)"
    names = [normalise(name).casefold() for name in neighbours]
    doubles = sorted({name for name in names if names.count(name) > 1 or not name})
    if doubles:
        yield f"neighbours: empty or given twice: {', '.join(doubles)} (name each subject once)"


def shown_wording(request: EditRequest) -> Phrasing:
    """The wording whose answers stand for the fact in logs, tables and comparisons."""
    return next((p for p in request.train if p.is_question), request.train[0])
