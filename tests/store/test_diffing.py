"""The diff's classes, order and idempotence."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from store.diffing import EDITED, diff
from store.facts import FactKey, FactRow, FactUpdate, Op, RowClass
from tests.store.builders import NOW, applied, later, update

C = RowClass


def fact(wanted: str | None, **fields: object) -> dict[FactKey, FactRow]:
    key = FactKey("Peru", "capital")
    op = Op.RETRACT if wanted is None else Op.UPSERT
    return {key: FactRow(key, None, wanted, op, **fields)}  # type: ignore[arg-type]


def classes(updates: list[FactUpdate], current: dict[FactKey, FactRow] | None = None) -> list[RowClass]:
    return [row.row_class for row in diff(updates, current or {})]


def test_an_unknown_fact_is_new_and_its_retraction_is_retracted() -> None:
    """A key the ledger lacks is NEW, or RETRACTED: the model may know it without the ledger."""
    assert classes([update("Peru", "Lima"), update("Chad", None)]) == [C.NEW, C.RETRACTED]


def test_the_same_value_is_unchanged_whatever_its_spaces() -> None:
    """Values compare normalised, so white space alone is no change."""
    assert classes([update("Peru", " Lima  Sur ")], fact("Lima Sur")) == [C.UNCHANGED]


def test_keys_compare_without_case_and_in_nfc() -> None:
    """`PÉRU` decomposed and `péru` are one key."""
    key = FactKey("péru", "capital")
    current = {key: FactRow(key, None, "Lima", Op.UPSERT)}
    decomposed = FactUpdate(FactKey("PE\u0301RU", "Capital"), "Cusco")
    assert classes([decomposed], current) == [C.CHANGED]


def test_another_value_is_changed_and_says_what_it_was() -> None:
    """A CHANGED row names the value that the ledger wanted before."""
    (row,) = diff([update("Peru", "Cusco")], fact("Lima"))
    assert (row.row_class, row.previous, row.reason) == (C.CHANGED, "Lima", "was 'Lima'")


def test_a_retraction_and_its_repetition() -> None:
    """A retraction of a wanted value is RETRACTED; once retracted it is UNCHANGED."""
    assert classes([update("Peru", None)], fact("Lima")) == [C.RETRACTED]
    assert classes([update("Peru", None)], fact(None)) == [C.UNCHANGED]
    assert classes([update("Peru", "Lima")], fact(None)) == [C.CHANGED]


def test_a_lower_version_is_stale_and_a_higher_one_wins_over_time() -> None:
    """Version decides before effective_at."""
    current = fact("Lima", version=5, effective_at=NOW)
    assert classes([update("Peru", "Cusco", version=4, effective_at=later(9))], current) == [C.STALE]
    assert classes([update("Peru", "Cusco", version=6, effective_at=later(-9))], current) == [C.CHANGED]


def test_without_versions_an_earlier_time_is_stale() -> None:
    """effective_at decides where a version is lacking on either side."""
    current = fact("Lima", effective_at=NOW)
    assert classes([update("Peru", "Cusco", version=9, effective_at=later(-1))], current) == [C.STALE]
    assert classes([update("Peru", "Cusco", effective_at=later(1))], current) == [C.CHANGED]
    assert classes([update("Peru", "Cusco")], current) == [C.CHANGED]


def test_two_values_of_equal_rank_conflict_and_name_each_other() -> None:
    """Two values for one key in one file, neither newer: both rows CONFLICTING."""
    rows = diff([update("Peru", "Lima", line=1), update("peru", "Cusco", line=2)], {})
    assert [row.row_class for row in rows] == [C.CONFLICTING, C.CONFLICTING]
    assert rows[0].reason == "line 2 says 'Cusco', this says 'Lima', and neither is newer"
    assert rows[1].reason == "line 1 says 'Lima', this says 'Cusco', and neither is newer"


def test_a_value_and_its_retraction_conflict() -> None:
    """Upsert and retract of one key in one file can't both be meant."""
    assert classes([update("Peru", "Lima"), update("Peru", None)]) == [C.CONFLICTING, C.CONFLICTING]


def test_the_newest_of_one_file_wins_and_the_others_are_stale() -> None:
    """Unequal versions in one file are no conflict, in whatever order they stand."""
    rows = diff([update("Peru", "B", version=2, line=1), update("Peru", "A", version=1, line=2)], {})
    assert [row.row_class for row in rows] == [C.NEW, C.STALE]
    assert rows[1].reason == "line 1 has a newer one"


def test_a_repeated_row_makes_one_edit() -> None:
    """The same value twice in one file is NEW once and UNCHANGED once."""
    assert classes([update("Peru", "Lima"), update("PERU", "Lima")]) == [C.NEW, C.UNCHANGED]


def test_a_repeated_stale_row_stays_stale() -> None:
    """A repetition of a stale row can't slip in as unchanged."""
    rows = [update("Peru", "Cusco", version=1), update("Peru", "Cusco", version=1)]
    assert classes(rows, fact("Lima", version=2)) == [C.STALE, C.STALE]


def test_a_snapshot_retracts_what_is_gone_only_when_told_to() -> None:
    """Missing rows of the source become RETRACTED with retract_missing, of no other source ever."""
    current = applied(diff([update("Peru", "Lima", source="atlas"), update("Chad", "N'Djamena")], {}), {})
    rows = [update("Mali", "Bamako", source="atlas")]
    assert len(diff(rows, current, snapshot_source="atlas")) == 1
    (_, gone) = diff(rows, current, snapshot_source="atlas", retract_missing=True)
    assert (gone.update.key.subject, gone.row_class, gone.update.line) == ("Peru", C.RETRACTED, 0)
    after = applied([gone], current)
    assert len(diff(rows, after, snapshot_source="atlas", retract_missing=True)) == 1


def test_the_highest_version_seen_stays() -> None:
    """An update without a version doesn't reopen the door to versions older than the last one."""
    current = applied(diff([update("Peru", "Cusco")], fact("Lima", version=5)), fact("Lima", version=5))
    assert classes([update("Peru", "Lima", version=4)], current) == [C.STALE]


def test_many_rows_of_one_key_take_linear_time() -> None:
    """20,000 rows of one key, half of them in conflict, don't take quadratic time."""
    rows = diff([update("Peru", "A" if i % 2 else "B", line=i) for i in range(1, 20_001)], {})
    assert {row.row_class for row in rows} == {C.CONFLICTING}


updates = st.lists(
    st.builds(
        update,
        st.sampled_from(["Peru", "PERU", "Chad", "Çad", "c\u0327ad"]),
        st.sampled_from(["A", "B", "a  b", None]),
        version=st.none() | st.integers(0, 3),
        effective_at=st.none() | st.integers(0, 3).map(lambda hours: NOW + timedelta(hours=hours)),
        aliases=st.sampled_from([(), ("x",)]),
        source=st.sampled_from(["", "s", "t"]),
        line=st.integers(1, 9),
    ),
    max_size=8,
)


@given(updates, updates)
def test_applied_twice_makes_no_edit(first: list[FactUpdate], second: list[FactUpdate]) -> None:
    """Once a file was applied, the same file makes no edit and no more change, on any ledger."""
    before = applied(diff(first, {}), {})
    once = applied(diff(second, before), before)
    again = diff(second, once)
    assert not [row for row in again if row.row_class in EDITED]
    assert {key: row.wanted for key, row in applied(again, once).items()} == {
        key: row.wanted for key, row in once.items()
    }


@given(updates)
def test_each_update_gets_one_row_in_order(rows: list[FactUpdate]) -> None:
    """The diff answers every row of a file, in the file's order, with a reason."""
    result = diff(rows, {})
    assert [row.update for row in result] == rows
    assert all(row.reason for row in result)


@given(updates, updates)
def test_at_most_one_edit_for_each_key(first: list[FactUpdate], second: list[FactUpdate]) -> None:
    """One file never makes two edits of one fact."""
    before = applied(diff(first, {}), {})
    keys = [row.update.key.folded() for row in diff(second, before) if row.row_class in EDITED]
    assert len(keys) == len(set(keys))
