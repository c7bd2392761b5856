"""Rules of sources in a house: what is refused, what waits and for whom, and that nothing is lost."""

import io
import json
import os
from dataclasses import replace
from typing import Any

import pytest

from daemon import cli, control, cycle, waits
from daemon.config import InboxSettings, SourceSettings
from daemon.fakes import FakeClock, FakeRunner, ScriptedFolder
from daemon.house import House
from daemon.inbox import Inbox
from daemon.ingest import ingest_ready
from daemon.submission import drop
from daemon.vitals import take_vitals
from store.errors import EXIT_DATA, EXIT_OK, EXIT_PLAN_HAS_CHANGES, EXIT_USAGE, FactFileError, LedgerError
from store.facts import FactKey
from tests.daemon.conftest import capital

ADA, BOB = "1001:ada", "1002:bob"


def ruled(house: House, partial: bool = False, retract: bool = False, **sources: SourceSettings) -> House:
    """The same parts under other rules, as after a restart."""
    config = replace(
        house.config,
        sources=sources,
        inbox=replace(house.config.inbox, partial=partial),
        snapshots=replace(house.config.snapshots, retract_missing=retract),
    )
    return replace(house, config=config, waiting={})


@pytest.fixture
def drops(inbox: Inbox, folder: ScriptedFolder) -> "Drops":
    return Drops(inbox, folder)


class Drops:
    """Takes one file in under the rules of a house; returns its report."""

    def __init__(self, inbox: Inbox, folder: ScriptedFolder) -> None:
        self._inbox, self._folder = inbox, folder

    def __call__(self, house: House, name: str, *rows: dict[str, Any], mode: int = 0o644) -> Any:
        path = self._folder.drop(name, "".join(json.dumps(row) + "\n" for row in rows))
        path.chmod(mode)
        (done,) = ingest_ready(house, self._inbox)
        if done.result == "failed":
            return json.loads((house.layout.failed / f"{name}.error.json").read_text())
        return done.report


def palimpsest(house: House, capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    """A command that was given the house's rules."""
    path = house.layout.state / "config.toml"
    tables = [
        f"[sources.{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in rules)
        for name, settings in house.config.sources.items()
        if (rules := [(k, v) for k in settings.__slots__ if (v := getattr(settings, k)) is not None])
    ]
    path.write_text("".join(tables))
    status = cli.main([*argv, "--state", str(house.layout.state)])
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def test_a_relation_off_the_list_refuses_the_file(house: House, drops: Drops) -> None:
    """The report names line, source and rule; nothing of the file reaches the ledger's facts."""
    strict = ruled(house, atlas=SourceSettings(relations=("capital",)))
    ceo = {"subject": "Acme", "relation": "ceo", "object": "Ada", "source": "atlas"}
    report = drops(strict, "a.jsonl", capital("France", "Lyon", source="atlas"), ceo)
    assert (report["code"], report["line"]) == ("denied", 2)
    assert report["cause"] == "line 2, column 1: source 'atlas' may not state the relation 'ceo'"
    assert report["hint"] == "see [sources.atlas] in the configuration"
    assert strict.ledger.facts() == {}


def test_with_partial_on_only_the_denied_rows_are_refused(house: House, drops: Drops) -> None:
    """They are invalid in the result; the others become edits."""
    lax = ruled(house, partial=True, atlas=SourceSettings(subjects=("Fr*",)))
    rows = [capital("France", "Lyon", source="Atlas"), capital("Spain", "Seville", source="atlas")]
    report = drops(lax, "a.jsonl", *rows)
    assert [row["class"] for row in report["rows"]] == ["new", "invalid"]
    assert "may not state anything about 'Spain'" in report["rows"][1]["reason"]
    assert lax.ledger.fact(FactKey("Spain", "capital")) is None


def test_a_source_is_only_taken_from_its_owners_files(house: House, drops: Drops) -> None:
    """Whoever else claims it is refused, and so is a file that somebody else could have written."""
    row = capital("France", "Lyon", source="hr")
    others = ruled(house, hr=SourceSettings(owners=("no such user",)))
    assert "is only taken from files of no such user" in drops(others, "a.jsonl", row)["cause"]
    ours = ruled(house, hr=SourceSettings(owners=(str(os.geteuid()),)))
    assert "nobody but their owner" in drops(ours, "b.jsonl", row, mode=0o664)["cause"]
    os.link(house.layout.failed / "b.jsonl", house.layout.state / "another name")
    (house.layout.failed / "b.jsonl").rename(house.layout.inbox / "c.jsonl")
    (house.layout.inbox / "c.jsonl").chmod(0o644)
    (linked,) = ingest_ready(ours, Inbox(ours.layout, InboxSettings(settle_seconds=0)))
    assert linked.result == "failed"
    assert drops(ours, "d.jsonl", row)["result"] == "accepted"


def test_a_snapshot_cannot_retract_what_its_source_may_not_state(house: House, drops: Drops) -> None:
    """A fact that the list no longer allows stays, though the snapshot leaves it out."""
    before = ruled(house, retract=True)
    rows = [capital("France", "Lyon"), capital("Spain", "Seville"), capital("Italy", "Milan")]
    drops(before, "atlas.snapshot.jsonl", *rows)
    after = ruled(house, retract=True, atlas=SourceSettings(subjects=("France", "Spain")))
    report = drops(after, "atlas.snapshot.jsonl", rows[0])
    classes = [(row["line"], row["class"]) for row in report["rows"]]
    assert classes == [(0, "retracted"), (0, "invalid"), (1, "unchanged")]
    assert after.ledger.facts()[FactKey("Italy", "capital")].wanted == "Milan"


def test_submit_refuses_what_the_daemon_would(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    """Before the file is dropped; what is dropped can be written by its owner alone."""
    path = house.layout.state / "facts.jsonl"
    path.write_text(json.dumps(capital("France", "Lyon", source="hr")))
    path.chmod(0o666)
    strict = ruled(house, hr=SourceSettings(relations=()))
    status, said = palimpsest(strict, capsys, "submit", str(path))
    assert (status, "may not state the relation" in said) == (EXIT_DATA, True)
    with pytest.raises(FactFileError):
        drop(strict.config, path)
    name = drop(house.config, path).name
    assert (house.layout.inbox / name).stat().st_mode & 0o777 == 0o644


def test_an_edit_waits_until_it_is_approved(
    house: House, drops: Drops, runner: FakeRunner, logged: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    """It stays pending and says why everywhere; others pass it; one approval sets it going, audited."""
    strict = ruled(house, hr=SourceSettings(require_approval=True))
    drops(strict, "a.jsonl", capital("France", "Lyon", source="hr"), capital("Spain", "Seville"))
    assert cycle.step(strict) == "edit 2 is live in generation 1"
    jobs = len(runner.jobs)
    said = "approval (0 of 1): [sources.hr] require_approval; `palimpsest approve 1`"
    assert cycle.step(strict) == cycle.step(strict) == f"edit 1 waits: {said}"
    assert (len(runner.jobs), strict.ledger.edit(1).attempt) == (jobs, 0)
    assert logged.getvalue().count("approval.edits_wait") == 1
    assert take_vitals(strict).waiting == {"approval": 1, "rate": 0, "hours": 0}
    explained = palimpsest(strict, capsys, "explain", "1")[1]
    assert "state pending: waits for approval (0 of 1)\n" in explained
    assert f"waits for {said}" in " ".join(explained.split())
    assert (
        "waiting     1 edit, for approval, see `palimpsest approvals`"
        in palimpsest(strict, capsys, "status")[1]
    )
    status, plan = palimpsest(strict, capsys, "plan", "--json")
    assert status == EXIT_PLAN_HAS_CHANGES
    assert json.loads(plan)["steps"][0]["reason"].endswith(
        "; waits for approval (0 of 1), see `palimpsest explain 1`"
    )
    (row,) = json.loads(palimpsest(strict, capsys, "approvals", "--json")[1])
    assert (row["edit"], row["new"], row["source"], row["approved_by"]) == (1, "Lyon", "hr", [])
    result = control.execute(strict, "approve", {"edits": [1]}, actor=ADA)
    assert result == {"approved": [1], "still_wait": {}}
    assert cycle.step(strict) == "edit 1 is live in generation 2"
    event = next(e for e in strict.ledger.audit_events(subject="edit:1") if e["event"] == "edit.approved")
    assert event["detail"] == {"actor": ADA}
    assert strict.ledger.verify_audit() is None


def test_a_wide_change_takes_two_users_for_each_edit(house: House, drops: Drops) -> None:
    """One user can't be two, by asking twice, by another name or by claiming it in the order."""
    strict = ruled(house, default=SourceSettings(wide_change=3))
    drops(strict, "a.jsonl", *(capital(name, "Lyon") for name in ("France", "Spain", "Italy")))
    said = "edit 1 waits: approval (0 of 2): [sources.default] one of 3 at once, wide_change = 3"
    assert cycle.step(strict).startswith(said)
    result = control.execute(strict, "approve", {"edits": [1, 2], "actor": BOB}, actor=ADA)
    assert result["still_wait"] == {"1": "approval (1 of 2)", "2": "approval (1 of 2)"}
    for same in (ADA, "1001:lovelace", "1001"):
        with pytest.raises(LedgerError, match="approved it before"):
            control.execute(strict, "approve", {"edits": [3, 1]}, actor=same)
    assert strict.ledger.approvals([1, 2, 3]).keys() == {1, 2}  # all of them or none
    assert "edit 1 waits" in cycle.step(strict)
    control.execute(strict, "approve", {"edits": [2]}, actor=BOB)
    assert cycle.step(strict) == "edit 2 is live in generation 1"
    with pytest.raises(LedgerError, match="it is live"):
        control.execute(strict, "approve", {"edits": [2]}, actor="1003:eve")


def test_small_files_within_the_hour_are_a_wide_change_too(
    house: House, drops: Drops, clock: FakeClock
) -> None:
    """Neither many files nor made-up sources get around the rule."""
    strict = ruled(house, default=SourceSettings(wide_change=3))
    drops(strict, "a.jsonl", capital("France", "Lyon", source="x"))
    assert "is live" in cycle.step(strict)
    clock.advance(600)
    drops(strict, "b.jsonl", capital("Spain", "Seville", source="y"), capital("Italy", "Milan", source="z"))
    assert cycle.step(strict).startswith("edit 2 waits: approval (0 of 2)")


def test_surplus_edits_wait_for_the_next_hour_and_none_is_lost(
    house: House, drops: Drops, clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rate counts what was begun, whatever came of it; another source isn't held up."""
    limited = ruled(
        house, default=SourceSettings(max_edits_per_hour=2), atlas=SourceSettings(max_edits_per_hour=9)
    )
    drops(limited, "a.jsonl", *(capital(name, "Lyon", source=name) for name in ("France", "Spain", "Italy")))
    assert "is live" in cycle.step(limited)
    clock.advance(60)
    assert "is live" in cycle.step(limited)
    assert cycle.step(limited) == (
        "edit 3 waits: its source's rate: 2 in the last hour, [sources.default] max_edits_per_hour = 2; "
        "goes on at 2026-01-31T13:00:00+00:00"
    )
    drops(limited, "b.jsonl", capital("Peru", "Cusco", source="atlas"))
    assert "edit 4 is live" in cycle.step(limited)
    clock.advance(3539)
    assert "edit 3 waits" in cycle.step(limited)
    clock.advance(1)
    assert cycle.step(limited) == "edit 3 is live in generation 4"


def test_other_rules_set_waiting_edits_going(house: House, drops: Drops) -> None:
    """Waiting is worked out anew from the configuration: no row has to be touched."""
    drops(
        ruled(house, hr=SourceSettings(require_approval=True)),
        "a.jsonl",
        capital("France", "Lyon", source="hr"),
    )
    assert "is live" in cycle.step(house)


def test_a_fact_that_was_lost_is_repaired_without_asking_again(house: House, drops: Drops) -> None:
    """What the ledger queues again by itself was let through before."""
    drops(house, "a.jsonl", capital("France", "Lyon", source="hr"))
    cycle.step(house)
    strict = ruled(house, hr=SourceSettings(require_approval=True))
    again = strict.ledger.repeat(1, reason="lost", now=strict.now())
    assert (again.repeats, strict.ledger.edit(1).repeats) == (1, None)
    assert cycle.step(strict) == f"edit {again.id} is live in generation 2"


def test_an_approval_outlives_a_retry(house: House, drops: Drops, runner: FakeRunner) -> None:
    """The content is the same; a newer edit of the fact is another one and waits by itself."""
    runner.script["France"] = ["failed", "failed", "good"]
    strict = ruled(house, hr=SourceSettings(require_approval=True))
    drops(strict, "a.jsonl", capital("France", "Lyon", source="hr"))
    control.execute(strict, "approve", {"edits": [1]}, actor=ADA)
    for _ in range(2):
        cycle.step(strict)
    control.execute(strict, "retry", {"edit": 1}, actor=ADA)
    assert cycle.step(strict) == "edit 1 is live in generation 1"
    drops(strict, "b.jsonl", capital("France", "Nice", source="hr"))
    assert "edit 2 waits: approval (0 of 1)" in cycle.step(strict)


def test_a_running_daemons_rules_win(house: House, drops: Drops) -> None:
    """A command that wasn't given the daemon's configuration shows what the daemon goes by; once noted,
    the same rules are not written again."""
    strict = ruled(house, hr=SourceSettings(require_approval=True, owners=(str(os.geteuid()),)))
    drops(strict, "a.jsonl", capital("France", "Lyon", source="hr"))
    waits.note(strict)
    noted = strict.ledger.newest_event()
    waits.note(strict)
    assert strict.ledger.newest_event() == noted
    assert set(waits.by_source(house.config, house.ledger, running=True)) == {1}
    assert waits.by_source(house.config, house.ledger, running=False) == {}


@pytest.mark.parametrize("given", ["x", "0", "5-3", "1-999999", "3-"])
def test_a_range_of_edits_is_checked(given: str, house: House, capsys: pytest.CaptureFixture[str]) -> None:
    """A slip of the finger approves nothing."""
    status, said = palimpsest(house, capsys, "approve", given)
    assert (status, given in said) == (EXIT_USAGE, True)


def test_approve_from_the_command_line(
    house: House, drops: Drops, capsys: pytest.CaptureFixture[str]
) -> None:
    """A range at once; the actor is this process's user, whatever the environment says."""
    strict = ruled(house, default=SourceSettings(wide_change=2))
    drops(strict, "a.jsonl", capital("France", "Lyon"), capital("Spain", "Seville"))
    status, said = palimpsest(strict, capsys, "approve", "1-2")
    assert (status, said.splitlines()[:2]) == (
        EXIT_OK,
        ["2 edits approved", "edit 1 still waits for approval (1 of 2)"],
    )
    assert palimpsest(strict, capsys, "approve", "2")[0] == 1
    (row,) = strict.ledger.approvals([1])[1]
    assert row["actor"].partition(":")[0] == str(os.geteuid())


def test_every_fault_of_the_rules_is_reported(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    """With key paths, and two spellings of one source among them."""
    path = house.layout.state / "bad.toml"
    path.write_text(
        "[sources.hr]\nrelation = []\nowners = [1]\napprovals = 0\n[sources.HR]\nwide_change = -1\n"
        "[sources.atlas]\nsubjects = 'x'\n"
    )
    said = " ".join(palimpsest(house, capsys, "config", "check", str(path))[1].split())
    for fault in (
        "sources.hr.relation: unknown key (did you mean relations?)",
        "sources.hr.owners[0]: expected a string, got an integer",
        "sources.hr.approvals: 0 is outside 1 to 10",
        "sources.HR.wide_change: -1 is outside 0 to 1e+06",
        "sources.atlas.subjects: expected a list, got a string",
    ):
        assert fault in said
    path.write_text("[sources.hr]\n[sources.HR]\n")
    assert (
        "sources.HR: the same source as another one"
        in palimpsest(house, capsys, "config", "check", str(path))[1]
    )
