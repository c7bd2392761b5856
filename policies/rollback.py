"""How to get back: which edits remain, which generation already holds exactly those, what to ask again.

Knows generations, their edits and parents. Doesn't know weights or disks. A generation is its edits
in order (fp32 sums depend on the order), so equal tuples mean equal bytes. Only a generation that
was served after passing its gates, or the base, is known good; when the way back leads to any other,
nothing is planned and the error says so.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from store.errors import GenerationError, PalimpsestError, UsageError
from store.facts import Edit, FactKey, Generation

BASE = 0
_GOOD = frozenset({"live", "retired"})
_WHOLE = _GOOD | {"rolled_back"}  # its weights were complete once; the others' may never have been


class Way(StrEnum):
    PROMOTE = "promote"  # the directory is there: switch `current`
    MATERIALIZE = "materialize"  # the generation is known, its directory must be written again
    BUILD = "build"  # these edits never stood together: sum their vectors as a new generation


@dataclass(frozen=True, slots=True)
class History:
    """What a rollback is planned from. `generations` need not list the base. `on_disk` are the
    numbers whose directory exists; `known_good` overrides the rule of the states when given."""

    generations: Mapping[int, Generation]
    live: int
    on_disk: Collection[int]
    known_good: Collection[int] | None = None

    def edits_of(self, number: int) -> tuple[int, ...]:
        """Edits of a generation, oldest first; the base has none. KeyError when unknown."""
        return () if number == BASE else self.generations[number].edits

    def is_good(self, number: int) -> bool:
        if number == BASE:
            return True
        if self.known_good is not None:
            return number in self.known_good
        return number in self.generations and self.generations[number].state in _GOOD

    def has_directory(self, number: int) -> bool:
        return number == BASE or number in self.on_disk

    def can_serve(self, number: int) -> bool:
        """Whether its directory is there or can be written again from its vectors."""
        return self.has_directory(number) or self.generations[number].theta_blob is not None


@dataclass(frozen=True, slots=True)
class RollbackPlan:
    """`generation` is the number to serve, None when a new one must be built from `edits`.

    `removed` and `restored` are the edits that stop and start being live; `reprobe` the edits whose
    facts must be asked again because nobody ever measured them in this company.
    """

    way: Way
    generation: int | None
    edits: tuple[int, ...]
    removed: tuple[int, ...]
    restored: tuple[int, ...]
    reprobe: tuple[int, ...]
    reason: str


def to_generation(history: History, number: int, *, force: bool = False) -> RollbackPlan:
    """Plan for serving `number` again. `force` goes to one that isn't known good and re-probes it.

    Raises GenerationError when it is unknown or not known good, UsageError when it is live already.
    """
    if number != BASE and number not in history.generations:
        raise _refuse(
            GenerationError, f"generation {number}", "no such generation", "see `palimpsest history`"
        )
    if number == history.live:
        raise _refuse(UsageError, f"generation {number}", "it is live already")
    if not history.can_serve(number):
        cause = "its directory is gone and it has no blob to be rebuilt from"
        raise _refuse(GenerationError, f"generation {number}", cause, _choices(history))
    good = history.is_good(number)
    if not (good or (force and history.generations[number].state in _WHOLE)):
        cause = f"it isn't known good (state {history.generations[number].state}), so nothing was changed"
        raise _refuse(GenerationError, f"generation {number}", cause, _choices(history))
    note = "" if good else ", which isn't known good: forced"
    edits = history.edits_of(number)
    return _plan(history, edits, number, () if good else edits, f"back to generation {number}{note}")


def to_parent(history: History) -> RollbackPlan:
    """Plan for taking back the live generation: its parent, which must be known good.

    The automatic rollback. It doesn't search on for an older good one: that would silently drop
    edits which passed, so it halts and leaves the choice to a human.
    """
    if history.live == BASE:
        raise _refuse(UsageError, "generation 0", "the base is live, there is nothing to take back")
    parent = history.generations[history.live].parent
    if parent is None:
        raise _refuse(
            GenerationError, f"generation {history.live}", "its parent isn't recorded", "name one with --to"
        )
    return to_generation(history, parent)


def without_edit(history: History, edit: int) -> RollbackPlan:
    """Plan for the live generation less one edit. Raises UsageError when the edit isn't live."""
    live = history.edits_of(history.live)
    if edit not in live:
        raise _refuse(UsageError, f"edit {edit}", f"not part of the live generation {history.live}")
    edits = tuple(e for e in live if e != edit)
    same = _same_edits(history, edits)
    reason = f"the live generation less edit {edit}"
    if same is not None:
        return _plan(history, edits, same, (), f"{reason}, which is generation {same}")
    return _plan(history, edits, None, edits, f"{reason}, never measured without it")


def without_fact(history: History, key: FactKey, edits: Mapping[int, Edit]) -> RollbackPlan:
    """Plan for undoing the newest live edit of one fact: the fact is then what the edit before made
    of it, or what the base believes. Raises UsageError when no live edit is about it."""
    about = [
        n for n in history.edits_of(history.live) if n in edits and edits[n].key.folded() == key.folded()
    ]
    if not about:
        raise _refuse(UsageError, str(key), f"generation {history.live} holds no edit of this fact")
    return without_edit(history, about[-1])


def facts_to_reprobe(plan: RollbackPlan, edits: Mapping[int, Edit]) -> tuple[Edit, ...]:
    """The edits to ask about after the rollback, oldest first: for each fact only its last word."""
    last = {edits[n].key.folded(): n for n in plan.edits if n in edits}
    return tuple(edits[n] for n in plan.reprobe if n in edits and last[edits[n].key.folded()] == n)


def to_requeue(asked: Sequence[Edit], still_right: Callable[[Edit], bool]) -> tuple[Edit, ...]:
    """The re-probed edits that the rollback broke and that must be made again."""
    return tuple(e for e in asked if not still_right(e))


def _same_edits(history: History, edits: tuple[int, ...]) -> int | None:
    """The best generation made of exactly these edits: good ones only, on disk first, newest first."""
    if not edits:
        return BASE
    same = [n for n, g in history.generations.items() if g.edits == edits and history.is_good(n)]
    usable = [n for n in same if history.can_serve(n)]
    return max(usable, key=lambda n: (history.has_directory(n), n), default=None)


def _plan(
    history: History, edits: tuple[int, ...], number: int | None, reprobe: tuple[int, ...], reason: str
) -> RollbackPlan:
    live = history.edits_of(history.live)
    return RollbackPlan(
        way=_way(history, number),
        generation=number,
        edits=edits,
        removed=tuple(e for e in live if e not in edits),
        restored=tuple(e for e in edits if e not in live),
        reprobe=reprobe,
        reason=reason,
    )


def _way(history: History, number: int | None) -> Way:
    if number is None:
        return Way.BUILD
    return Way.PROMOTE if history.has_directory(number) else Way.MATERIALIZE


def _choices(history: History) -> str:
    """A hint: the newest generations that could be gone to instead."""
    others = (n for n in history.generations if n not in (history.live, BASE))
    good = sorted((n for n in others if history.is_good(n) and history.can_serve(n)), reverse=True)
    return f"known good are {', '.join(map(str, [*good[:3], BASE]))}"


def _refuse(kind: type[PalimpsestError], subject: str, cause: str, hint: str = "") -> PalimpsestError:
    return kind("roll back", subject, cause, hint)
