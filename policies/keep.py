"""Which generations' directories stay on disk, with every reason for it.

Knows pins, parents, states and how many to keep. Doesn't know disks or sizes, and deletes nothing:
it returns a plan. Removing a directory loses no history: the generation's vectors stay in the blob
store, from which it can be materialised again, bit for bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from store.facts import Generation

# States of a finished generation; the others are still somebody's business (builder, investigator).
FINISHED = frozenset({"live", "retired", "rolled_back"})


@dataclass(frozen=True, slots=True)
class Choice:
    """One generation and every reason for keeping it, or the reason for removing it."""

    generation: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeepPlan:
    """What stays and what goes, each newest first; together exactly the generations asked about."""

    keep: tuple[Choice, ...]
    remove: tuple[Choice, ...]

    def __str__(self) -> str:
        lines = [f"keep   {c.generation:06d}: {', '.join(c.reasons)}" for c in self.keep]
        return "\n".join(
            [*lines, *(f"remove {c.generation:06d}: {', '.join(c.reasons)}" for c in self.remove)]
        )


def plan_keep(
    generations: Sequence[Generation], *, newest: int, live: int | None = None, previous: int | None = None
) -> KeepPlan:
    """Plan for the generations that have a directory. `newest` counts finished ones, the live one included.

    `live` and `previous` are where the two symbolic links point; they count beside the ledger's
    states, so that a link is never left dangling whatever the ledger says. Raises ValueError when
    `newest` is below 1.
    """
    if newest < 1:
        raise ValueError(f"plan_keep: newest must be at least 1, got {newest}")
    by_age = sorted(generations, key=lambda g: g.number, reverse=True)
    young = frozenset([g.number for g in by_age if g.state in FINISHED][:newest])
    choices = [(g.number, _reasons(g, young, newest, live, previous)) for g in by_age]
    gone = f"not among the newest {newest}; its vectors stay in the blob store"
    return KeepPlan(
        keep=tuple(Choice(number, reasons) for number, reasons in choices if reasons),
        remove=tuple(Choice(number, (gone,)) for number, reasons in choices if not reasons),
    )


def _reasons(
    generation: Generation, young: frozenset[int], newest: int, live: int | None, previous: int | None
) -> tuple[str, ...]:
    number, state = generation.number, generation.state
    rules = (
        (number == 0, "the base"),
        (number == live or state == "live", "live"),
        (number == previous, "previous: the quickest way back"),
        (generation.pinned, "pinned"),
        (number in young, f"among the newest {newest}"),
        (state not in FINISHED and number != 0, f"{state}: not finished with"),
        (number != 0 and generation.theta_blob is None, "has no blob to be rebuilt from"),
    )
    return tuple(reason for holds, reason in rules if holds)
