"""The command line: every command, its exit status, and what it prints."""

import argparse
import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from daemon import asking, cli, console, cycle, house, initialise, rollback
from daemon.commands_model import moment
from daemon.fakes import FakeClock, FakeRunner
from daemon.house import House
from store.errors import (
    EXIT_CONFIG,
    EXIT_DATA,
    EXIT_LOCKED,
    EXIT_OK,
    EXIT_PLAN_HAS_CHANGES,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    ConfigError,
)
from store.lock import StateLock
from tests.daemon.conftest import Take, capital

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Cli:
    """Runs commands on one state directory with the fake runner."""

    state: Path
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *argv: str) -> tuple[int, str]:
        status = cli.main([*argv, "--state", str(self.state)])
        captured = self.capsys.readouterr()
        return status, captured.out + ("" if status == 0 else captured.err)

    def json(self, *argv: str) -> Any:
        status = cli.main([*argv, "--state", str(self.state), "--json"])
        return status, json.loads(self.capsys.readouterr().out)


@pytest.fixture
def palimpsest(
    house: House, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Cli:
    """Commands beside a house that has done some work, no daemon running."""
    return use_fake(runner, monkeypatch, house.layout.state, capsys)


def use_fake(runner: FakeRunner, monkeypatch: pytest.MonkeyPatch, state: Path, capsys: Any) -> Cli:
    monkeypatch.setattr(house, "make_runner", lambda config: runner)
    monkeypatch.setattr(asking, "make_runner", lambda config: runner)
    return Cli(state, capsys)


@pytest.fixture
def two_live(house: House, take: Take, clock: FakeClock) -> None:
    """France -> Lyon, then Spain -> Seville, a day apart."""
    for subject, object in (("France", "Lyon"), ("Spain", "Seville")):
        take(capital(subject, object))
        cycle.step(house)
        clock.advance(86400)


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
    """A second try's measures stand for the edit; those of the first are kept in the JSON."""
    runner.script["France"] = ["bad", "good"]
    take(capital("France", "Lyon"))
    cycle.step(house)
    cycle.step(house)
    assert palimpsest("explain", "1")[1].count("old_rank") == 1
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


@pytest.mark.usefixtures("two_live")
def test_diff_shows_the_answers_that_two_generations_give_differently(palimpsest: Cli) -> None:
    """Generation 1 knows France's edit, generation 2 Spain's too: one of two facts differs."""
    status, found = palimpsest.json("diff", "1", "2")
    assert (status, found["asked"]) == (EXIT_PLAN_HAS_CHANGES, 2)
    (row,) = found["different"]
    assert (row["about"], row["one"], row["other"]) == ("fact", "Madrid", "Seville")
    assert "Spain" in row["prompt"]
    assert palimpsest("diff", "2", "2") == (EXIT_OK, "0 of 2 answers differ\n")
    assert palimpsest("diff", "1", "9")[0] == 1


@pytest.mark.usefixtures("two_live")
def test_materialize_writes_a_past_model_that_shares_no_file(palimpsest: Cli, house: House) -> None:
    """The files are those of the generation, and writing into them can't harm the base; a directory that is
    there already is left alone."""
    out = house.layout.state / "export"
    status, found = palimpsest.json("materialize", "--generation", "1", "--out", str(out))
    assert (status, found["weights_sha256"]) == (EXIT_OK, house.ledger.generation(1).weights_sha256)
    served = house.models.gen_dir(1)
    for path in out.iterdir():
        assert path.read_bytes() == (served / path.name).read_bytes()
        assert path.stat().st_nlink == 1
    assert palimpsest("materialize", "--generation", "1", "--out", str(out))[0] == EXIT_USAGE
    assert palimpsest("materialize", "--as-of", "2020-01-01", "--out", str(out / "x"))[0] == EXIT_USAGE


@pytest.mark.usefixtures("two_live")
def test_a_dry_run_changes_no_byte(palimpsest: Cli, house: House, tmp_path: Path) -> None:
    """submit, rollback and gc say what they would do; names, bytes and links of the state directory stay."""
    house.blobs.put(b"nobody refers to this")
    facts = tmp_path / "facts.jsonl"
    facts.write_text('{"subject": "Italy", "relation": "capital", "object": "Turin"}\n', "utf-8")
    before = contents(house.layout.state)
    for argv, says in (
        (["submit", "--dry-run", str(facts)], "Italy"),
        (["plan", str(facts)], "Italy"),
        (["rollback", "--dry-run", "--to", "0"], "would serve generation 0"),
        (["rollback", "--dry-run", "--edit", "1"], "a new generation"),
        (["rollback", "--dry-run", "--fact", "Spain", "capital"], "would serve generation 1"),
        (["gc", "--dry-run"], "1 blobs would go"),
    ):
        status, text = palimpsest(*argv)
        assert status == EXIT_PLAN_HAS_CHANGES
        assert says in text
        assert contents(house.layout.state) == before


def contents(folder: Path) -> dict[str, str]:
    """Every name below a folder with its bytes' digest or its link's target. SQLite's shared memory isn't
    data: readers note in it that they read."""
    return {
        str(path.relative_to(folder)): str(path.readlink())
        if path.is_symlink()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if (path.is_symlink() or path.is_file()) and not path.name.endswith("-shm")
    }


@pytest.mark.usefixtures("two_live")
def test_report_is_one_page_that_loads_nothing(
    palimpsest: Cli, house: House, take: Take, tmp_path: Path
) -> None:
    """Facts, edits, readings and rollbacks are in it, text from outside is escaped, and no script, link or
    address is."""
    take(capital("<script>alert(1)</script>", "A & B"))
    rollback.to_generation(house, 1)
    out = tmp_path / "report.html"
    assert palimpsest("report", "--out", str(out))[0] == EXIT_OK
    page = out.read_text("utf-8")
    for text in (
        "Lyon",
        "Seville",
        "rolled back to generation 1",
        "efficacy of generation 2: 1",
        "A &amp; B",
    ):
        assert text in page
    assert not re.search(r"<script|<link|<img|https?:|@import|url\(", page)
    opened, closed = (Counter(re.findall(rf"<{end}(table|tr|td|svg|dl|div|p)\b", page)) for end in ("", "/"))
    assert opened == closed


@pytest.mark.slow
@pytest.mark.usefixtures("two_live")
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium isn't installed")
def test_a_browser_lays_the_report_out(palimpsest: Cli, tmp_path: Path) -> None:
    """Headless Chromium renders both charts and all three tables, and reports no error."""
    out = tmp_path / "report.html"
    palimpsest("report", "--out", str(out))
    browser = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}/profile",
    ]
    done = subprocess.run(
        [*browser, "--dump-dom", out.as_uri()], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.count("<svg") == 2
    assert done.stdout.count("<table") == 2, "facts and edits; nothing was rolled back"
    assert "None." in done.stdout


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
