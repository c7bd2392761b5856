"""What the daemon would do next, in which order and why.

Knows priorities, dates and what the ledger holds. Doesn't know the queue, the inbox or the model,
and does nothing: `palimpsest plan` prints what this returns.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from policies.relations import relation_key
from store.facts import DiffRow, Edit, EditState, FactKey, FactRow, FactUpdate, Op, Priority, RowClass

_RANK = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}
_ALWAYS = datetime.min.replace(tzinfo=UTC)  # an edit without a date has been due for ever
_RUNNING = frozenset({EditState.EDITING, EditState.JUDGED})
_STUCK = frozenset({EditState.HELD, EditState.FAILED})


class Action(StrEnum):
    WRITE = "write"  # the model is made to say a new object
    RETRACT = "retract"  # the model is made to say that it doesn't know
    RUNNING = "running"  # a worker has it
    NOTHING = "nothing"  # no weights will change
    BLOCKED = "blocked"  # waits for a human


_CHANGES = frozenset({Action.WRITE, Action.RETRACT, Action.RUNNING})


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the plan. `due` is None for what is due now; `edit` None for a row not yet taken in."""

    key: FactKey
    action: Action
    new: str | None
    due: datetime | None
    reason: str
    edit: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in the order in which they'll be done: due ones, then those that wait for their date."""

    steps: tuple[Step, ...]

    @property
    def has_changes(self) -> bool:
        """Whether weights are to change, now or later; what waits for a human doesn't count."""
        return any(step.action in _CHANGES for step in self.steps)

    @property
    def due(self) -> tuple[Step, ...]:
        return tuple(s for s in self.steps if s.due is None and s.action in _CHANGES)

    @property
    def later(self) -> tuple[Step, ...]:
        return tuple(s for s in self.steps if s.due is not None)

    def __str__(self) -> str:
        return "\n".join(f"{s.action:8} {s.key}: {s.reason}" for s in self.steps) or "nothing to do"


def order(edits: Iterable[Edit]) -> list[Edit]:
    """Edits in the order of work: priority, then `effective_at`, then sequence."""
    return sorted(edits, key=lambda e: (_RANK[e.priority], e.effective_at or _ALWAYS, e.id))


def is_due(edit: Edit, now: datetime) -> bool:
    return edit.state is EditState.PENDING and (edit.effective_at is None or edit.effective_at <= now)


def due_edits(edits: Iterable[Edit], now: datetime) -> list[Edit]:
    """The pending edits to work on now, in order; of several for one fact only the newest."""
    ready = [e for e in edits if is_due(e, now)]
    newest = _newest(ready)
    return order(e for e in ready if newest[e.key.folded()].id == e.id)


def plan_queue(
    edits: Iterable[Edit],
    facts: Mapping[FactKey, FactRow],
    now: datetime,
    *,
    relations: Collection[str] | None = None,
    paused: bool = False,
    waiting: Mapping[int, str] | None = None,
) -> Plan:
    """Plan for the edits of the ledger that aren't over; others are left out.

    `relations` are the names and aliases that have templates, as `load_relations` keys them (None: not
    checked). `waiting`: why edits that are pending can't be started, by edit.
    """
    taken = list(edits)
    newest = _newest(e for e in taken if is_due(e, now))
    held = {key.folded(): row.value for key, row in facts.items()}
    steps = [_edit_step(e, held, newest, now, relations) for e in order(taken) if not _is_over(e)]
    if waiting:
        steps = [_waiting(step, waiting.get(step.edit or 0, "")) for step in steps]
    if paused:
        steps = [_paused(step) for step in steps]
    return _arranged(steps)


def plan_rows(rows: Iterable[DiffRow], now: datetime, *, relations: Collection[str] | None = None) -> Plan:
    """Plan for the rows of a file that isn't taken in yet."""
    return _arranged(_row_step(row, now, relations) for row in rows)


def _arranged(steps: Iterable[Step]) -> Plan:
    return Plan(tuple(sorted(steps, key=lambda s: s.due or _ALWAYS)))  # stable: due ones keep their order


def _is_over(edit: Edit) -> bool:
    return edit.state is not EditState.PENDING and edit.state not in _RUNNING | _STUCK


def _newest(edits: Iterable[Edit]) -> dict[FactKey, Edit]:
    by_key: dict[FactKey, list[Edit]] = {}
    for edit in edits:
        by_key.setdefault(edit.key.folded(), []).append(edit)
    return {key: _newest_of(several) for key, several in by_key.items()}


def _newest_of(edits: Sequence[Edit]) -> Edit:
    """By version where all have one, then by date where all have one, then by sequence.

    The same rule as the rows of one file (`store.diffing`). Comparing two at a time, by what both
    have, would go in circles: the winner would depend on the order of asking.
    """
    versions, dates = [e.version for e in edits], [e.effective_at for e in edits]

    def rank(edit: Edit) -> tuple[int, datetime, int]:
        version = edit.version if edit.version is not None and None not in versions else 0
        date = edit.effective_at if edit.effective_at and None not in dates else _ALWAYS
        return version, date, edit.id

    return max(edits, key=rank)


def _edit_step(
    edit: Edit,
    held: Mapping[FactKey, str | None],
    newest: Mapping[FactKey, Edit],
    now: datetime,
    relations: Collection[str] | None,
) -> Step:
    def step(action: Action, reason: str, due: datetime | None = None) -> Step:
        return Step(edit.key, action, edit.new, due, reason, edit.id)

    if edit.state in _STUCK:
        return step(Action.BLOCKED, f"{edit.state}: {edit.reason}; `palimpsest retry {edit.id}` tries again")
    what = _what(edit.op, edit.new, held.get(edit.key.folded()) or edit.old) + _note(edit.key, relations)
    if edit.state in _RUNNING:
        return step(Action.RUNNING, f"{what}, in work with recipe {edit.recipe}")
    if not is_due(edit, now):
        return step(_action(edit.op), f"{what}, from {_date(edit.effective_at)}", edit.effective_at)
    by = newest[edit.key.folded()]
    if by.id != edit.id:
        return step(Action.NOTHING, f"edit {by.id} of the same fact is newer")
    return step(_action(edit.op), what)


def _row_step(row: DiffRow, now: datetime, relations: Collection[str] | None) -> Step:
    update = row.update
    if row.row_class not in (RowClass.NEW, RowClass.CHANGED, RowClass.RETRACTED):
        return Step(update.key, Action.NOTHING, update.object, None, f"{row.row_class}: {row.reason}")
    what = _what(update.op, update.object, row.previous or update.old) + _note(update.key, relations)
    due = _waits_for(update, now)
    when = f", from {_date(due)}" if due else ""
    return Step(update.key, _action(update.op), update.object, due, f"{row.row_class}: {what}{when}")


def _paused(step: Step) -> Step:
    if step.action not in (Action.WRITE, Action.RETRACT):
        return step
    return replace(step, reason=f"{step.reason}; paused, `palimpsest resume` starts it")


def _waiting(step: Step, why: str) -> Step:
    if not why or step.action not in (Action.WRITE, Action.RETRACT):
        return step
    return replace(step, reason=f"{step.reason}; waits for {why}")


def _waits_for(update: FactUpdate, now: datetime) -> datetime | None:
    return update.effective_at if update.effective_at and update.effective_at > now else None


def _action(op: Op) -> Action:
    return Action.RETRACT if op is Op.RETRACT else Action.WRITE


def _what(op: Op, new: str | None, old: str | None) -> str:
    before = f"instead of {old!r}" if old is not None else "instead of what the model believes"
    return f"say that it is not known, {before}" if op is Op.RETRACT else f"say {new!r}, {before}"


def _note(key: FactKey, relations: Collection[str] | None) -> str:
    if relations is None or relation_key(key.relation) in relations:
        return ""
    return f" (relation {key.relation!r} has no templates, generic questions are used)"


def _date(at: datetime | None) -> str:
    return "now" if at is None else at.isoformat()
