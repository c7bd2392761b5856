"""Which edits are tried together, and what becomes of a batch that didn't pass."""

from dataclasses import replace

import pytest

from policies.batches import Sorted, named, sort_out, split, together
from store.facts import Edit, EditState, FactKey, Judgement, Op, Suite, SuiteVerdict, Verdict

PASS, FAIL = Verdict.PASS, Verdict.FAIL
GAVE_UP = Judgement(FAIL, "the editor gave up", ())


def judgement(*missed: Suite) -> Judgement:
    """Of an edit in the candidate; what isn't missed passed."""
    suites = [
        SuiteVerdict(suite, FAIL if suite in missed else PASS, "as measured", None)
        for suite in (Suite.EFFICACY, Suite.NEIGHBOURS, Suite.UNRELATED)
    ]
    return Judgement(FAIL if missed else PASS, "as measured", tuple(suites))


GOOD, BAD, HARM = judgement(), judgement(Suite.EFFICACY), judgement(Suite.UNRELATED)
WORSE = judgement(Suite.NEIGHBOURS, Suite.UNRELATED)


@pytest.mark.parametrize(
    ("judged", "serve", "again"),
    [
        ([GOOD], (1,), ()),
        ([GOOD, GOOD, GOOD], (1, 2, 3), ()),
        ([GOOD, GAVE_UP, GOOD], (1, 3), ((2,),)),
        ([GOOD, BAD, GOOD, GOOD], (), ((1, 3, 4), (2,))),
        ([BAD, GOOD, BAD], (), ((2,), (1,), (3,))),
        ([BAD, BAD, BAD], (), ((1, 2), (3,))),
        ([HARM, HARM, HARM, HARM], (), ((1, 2), (3, 4))),
        ([HARM, WORSE, HARM], (), ((1, 2), (3,))),
        ([HARM, GAVE_UP, HARM], (), ((1,), (3,), (2,))),
        ([GAVE_UP, GAVE_UP], (), ((1,), (2,))),
        ([BAD], (), ((1,),)),
    ],
)
def test_the_good_are_kept_and_the_bad_found(
    judged: list[Judgement], serve: tuple[int, ...], again: tuple[tuple[int, ...], ...]
) -> None:
    """Only what can be blamed on an edit is; where the whole candidate suffers, it is halved."""
    assert sort_out(dict(enumerate(judged, 1))) == Sorted(serve, again)


@pytest.mark.parametrize("count", range(2, 65))
def test_halving_ends(count: int) -> None:
    """Both halves are smaller than the batch and together they are the batch, in order."""
    halves = split(range(count))
    assert len(halves) == 2
    assert sum(halves, ()) == tuple(range(count))
    assert max(map(len, halves)) < count


def edit(number: int, **fields: object) -> Edit:
    made = Edit(
        id=number,
        key=FactKey(f"S{number}", "capital"),
        op=Op.UPSERT,
        new="Rome",
        aliases=(),
        old=None,
        old_aliases=(),
        state=EditState.PENDING,
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def test_edits_are_tried_with_their_like() -> None:
    """What a batch left together stays together, what was charged with a try is tried alone, and no fact is
    in a batch twice."""
    fresh = [edit(1), edit(2), edit(3, key=FactKey("s1", "Capital")), edit(4), edit(5)]
    left = [edit(6, batch=6), edit(7, batch=6)]
    tried = [edit(8, attempt=1)]

    def ids(due: list[Edit], most: int = 4) -> list[int]:
        return [e.id for e in together(due, most)]

    assert ids([*fresh, *left, *tried]) == [1, 2, 4, 5]
    assert ids([*fresh, *left, *tried], most=2) == [1, 2]
    assert ids([*left, *fresh]) == [6, 7]
    assert ids([*tried, *fresh]) == [8]


@pytest.mark.parametrize(
    ("edits", "name"), [([4], "edit 4"), ([4, 5, 6, 9], "edits 4-6, 9"), ([2, 9], "edits 2, 9")]
)
def test_batches_are_named_by_their_edits(edits: list[int], name: str) -> None:
    """Runs are written as runs."""
    assert named(edits) == name
