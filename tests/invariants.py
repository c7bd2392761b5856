"""What must hold of a state directory whatever happened to its daemon, looked at from outside.

Reads the ledger, the models and the inbox's folders of a directory that nobody writes to. Each
violation is a sentence that begins with the number of its invariant:

I1 each accepted row is in exactly one queued or terminal state, the one that the audit ends with
I2 an edit is live at most once, and a fact has at most one live edit
I3 `current` verifies against its manifest
I4 the ledger is whole and its audit chain verifies
I5 no input file vanishes
I6 after recovery the served bytes are the ledger's live generation
I7 a generation that is gone back to is, byte for byte, the one that was built
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any

from daemon.config import Config
from daemon.layout import Layout
from store.diffing import EDITED
from store.errors import GenerationError, LedgerError
from store.facts import EditState
from store.generations import ModelStore, weights_sha256
from store.ledger import Ledger

UNFINISHED = {EditState.EDITING, EditState.JUDGED}
REPORTS = (".result.json", ".error.json")


def violations(config: Config, *, inputs: Iterable[str] = (), recovered: bool = False) -> list[str]:
    """What is broken. `inputs` are the SHA-256 of all files ever dropped, once for each drop.
    `recovered`: the daemon came up since; then nothing may be left half done either."""
    layout = config.layout
    try:
        opened = Ledger.open_readonly(layout.ledger)
    except LedgerError as error:
        missing = "there is none" in error.cause or "older version" in error.cause
        bad = recovered or not missing  # before the first start there is nothing to look at
        return [*_inputs(layout, Counter(inputs)), *([f"I4 {error}"] if bad else [])]
    models = ModelStore(layout.model)
    with closing(opened) as ledger:
        found = [*_rows(ledger), *_live(ledger), *_current(ledger, models)]
        found += [f"I4 {fault}" for fault in ledger.integrity()]
        found += _inputs(layout, Counter(inputs))
        found += _bytes(ledger, models)
        if recovered:
            found += [*_served(ledger, models), *_half_done(ledger, layout)]
    return found


def input_hashes(layout: Layout) -> Counter[str]:
    """Content hashes of every input file, wherever it has come to."""
    folders = (layout.inbox, layout.processing, layout.done, layout.failed)
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    inputs = (path for path in files if not path.name.startswith(".") and not path.name.endswith(REPORTS))
    return Counter(hashlib.sha256(path.read_bytes()).hexdigest() for path in inputs)


def _rows(ledger: Ledger) -> Iterator[str]:
    edits = {edit.id: edit for edit in ledger.edits()}
    accepted: Counter[str] = Counter()
    named: Counter[int] = Counter()
    for file in ledger._db.table("files").rows:
        if file["status"] == "rejected":
            continue
        accepted[file["sha256"]] += 1
        for row in ledger.file_rows(file["id"]):
            if row["row_class"] in {str(known) for known in EDITED}:
                named[row["edit_id"]] += 1
    yield from (f"I1 file {sha[:12]} was accepted {n} times" for sha, n in accepted.items() if n > 1)
    yield from (f"I1 edit {edit} stands for {n} rows" for edit, n in named.items() if n > 1)
    yield from (f"I1 a row names edit {edit}, which isn't there" for edit in named.keys() - edits.keys())
    last = _last_states(ledger)
    for edit in edits.values():
        if last.get(edit.id) != edit.state:
            yield f"I1 edit {edit.id} is {edit.state}, its audit ends with {last.get(edit.id)}"


def _last_states(ledger: Ledger) -> Mapping[int, str]:
    last: dict[int, str] = {}
    states = {f"edit.{state}" for state in EditState}
    for event in ledger._db.table("audit").rows_where("subject LIKE 'edit:%'", order_by="id"):
        if event["event"] in states:
            last[int(event["subject"].removeprefix("edit:"))] = event["event"].removeprefix("edit.")
    return last


def _live(ledger: Ledger) -> Iterator[str]:
    live = ledger.live_generation()
    part = live.edits if live else ()
    yield from (f"I2 edit {e} is in the live generation {n} times" for e, n in Counter(part).items() if n > 1)
    edits = ledger.edits([EditState.LIVE])
    yield from (f"I2 edit {e.id} is live outside of the live generation" for e in edits if e.id not in part)
    keys = Counter(edit.key.folded() for edit in edits)
    yield from (f"I2 {key} has {n} live edits" for key, n in keys.items() if n > 1)
    for fact in ledger.facts().values():
        if fact.live_edit is None:
            continue
        edit = ledger.edit(fact.live_edit)
        if edit.id not in part or (edit.state, edit.new) != (EditState.LIVE, fact.value):
            yield f"I2 {fact.key} is served by edit {edit.id}, which is {edit.state}"


def _current(ledger: Ledger, models: ModelStore) -> Iterator[str]:
    if ledger.live_generation() is None:  # not initialised yet
        return
    try:
        number = models.current_number()
    except GenerationError as error:
        yield f"I3 {error.cause}"
        return
    yield from (f"I3 generation {number}, which is served: {fault}" for fault in models.verify(number))


def _inputs(layout: Layout, wanted: Counter[str]) -> Iterator[str]:
    missing = wanted - input_hashes(layout)
    yield from (f"I5 {n} of {wanted[sha]} files {sha[:12]} are gone" for sha, n in missing.items())


def _bytes(ledger: Ledger, models: ModelStore) -> Iterator[str]:
    built = _built(ledger)
    by_edits: dict[tuple[int, ...], set[str]] = {}
    on_disk = models.numbers()
    for row in ledger.generations():
        if row.state in ("building", "quarantined"):
            continue
        by_edits.setdefault(row.edits, set()).add(row.weights_sha256)
        if row.number and row.weights_sha256 != built.get(row.number):
            yield f"I7 the ledger's hash of generation {row.number} changed after it was built"
        if row.number in on_disk and weights_sha256(models.gen_dir(row.number)) != row.weights_sha256:
            if models.verify(row.number):  # damaged on purpose or by a fault; found before it is served
                continue
            yield f"I7 generation {row.number} verifies but isn't what was built"
    yield from (f"I7 edits {edits} gave {len(s)} models" for edits, s in by_edits.items() if len(s) > 1)


def _built(ledger: Ledger) -> Mapping[int, str]:
    """The weights' hash of each generation as it was noted when its files were complete."""
    built: dict[int, str] = {}
    for event in ledger._db.table("audit").rows_where("event = 'generation.building'", order_by="id"):
        fields: dict[str, Any] = json.loads(event["detail"]).get("fields", {})
        if "weights_sha256" in fields:
            built[int(event["subject"].removeprefix("generation:"))] = fields["weights_sha256"]
    return built


def _served(ledger: Ledger, models: ModelStore) -> Iterator[str]:
    live = ledger.live_generation()
    if live is None:
        yield "I6 nothing is live"
        return
    number = models.current_number()
    if number != live.number:
        yield f"I6 generation {number} is served, {live.number} is live"
    elif weights_sha256(models.current()) != live.weights_sha256:
        yield f"I6 the served bytes of generation {number} aren't the ledger's"


def _half_done(ledger: Ledger, layout: Layout) -> Iterator[str]:
    yield from (f"edit {edit.id} is still {edit.state}" for edit in ledger.edits(UNFINISHED))
    yield from (
        f"generation {row.number} is still building"
        for row in ledger.generations()
        if row.state == "building"
    )
    left = [*(layout.model / ".staging").glob("*"), *layout.model.glob(".link-*")]
    left += [path for pattern in ("job-*", "out-*") for path in layout.run.glob(pattern)]
    yield from (f"{path.relative_to(layout.state)} was left" for path in left)
