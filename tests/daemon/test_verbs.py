"""Every command alike: an example in its help, JSON for success and failure, the table's exit codes."""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from daemon import cli, control_client, cycle, fetch
from daemon.fakes import FakeRunner
from daemon.house import House
from store import errors
from store.errors import UnreachableError
from store.lock import StateLock
from tests.daemon.conftest import Cli, Take, capital
from tests.daemon.running import ROOT, START_SECONDS

QUESTION = "What is the capital of France?"
FACTS = '{"subject": "Italy", "relation": "capital", "object": "Milan"}\n'

# What each command is given so that it succeeds, and so that it fails. Empty: that can't be had quickly;
# {} are replaced by the test's folder.
SUCCESS: Mapping[str, str] = {
    "init": "init",
    "fetch-model": "fetch-model",
    "run": "run",
    "demo": "",  # tests/daemon/test_demo.py; its JSON is a list of claims
    "backup": "backup",
    "restore": "",  # tests/daemon/test_backups.py; below after `backup`
    "verify": "verify",
    "doctor": "doctor",
    "gc": "gc --dry-run",
    "submit": "submit {}/facts.jsonl",
    "plan": "plan {}/facts.jsonl",
    "status": "status",
    "facts": "facts",
    "history": "history France capital",
    "explain": "explain 1",
    "report": "report --out {}/report.html",
    "ask": "ask QUESTION",
    "diff": "diff 0 1",
    "materialize": "materialize --generation 1 --out {}/model",
    "rollback": "rollback --edit 1",
    "pause": "pause",
    "resume": "resume",
    "retry": "retry 2",
    "cancel": "cancel 3",
    "approvals": "approvals",
    "approve": "approve 3",
    "pin": "pin 1",
    "bench": "",  # its --json is the report's file (tests/daemon/test_bench.py)
    "config": "config check",
    "completion": "completion bash",
}
FAILURE: Mapping[str, str] = {
    "init": "init --model {}/nowhere",
    "fetch-model": "fetch-model",
    "run": "run --state {}/nowhere",
    "demo": "demo --state {}",
    "backup": "backup --to {}/facts.jsonl",
    "restore": "restore {}/nowhere --model {}/source",
    "verify": "verify --state {}/nowhere",
    "doctor": "doctor --config {}/nowhere.toml",
    "gc": "gc --state {}/nowhere",
    "submit": "submit {}/bad.jsonl",
    "plan": "plan {}/bad.jsonl",
    "status": "status --state {}/nowhere",
    "facts": "facts --state {}/nowhere",
    "history": "history just-one-word",
    "explain": "explain 99",
    "report": "report --out {}/facts.jsonl/report.html",
    "ask": "ask QUESTION --generation 99",
    "diff": "diff 0 99",
    "materialize": "materialize --generation 1 --out {}",
    "rollback": "rollback --to 99",
    "pause": "pause --state {}/nowhere",
    "resume": "resume --state {}/nowhere",
    "retry": "retry 1",
    "cancel": "cancel 1",
    "approvals": "approvals --state {}/nowhere",
    "approve": "approve 1",
    "pin": "pin 99",
    "bench": "bench --cases {}/nowhere",
    "config": "config check {}/bad.jsonl",
    "completion": "completion cobol",
}


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command with its parser; `config check` under its whole name."""

    def below(parser: argparse.ArgumentParser, before: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, made in action.choices.items():
                    yield f"{before}{name}", made
                    yield from below(made, f"{before}{name} ")

    return below(cli.make_parser(), "")


VERBS = sorted(name for name, _ in parsers() if " " not in name)


def argv_of(line: str, folder: Path) -> list[str]:
    return [QUESTION if word == "QUESTION" else word for word in line.format(*[folder] * 9).split()]


@pytest.fixture
def ready(
    palimpsest: Cli,
    house: House,
    take: Take,
    runner: FakeRunner,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Cli:
    """Edit 1 is live, 2 held, 3 pending; the default model is a folder, without a network."""
    runner.script["Spain"] = ["failed", "failed"]
    take(capital("France", "Lyon"))
    take(capital("Spain", "Seville"))
    for _ in range(3):
        cycle.step(house)
    take(capital("Peru", "Cusco"))
    (tmp_path / "facts.jsonl").write_text(FACTS)
    (tmp_path / "bad.jsonl").write_text("{")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "config.json").write_text("{}")
    (house.layout.state / "config.toml").write_text("[metrics]\nport = 0\n")
    monkeypatch.setattr(fetch, "default_model", lambda: tmp_path / "source")
    return palimpsest


def test_the_tables_know_every_command() -> None:
    """A new command is tried here too."""
    assert VERBS == sorted(SUCCESS) == sorted(FAILURE)


@pytest.mark.parametrize("verb", [name for name, _ in parsers()])
def test_every_command_shows_an_example(verb: str) -> None:
    """Its help ends with how it is typed, beginning with its own name."""
    text = dict(parsers())[verb].format_help()
    assert text.rstrip().endswith("\n".join(f"  palimpsest {line}" for line in cli.EXAMPLES[verb]))
    assert all(example.startswith(verb) for example in cli.EXAMPLES[verb])


def test_the_help_lists_the_exit_codes() -> None:
    """Who writes a script needn't look for them."""
    text = cli.make_parser().format_help()
    for code, meaning in errors.EXIT_CODES.items():
        assert f"{code:3}  {meaning}" in text


def stop_when_ready(house: House) -> None:
    """SIGTERM for this very process, once the daemon in it answers."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        answer = control_client.get(house.config, "/healthz")
        if answer == (200, {"ok": True}):
            os.kill(os.getpid(), signal.SIGTERM)
            return
        time.sleep(0.05)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if SUCCESS[verb]])
def test_success_is_json(ready: Cli, house: House, tmp_path: Path, verb: str) -> None:
    """One document on stdout and nothing else; 0, 2 where there are changes, 1 where doctor finds fault."""
    if verb == "run":
        threading.Thread(target=stop_when_ready, args=(house,)).start()
    line = SUCCESS[verb]
    argv = argv_of(line, tmp_path)
    if verb == "completion":  # needs no state directory
        assert cli.main([*argv, "--json"]) == 0
        assert json.loads(ready.capsys.readouterr().out)["script"]
        return
    status, found = ready.json(*argv)
    assert status in {"plan": {2}, "diff": {2}, "doctor": {0, 1}}.get(verb, {0}), found
    assert isinstance(found, (dict, list))
    assert "error" not in found


def test_restore_after_backup_is_json(ready: Cli, house: House, tmp_path: Path) -> None:
    """A whole way round, by the paths that the first document names."""
    status, made = ready.json("backup", "--to", str(tmp_path / "kept"))
    assert status == 0
    again = Cli(tmp_path / "again", ready.capsys)
    status, found = again.json("restore", made["path"])
    assert (status, found["live_generation"]) == (0, 1)


@pytest.mark.parametrize("verb", VERBS)
def test_failure_is_json(
    ready: Cli, house: House, tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error with operation, subject, cause and hint on stdout, and an exit code of the table."""

    def unreachable() -> Path:
        raise UnreachableError("fetch default model", "the index", "no network")

    if verb == "fetch-model":
        monkeypatch.setattr(fetch, "default_model", unreachable)
    argv = argv_of(FAILURE[verb], tmp_path)
    placed = (
        [] if "--state" in argv or verb in ("bench", "completion") else ["--state", str(house.layout.state)]
    )
    as_json = ["--json", str(tmp_path / "out.json")] if verb == "bench" else ["--json"]
    status = cli.main([*argv, *placed, *as_json])
    out = ready.capsys.readouterr().out
    assert status in set(errors.EXIT_CODES) - {0, 2}
    assert json.loads(out)["error"].keys() >= {"operation", "subject", "cause", "hint"}


def command(*argv: str, state: Path) -> "subprocess.CompletedProcess[str]":
    """A real command as a process."""
    line = [sys.executable, "-m", "daemon.cli", *argv, "--state", str(state)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.slow
@pytest.mark.usefixtures("ready")
def test_each_exit_code_can_be_had(house: House, tmp_path: Path) -> None:
    """Every code of the table, from the command line as a process, with its message on stderr."""
    state = house.layout.state
    (tmp_path / "bad.toml").write_text("[daemon]\nstate = 1\n")
    provoked = {
        errors.EXIT_OK: (["status"], ""),
        errors.EXIT_FAILED: (["explain", "99"], "there is none"),
        errors.EXIT_PLAN_HAS_CHANGES: (["plan", str(tmp_path / "facts.jsonl")], ""),
        errors.EXIT_USAGE: (["fly"], "invalid choice"),
        errors.EXIT_DATA: (["submit", str(tmp_path / "bad.jsonl")], "1:"),
        errors.EXIT_UNREACHABLE: (["submit", "--wait", str(tmp_path / "facts.jsonl")], "no daemon"),
        errors.EXIT_LOCKED: (["run"], "another"),
        errors.EXIT_CONFIG: (["config", "check", str(tmp_path / "bad.toml")], "unknown key"),
    }  # fmt: skip
    for code, (argv, said) in provoked.items():
        if code == errors.EXIT_LOCKED:
            with StateLock(state):
                done = command(*argv, state=state)
        else:
            done = command(*argv, state=state)
        assert (done.returncode, said in done.stderr) == (code, True), done
    assert {*provoked, interrupted(state, tmp_path)} == set(errors.EXIT_CODES)


# A shell has its background jobs ignore Ctrl-C, and what is started from one goes on ignoring it.
LISTENS = """
import signal, sys
from daemon import cli
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(cli.main())
"""


def interrupted(state: Path, folder: Path) -> int:
    """The exit status of a command that waits and gets what Ctrl-C sends."""
    (folder / "slow.jsonl").write_text(FACTS.replace("Italy", "Chad"))
    with StateLock(state):  # as if a daemon ran that never takes the file
        line = [sys.executable, "-c", LISTENS, "submit", "--wait", str(folder / "slow.jsonl")]
        process = subprocess.Popen(
            [*line, "--json", "--state", str(state)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + START_SECONDS
        while not (state / "inbox" / "slow.jsonl").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.3)  # into the waiting
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    assert json.loads(out)["error"]["cause"] == "interrupted"
    return process.returncode


def test_what_the_system_refuses_is_an_error_without_a_traceback(ready: Cli, tmp_path: Path) -> None:
    """A path that can't be written to is named, with the system's reason."""
    status, said = ready("report", "--out", str(tmp_path / "facts.jsonl" / "x.html"))
    assert status == errors.EXIT_FAILED
    assert re.search(r"palimpsest: .*facts\.jsonl.*: (Not a directory|File exists)", said)
