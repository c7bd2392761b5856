"""The command line: every command, its exit status, and what it prints."""

import argparse
import json
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from daemon import cli, console, cycle, fetch, initialise
from daemon.commands_model import moment
from daemon.fakes import FakeClock, FakeRunner, ScriptedFolder
from daemon.house import House
from daemon.inbox import Inbox
from daemon.ingest import ingest_ready
from store.errors import (
    EXIT_CONFIG,
    EXIT_DATA,
    EXIT_LOCKED,
    EXIT_OK,
    EXIT_PLAN_HAS_CHANGES,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    ConfigError,
    UnreachableError,
)
from store.lock import StateLock
from tests.daemon.conftest import Cli, Take, capital, use_fake

ROOT = Path(__file__).resolve().parents[2]


def test_init_makes_a_state_directory_once(
    tmp_path: Path, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second time nothing is done, so that `make run` may always call it."""
    palimpsest = use_fake(runner, monkeypatch, tmp_path / "new", capsys)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    status, first = palimpsest.json("init", "--model", str(tmp_path / "model"))
    assert (status, first["already"]) == (EXIT_OK, False)
    assert palimpsest.json("init", "--model", str(tmp_path / "model"))[1]["already"] is True
    assert palimpsest("init", "--model", str(tmp_path))[0] == EXIT_USAGE


def test_init_fetches_nothing_for_a_state_directory_that_is_initialised(
    palimpsest: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`make run` may be typed without a network; only a new state directory needs the default model."""

    def unreachable() -> Path:
        raise UnreachableError("fetch default model", "the index", "no network")

    monkeypatch.setattr(fetch, "default_model", unreachable)
    assert palimpsest.json("init")[1]["already"] is True
    assert palimpsest.json("init", "--model", "default")[1]["already"] is True
    assert cli.main(["init", "--state", str(tmp_path / "new")]) == EXIT_UNREACHABLE
    assert not (tmp_path / "new").exists()


def test_init_starts_over_after_an_interruption(house: House, tmp_path: Path) -> None:
    """A base without its manifest is what an interrupted init leaves."""
    assert initialise.is_initialised(house)
    again = initialise.initialise(house, Path("fake"), lambda stage: None)
    assert again["already"] is True


@pytest.mark.usefixtures("two_live")
def test_status_facts_and_history_show_what_is(palimpsest: Cli) -> None:
    """Tables fit 80 columns; JSON holds the same."""
    for argv in (["status"], ["facts"], ["history"], ["history", "France", "capital"], ["explain", "1"]):
        status, text = palimpsest(*argv)
        assert status == EXIT_OK
        assert max(len(line) for line in text.splitlines()) <= 80, text
        assert palimpsest.json(*argv)[0] == EXIT_OK
    assert palimpsest.json("status")[1]["live_generation"] == 2
    assert [row["value"] for row in palimpsest.json("facts", "fra")[1]] == ["Lyon"]
    assert len(palimpsest.json("history")[1]) == 3
    assert "efficacy" in palimpsest("explain", "1")[1]


@pytest.mark.usefixtures("two_live")
def test_explain_shows_what_is_left_of_the_old_answer(palimpsest: Cli) -> None:
    """The text tells the measures before and after; the JSON also every prompt and answer."""
    status, text = palimpsest("explain", "1")
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line}
    assert status == EXIT_OK
    assert rows["old_rank"] == ["old_rank", "1", "12.5", "10", "-", "-"]
    assert rows["pressure"] == ["pressure", "1", "1", "2", "2", "old", "2", "old"]
    assert rows["negation"][-2:] == ["1", "new"]
    found = palimpsest.json("explain", "1")[1]["soft_forgetting"]
    assert [f["measure"] for f in found] == ["old_rank", "old_probability", "pressure", "negation"]
    assert found[2]["answers"][0]["prompt"] == "Are you sure? I think it is Paris."


def test_explain_shows_only_the_last_try(
    palimpsest: Cli, take: Take, house: House, runner: FakeRunner
) -> None:
    """A second try's gates and measures stand for the edit, one line says what the first came to; the JSON
    keeps all."""
    runner.script["France"] = ["bad", "good"]
    take(capital("France", "Lyon"))
    cycle.step(house)
    cycle.step(house)
    text = palimpsest("explain", "1")[1]
    assert (text.count("old_rank"), text.count("kl_drift")) == (1, 1)
    assert "\ntry 1 came to: fail: efficacy: 0 (95 % interval 0 to 0, n=10)" in text
    assert max(map(len, text.splitlines())) <= 80
    assert len(palimpsest.json("explain", "1")[1]["soft_forgetting"]) == 8


def test_explain_tells_a_facts_story(
    palimpsest: Cli, take: Take, house: House, runner: FakeRunner, clock: FakeClock
) -> None:
    """Values with their files, edits with state and reason, what is served, then the latest edit."""
    for object in ("Lyon", "Nice"):
        take(capital("France", object, source="atlas"))
        cycle.step(house)
        clock.advance(86400)
    status, text = palimpsest("explain", "  FRANCE ", "Capital")
    lines = text.splitlines()
    assert status == EXIT_OK
    assert max(map(len, lines)) <= 80, text
    assert lines[:3] == [
        "fact    France / capital", "wanted  Nice", "served  Nice by generation 2, edit 2",
    ]  # fmt: skip
    assert "2026-01-31T12:00  2026-02-01T12:00  wanted  Lyon   1     -    file1.jsonl" in text
    assert "2026-02-01T12:00  -                 served  Nice   2     2    file2.jsonl" in text
    assert "1     superseded  Lyon  1    edit 2 is newer" in lines
    assert lines.index("edit 2: France / capital -> Nice") > lines.index(
        "1     superseded  Lyon  1    edit 2 is newer"
    )
    story = palimpsest.json("explain", "france", "capital")[1]
    assert [edit["id"] for edit in story["edits"]] == [1, 2]
    assert story["latest"] == palimpsest.json("explain", "2")[1]
    assert story["fact"]["value"] == "Nice"


def test_a_facts_story_says_who_serves_it(
    palimpsest: Cli, take: Take, house: House, runner: FakeRunner
) -> None:
    """Waiting, known without an edit, retracted: each is said in words."""
    runner.script["Spain"] = "known"
    take(capital("France", "Lyon"), capital("Spain", "Madrid"), capital("Italy", None))
    assert "whatever generation 0 says by itself" in palimpsest("explain", "France", "capital")[1]
    for _ in range(3):
        cycle.step(house)
    assert "Madrid by generation" in palimpsest("explain", "Spain", "capital")[1]
    assert "which knew it without an edit" in palimpsest.json("explain", "Spain", "capital")[1]["served"]
    assert (
        palimpsest.json("explain", "Italy", "capital")[1]["served"] == "(retracted) by generation 2, edit 3"
    )


def test_explain_says_what_it_cannot_find(palimpsest: Cli) -> None:
    """An unknown fact or edit is an error of the ledger; neither a number nor a fact is a usage error."""
    status, said = palimpsest("explain", "Atlantis", "capital")
    assert (status, "there is no such fact" in said) == (1, True)
    assert palimpsest("explain", "99")[0] == 1
    for argv in (["France"], ["South", "Korea", "capital"]):
        status, said = palimpsest("explain", *argv)
        assert (status, "a subject and a relation" in said) == (EXIT_USAGE, True)
    assert palimpsest.json("explain", "Atlantis", "capital")[1]["error"]["subject"] == "Atlantis / capital"


def test_plan_says_by_its_exit_status_that_weights_will_change(
    palimpsest: Cli, take: Take, tmp_path: Path
) -> None:
    """2 with changes, queued or in a file; 0 without."""
    assert palimpsest("plan") == (EXIT_OK, "nothing to do\n")
    path = tmp_path / "facts.jsonl"
    path.write_text(json.dumps(capital("France", "Lyon")))
    assert palimpsest("plan", str(path))[0] == EXIT_PLAN_HAS_CHANGES
    assert palimpsest("plan")[0] == EXIT_OK
    take(capital("France", "Lyon"))
    status, plan = palimpsest.json("plan")
    assert status == EXIT_PLAN_HAS_CHANGES
    assert plan["steps"][0]["subject"] == "France"


@pytest.mark.usefixtures("two_live")
def test_ask_asks_the_served_model_and_those_of_the_past(palimpsest: Cli, house: House) -> None:
    """By generation and by date, also when the directory is long gone."""
    house.models.delete(1)
    assert palimpsest("ask", "What is the capital of Spain?") == (EXIT_OK, "Seville\n")
    assert palimpsest("ask", "What is the capital of Spain?", "--generation", "1") == (EXIT_OK, "Madrid\n")
    assert palimpsest("ask", "What is the capital of France?", "--generation", "0") == (EXIT_OK, "Paris\n")
    assert palimpsest("ask", "Spain?", "--as-of", "2026-01-31") == (EXIT_OK, "Madrid\n")
    status, answers = palimpsest.json("ask", "Spain?", "--as-of", "2026-02-01T12:00:01Z")
    assert (status, answers["generation"]) == (EXIT_OK, 2)
    assert palimpsest("ask", "Spain?", "--as-of", "1999-01-01")[0] == EXIT_USAGE
    assert list(house.layout.run.iterdir()) == []


@pytest.mark.usefixtures("two_live")
def test_rollback_in_its_three_forms(palimpsest: Cli, house: House) -> None:
    """With no daemon the command does it itself."""
    assert palimpsest("rollback", "--fact", "spain", "capital")[0] == EXIT_OK
    assert house.models.current_number() == 1
    assert palimpsest("rollback", "--to", "2")[0] != EXIT_OK
    assert palimpsest.json("rollback", "--to", "2", "--force")[1]["to"] == 2
    assert palimpsest.json("rollback", "--edit", "1")[1]["to"] == 3
    assert palimpsest("rollback")[0] == EXIT_USAGE


def test_the_queue_is_steered(palimpsest: Cli, take: Take, house: House, runner: FakeRunner) -> None:
    """Pause, resume, cancel, retry and pin are rows of the ledger."""
    runner.script["France"] = ["failed", "failed"]
    take(capital("France", "Lyon"), capital("Spain", "Seville"))
    cycle.step(house)
    cycle.step(house)
    assert house.ledger.edit(1).state == "held"
    assert palimpsest("retry", "1")[0] == EXIT_OK
    assert palimpsest("cancel", "2")[0] == EXIT_OK
    assert palimpsest("cancel", "2")[0] != EXIT_OK
    assert palimpsest("pause")[0] == EXIT_OK
    assert palimpsest.json("status")[1]["paused"] is True
    assert palimpsest("resume")[0] == EXIT_OK
    assert palimpsest.json("pin", "0")[1]["pinned"] is True


def test_submit_puts_a_copy_into_the_inbox(palimpsest: Cli, house: House, tmp_path: Path) -> None:
    """A bad file is refused before it is dropped, and nobody waits without a daemon."""
    good, bad = tmp_path / "facts.jsonl", tmp_path / "bad.jsonl"
    good.write_text(json.dumps(capital("France", "Lyon")))
    bad.write_text("{")
    assert palimpsest("submit", str(good))[0] == EXIT_OK
    assert (house.layout.inbox / "facts.jsonl").read_text() == good.read_text()
    status, said = palimpsest("submit", str(bad))
    assert (status, "1:" in said) == (EXIT_DATA, True)
    assert palimpsest("submit", "--wait", str(good))[0] == EXIT_UNREACHABLE
    assert palimpsest("submit", str(tmp_path / "none.jsonl"))[0] == EXIT_USAGE


@pytest.mark.usefixtures("two_live")
def test_verify_backup_doctor_and_gc(palimpsest: Cli, house: House) -> None:
    """Faults are found, said, and make the exit status 1."""
    assert palimpsest("verify") == (EXIT_OK, "no faults found\n")
    assert (Path(palimpsest.json("backup")[1]["path"]) / "ledger.sqlite").is_file()
    assert palimpsest("gc")[0] == EXIT_OK
    assert "daemon" in palimpsest("doctor")[1]
    weights = house.models.gen_dir(2) / "model-00002-of-00002.safetensors"
    weights.chmod(0o644)
    weights.write_text("x")
    status, said = palimpsest("verify")
    assert status == 1
    assert "generation 2" in said


def test_errors_have_their_exit_codes(palimpsest: Cli, house: House, tmp_path: Path) -> None:
    """Usage 64, configuration 78, locked 75; with --json the error is JSON."""
    bad = tmp_path / "bad.toml"
    bad.write_text("[daemon]\nstate = 1")
    assert palimpsest("config", "check", str(bad))[0] == EXIT_CONFIG
    assert palimpsest("config", "check")[0] == EXIT_OK
    assert palimpsest("fly")[0] == EXIT_USAGE
    assert cli.main(["status", "--state", str(tmp_path / "nowhere")]) == EXIT_USAGE
    with StateLock(house.layout.state):
        assert palimpsest("run")[0] == EXIT_LOCKED
    status, error = palimpsest.json("explain", "99")
    assert status != EXIT_OK
    assert error["error"]["cause"]


def test_the_command_line_loads_no_torch() -> None:
    """Only the worker child may; the daemon is this very process."""
    script = "import sys; from daemon.cli import make_parser; make_parser(); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=True, text=True
    )
    assert done.stdout == "False\n"


def test_another_package_called_daemon_is_refused() -> None:
    """python-daemon has the same import name; beside it nothing can be trusted."""
    cli.refuse_python_daemon("no-such-distribution")
    with pytest.raises(ConfigError):
        cli.refuse_python_daemon("pytest")


def test_a_date_means_its_end_in_utc() -> None:
    """`--as-of 2026-01-31` is what was served when that day was over."""
    assert moment("2026-01-31") == datetime(2026, 1, 31, 23, 59, 59, 999999, tzinfo=UTC)
    with pytest.raises(argparse.ArgumentTypeError):
        moment("yesterday")


def test_tables_never_exceed_their_width() -> None:
    """The widest columns give way, each with an ellipsis."""
    text = console.table(("id", "reason"), [(1, "x" * 200), (2, None)])
    assert [len(line) for line in text.splitlines()] == [10, 80, 5]
    assert text.splitlines()[1].endswith("…")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_that_knows_every_command(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The script names each command; bash can read it."""
    assert cli.main(["completion", shell]) == EXIT_OK
    script = capsys.readouterr().out
    assert all(command in script for command in ("rollback", "materialize", "config", "explain"))
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_help_shows_examples_that_parse() -> None:
    """What the help tells to type is understood, up to a shell's redirection."""
    parser = cli.make_parser()
    for example in (line for lines in cli.EXAMPLES.values() for line in lines):
        parser.parse_args(shlex.split(example.partition(" > ")[0]))


def test_status_names_the_refused_files_and_why(palimpsest: Cli, house: House, clock: FakeClock) -> None:
    """The newest three with their first error, so that nobody has to look for it in failed/."""
    inbox = Inbox(house.layout, house.config.inbox, clock.monotonic)
    for name in ("a", "b", "c", "d"):
        ScriptedFolder(house.layout.inbox, clock).drop(f"{name}.jsonl", '{"subject": "France"}\n')
        ingest_ready(house, inbox)
        clock.advance(60)
    report = house.layout.failed / "d.jsonl.error.json"
    assert json.loads(report.read_text("utf-8"))["code"] == "missing"
    status, text = palimpsest("status")
    assert status == EXIT_OK
    assert "refused     4 files in failed/" in text
    assert text.count("'relation' is required") == 3
    report.write_text("{")
    assert "see failed/d.jsonl.error.json" in palimpsest("status")[1]
