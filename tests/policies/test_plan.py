"""The plan: the order of work, what is due, and what each step will do."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from policies.plan import Action, due_edits, order, plan_queue, plan_rows
from store.facts import DiffRow, Edit, EditState, FactKey, FactRow, FactUpdate, Op, Priority, RowClass

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
KEY = FactKey("South Korea", "capital")
EDIT = Edit(1, KEY, Op.UPSERT, "Athens", (), None, (), EditState.PENDING)


def about(subject: str, edit: Edit) -> Edit:
    return replace(edit, key=FactKey(subject, "capital"))


def test_work_is_ordered_by_priority_then_date_then_sequence() -> None:
    """A high priority beats an early date, an early date beats an early sequence number."""
    edits = [
        replace(EDIT, id=1, priority=Priority.LOW),
        replace(EDIT, id=2, effective_at=NOW),
        replace(EDIT, id=3, effective_at=NOW - DAY),
        replace(EDIT, id=4),
        replace(EDIT, id=5),
        replace(EDIT, id=6, priority=Priority.HIGH, effective_at=NOW),
    ]
    assert [e.id for e in order(reversed(edits))] == [6, 4, 5, 3, 2, 1]


def test_of_several_edits_of_a_fact_only_the_newest_is_done() -> None:
    """A high priority can't bring an older value back over a newer one."""
    older = replace(
        EDIT, id=7, new="Old", version=1, priority=Priority.HIGH, key=FactKey("SOUTH KOREA", "Capital")
    )
    newer = replace(EDIT, id=3, new="New", version=2)
    assert [e.id for e in due_edits([older, newer], NOW)] == [3]
    plan = plan_queue([older, newer], {}, NOW)
    assert [(s.edit, s.action) for s in plan.steps] == [(7, Action.NOTHING), (3, Action.WRITE)]
    assert plan.steps[0].reason == "edit 3 of the same fact is newer"


def test_a_newer_edit_that_is_not_due_yet_holds_nothing_up() -> None:
    """Today's value is written today although another is waiting for its date."""
    today, tomorrow = EDIT, replace(EDIT, id=2, new="Rome", effective_at=NOW + DAY)
    plan = plan_queue([tomorrow, today], {}, NOW)
    assert [s.edit for s in plan.due] == [1]
    assert [s.edit for s in plan.later] == [2]
    assert plan.steps[1].reason == (
        "say 'Rome', instead of what the model believes, from 2026-03-02T00:00:00+00:00"
    )


def test_each_state_has_its_step() -> None:
    """What is over is left out, what runs is named, what is stuck says how to free it."""
    row = FactRow(KEY, "Busan", "Athens", Op.UPSERT)
    edits = [
        EDIT,
        about("a", replace(EDIT, id=2, op=Op.RETRACT, new=None, old="Seoul")),
        about("b", replace(EDIT, id=3, state=EditState.EDITING)),
        about("c", replace(EDIT, id=4, state=EditState.HELD, reason="fail: neighbours")),
        about("d", replace(EDIT, id=5, state=EditState.LIVE)),
        about("e", replace(EDIT, id=6, state=EditState.SUPERSEDED)),
    ]
    plan = plan_queue(edits, {KEY: row}, NOW, relations={"capital"})
    assert str(plan).splitlines() == [
        "write    South Korea / capital: say 'Athens', instead of 'Busan'",
        "retract  a / capital: say that it is not known, instead of 'Seoul'",
        "running  b / capital: say 'Athens', instead of what the model believes, in work with recipe default",
        "blocked  c / capital: held: fail: neighbours; `palimpsest retry 4` tries again",
    ]


def test_an_unknown_relation_is_announced() -> None:
    """The operator learns before the edit that only generic questions will be asked."""
    step = plan_queue([EDIT], {}, NOW, relations=set()).steps[0]
    assert step.reason.endswith("(relation 'capital' has no templates, generic questions are used)")
    spelled = replace(EDIT, key=FactKey("South Korea", "Shoe size"))
    assert "templates" not in plan_queue([spelled], {}, NOW, relations={"shoe_size"}).steps[0].reason


def test_a_paused_daemon_still_has_a_plan() -> None:
    """Pausing changes no wish: the plan has changes and says what they wait for."""
    plan = plan_queue([EDIT], {}, NOW, paused=True)
    assert plan.has_changes
    assert plan.steps[0].reason.endswith("; paused, `palimpsest resume` starts it")


def test_a_full_model_still_has_a_plan() -> None:
    """Waiting for capacity changes no wish; what isn't due yet may meet another model."""
    tomorrow = about("b", replace(EDIT, id=2, effective_at=NOW + DAY))
    plan = plan_queue([EDIT, tomorrow], {}, NOW, waiting={EDIT.id: "capacity"})
    assert plan.has_changes
    assert plan.steps[0].reason.endswith("; waits for capacity")
    assert "capacity" not in plan.steps[1].reason


def test_only_changes_of_weights_count_as_changes() -> None:
    """An empty queue, a held edit and unchanged rows leave nothing to do."""
    assert not plan_queue([], {}, NOW).has_changes
    assert str(plan_queue([], {}, NOW)) == "nothing to do"
    assert not plan_queue([replace(EDIT, state=EditState.HELD)], {}, NOW).has_changes
    update = FactUpdate(KEY, "Athens")
    for row_class in RowClass:
        plan = plan_rows([DiffRow(update, row_class, "because")], NOW)
        changes = row_class in (RowClass.NEW, RowClass.CHANGED, RowClass.RETRACTED)
        assert plan.has_changes is changes


def test_rows_are_planned_before_they_are_taken_in() -> None:
    """A dry run tells class, new value, old value and the date to wait for."""
    update = FactUpdate(KEY, "Athens", effective_at=NOW + DAY)
    plan = plan_rows([DiffRow(update, RowClass.CHANGED, "", previous="Seoul")], NOW)
    assert str(plan) == (
        "write    South Korea / capital: changed: say 'Athens', instead of 'Seoul', "
        "from 2026-03-02T00:00:00+00:00"
    )
    assert plan.steps[0].edit is None


edits = st.lists(
    st.builds(
        lambda n, subject, state, priority, version, at: replace(
            about(subject, EDIT), id=n, state=state, priority=priority, version=version, effective_at=at
        ),
        st.integers(1, 99),
        st.sampled_from("abc"),
        st.sampled_from(EditState),
        st.sampled_from(Priority),
        st.none() | st.integers(1, 3),
        st.none() | st.integers(-3, 3).map(lambda days: NOW + days * DAY),
    ),
    unique_by=lambda e: e.id,
)


@given(edits, st.booleans())
def test_the_plan_is_what_would_be_done(taken: list[Edit], paused: bool) -> None:
    """The plan's due steps are exactly the due edits in their order, one for each fact and none early."""
    due = due_edits(taken, NOW)
    plan = plan_queue(taken, {}, NOW, paused=paused)
    assert [s.edit for s in plan.due if s.action is not Action.RUNNING] == [e.id for e in due]
    assert len({e.key for e in due}) == len(due)
    assert {e.key for e in due} == {
        e.key
        for e in taken
        if e.state is EditState.PENDING and (e.effective_at is None or e.effective_at <= NOW)
    }
    assert all(s.due > NOW for s in plan.later if s.due)
    assert plan_queue(list(reversed(taken)), {}, NOW, paused=paused).due == plan.due
