"""Which edits are tried together, and what becomes of a batch that didn't pass.

Knows which suites speak of one edit and which of the whole candidate. Doesn't know the ledger, how many
edits the model can take, or how anything was measured, and runs nothing.

    never tried             with the next ones that weren't either, in the order of the queue
    left by a batch         with those that it was left with (`Edit.batch`), and nobody else
    charged with a try      alone, up the ladder of recipes (`policies.retries`)

    all pass                all are served
    one gave up             the others are served if they pass, or sorted out as below; it is tried alone
    only some are at fault  the others are tried as one batch, each of these alone
    nobody can tell         two halves, the first one larger

A batch that is tried again is smaller each time, so that after a while single edits are left, which are
judged by themselves. Only those are charged with a try.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from store.facts import Edit, Judgement, Suite, Verdict

OF_ONE_FACT = frozenset(
    {
        Suite.EFFICACY,
        Suite.PARAPHRASE,
        Suite.OLD_GONE,
        Suite.NEIGHBOURS,
        Suite.SAME_SUBJECT,
        Suite.OVER_REFUSAL_UNLEARN,
    }
)

Batch = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sorted:
    """The edits of a candidate to `serve`, none when it didn't pass, and the batches to try `again`."""

    serve: Batch
    again: tuple[Batch, ...]


def together(due: Sequence[Edit], most: int) -> list[Edit]:
    """The first of `due`, of which there is one, and those that are tried with it: `most` at most, one of
    each fact."""
    first = due[0]
    if first.attempt:
        return [first]
    like = (edit for edit in due if not edit.attempt and edit.batch == first.batch)
    one_of_each: dict[object, Edit] = {}
    for edit in like:
        one_of_each.setdefault(edit.key.folded(), edit)
    return list(one_of_each.values())[:most]


def sort_out(judged: Mapping[int, Judgement]) -> Sorted:
    """What becomes of the edits of a batch, in order, each judged by its own gates on the one candidate
    that holds them all; a judgement without suites is of one that isn't in it, as the editor gave up."""
    gave_up = [edit for edit, judgement in judged.items() if not judgement.suites]
    measured = [edit for edit in judged if edit not in gave_up]
    if not measured:
        return Sorted((), split(gave_up))
    if all(judged[edit].verdict is Verdict.PASS for edit in measured):
        return Sorted(tuple(measured), _alone(gave_up))
    at_fault = [edit for edit in measured if _missed(judged[edit]) & OF_ONE_FACT]
    harmful = any(_missed(judged[edit]) - OF_ONE_FACT for edit in measured)
    rest = tuple(edit for edit in measured if edit not in at_fault)
    blamed = (rest, *_alone(at_fault)) if rest and not harmful else split(measured)
    return Sorted((), (*blamed, *_alone(gave_up)))


def split(edits: Sequence[int]) -> tuple[Batch, ...]:
    """The halves of a batch, of which nobody knows who is at fault; one edit is left as it is."""
    middle = -(-len(edits) // 2)
    return tuple(filter(None, (tuple(edits[:middle]), tuple(edits[middle:]))))


def named(edits: Iterable[int]) -> str:
    """`edit 4`, or `edits 4-6, 9`."""
    runs: list[list[int]] = []
    for edit in sorted(edits):
        if runs and edit == runs[-1][-1] + 1:
            runs[-1].append(edit)
        else:
            runs.append([edit])
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return f"edit{'s' if len(runs) > 1 or len(runs[0]) > 1 else ''} {', '.join(texts)}"


def _alone(edits: Iterable[int]) -> tuple[Batch, ...]:
    return tuple((edit,) for edit in edits)


def _missed(judgement: Judgement) -> set[Suite]:
    return {judged.suite for judged in judgement.suites if judged.verdict is not Verdict.PASS}
