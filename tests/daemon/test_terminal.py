"""What a terminal gets and a pipe doesn't: colours, bars, columns that are as wide as they look."""

import os
import pty
import re
import select
import subprocess
import sys
import termios
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon import console, cycle
from daemon.console import WIDTH, columns, cut, table
from daemon.fakes import FakeRunner
from daemon.house import House
from tests.daemon.conftest import Cli, Take, capital

ROOT = Path(__file__).resolve().parents[2]
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
PLAIN = {"TERM": "xterm-256color", "NO_COLOR": ""}


def environment(more: Mapping[str, str] = PLAIN) -> dict[str, str]:
    return {**os.environ, **PLAIN, "COLUMNS": "80", **more}


def piped(state: Path, *argv: str, **more: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "daemon.cli", *argv, "--state", str(state)]
    return subprocess.run(
        command, cwd=ROOT, env=environment(more), capture_output=True, text=True, check=False
    )


def on_terminal(state: Path, *argv: str, stdout: Path | None = None, **more: str) -> str:
    """What a terminal shows of a command, raw; with `stdout` only of its stderr."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, WIDTH))
    command = [sys.executable, "-m", "daemon.cli", *argv, "--state", str(state)]
    with open(stdout or os.devnull, "wb") as file:
        out = file if stdout else theirs
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(more), stdin=theirs, stdout=out, stderr=theirs
        )
    os.close(theirs)
    shown = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            found = os.read(ours, 65536)
        except OSError:  # EIO: the other end is closed
            break
        shown += found
        if not found:
            break
    os.close(ours)
    process.wait(60)
    return shown.decode().replace("\r\n", "\n")


@pytest.fixture
def state(house: House, take: Take, runner: FakeRunner) -> Path:
    """One edit live, one held, one pending, with facts as wide as they come."""
    runner.script["Spain"] = ["failed", "failed"]
    take(capital("日本国の非常に長い名前の都市について", "東京都千代田区霞が関一丁目二番三号の建物"))
    take(capital("Spain", "Seville"))
    take(capital("live", "held", effective_at="2090-01-01T00:00:00Z"))
    for _ in range(3):
        cycle.step(house)
    return house.layout.state


@pytest.mark.parametrize("argv", ["facts", "plan", "history", "status", "explain spain capital"])
def test_wide_facts_fit(palimpsest: Cli, state: Path, argv: str) -> None:
    """What the tables really hold, in characters that take two columns each."""
    _, text = palimpsest(*argv.split())
    assert max(map(seen_width, text.splitlines())) <= WIDTH
    assert "  " in text


COLOURED = (
    (["status"], ("32mlive", "31mheld", "33mpending", "31mheld        \x1b")),
    (["explain", "1"], ("32mlive", "32mpass", "1msuite")),
    (["explain", "spain", "capital"], ("31mheld", "1medit")),
    (["plan"], ("31mblocked", "1maction")),
    (["history"], ("32mlive", "1mgen")),
    (["doctor"], ("32mok",)),
)


@pytest.mark.slow
@pytest.mark.parametrize(("argv", "painted"), COLOURED, ids=lambda value: str(value[0]))
def test_colours_are_for_terminals_and_move_nothing(
    state: Path, argv: list[str], painted: tuple[str, ...]
) -> None:
    """States and verdicts are coloured on a terminal; without the colours it is what a pipe gets."""
    shown = on_terminal(state, *argv)
    for each in painted:
        assert f"\x1b[{each}" in shown
    assert ESCAPE.sub("", shown) == piped(state, *argv).stdout


@pytest.mark.slow
def test_whoever_wants_no_colours_gets_none(state: Path, tmp_path: Path) -> None:
    """NO_COLOR, a dumb terminal, JSON, a file, and an empty NO_COLOR, which means nothing."""
    for shown in (
        on_terminal(state, "status", NO_COLOR="1"),
        on_terminal(state, "status", TERM="dumb"),
        on_terminal(state, "status", "--json"),
        on_terminal(state, "status", stdout=tmp_path / "out"),
        (tmp_path / "out").read_text("utf-8"),
    ):
        assert "\x1b" not in shown
    assert "\x1b[32mlive" in on_terminal(state, "status", NO_COLOR="")


@pytest.mark.slow
def test_a_fact_that_is_called_like_a_state_is_not_coloured(state: Path) -> None:
    """Only columns that hold states are looked at: the subject `live` with the object `held` is plain."""
    (line,) = [line for line in on_terminal(state, "facts").splitlines() if line.startswith("live")]
    assert "held" in line
    assert "\x1b" not in line


@pytest.mark.slow
@pytest.mark.parametrize("argv", [["verify"], ["backup"]])
def test_bars_are_drawn_on_a_terminal_only(state: Path, tmp_path: Path, argv: list[str]) -> None:
    """On stderr, gone in the end, whatever becomes of stdout; a pipe gets not a byte."""
    shown = on_terminal(state, *argv, stdout=tmp_path / "out")
    assert re.search(rf"{argv[0]} .*\d\d:\d\d", shown)
    assert shown.rpartition("\r")[2].strip() == ""
    assert argv[0] not in (tmp_path / "out").read_text("utf-8").split("\n")[-1]
    assert piped(state, *argv).stderr == ""


def test_progress_in_a_log_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What takes long without a terminal still says that it lives, in whole lines."""
    with console.progress("init") as on_stage:
        on_stage("bank: 1/600")
        assert capsys.readouterr().err == ""
        monkeypatch.setattr(console, "LOG_SECONDS", 0.0)
        on_stage("bank: 2/600")
        on_stage("bank: 3/600")
    assert capsys.readouterr().err == "init bank: 2/600\ninit bank: 3/600\n"


def seen_width(text: str) -> int:
    """An independent, pessimistic measure: wide and full-width characters take two columns."""
    narrow = {"Mn", "Me", "Cf"}
    return sum(
        (2 if unicodedata.east_asian_width(c) in "WF" else 1)
        for c in text
        if unicodedata.category(c) not in narrow
    )


words = st.text(
    st.one_of(
        st.characters(min_codepoint=0x20, max_codepoint=0x7E),
        st.sampled_from("日本語の都市名カナ한국어ｆｕｌｌｗｉｄｔｈ🙂e\u0301\u200d…—\t\n\x1b"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=60,
)
tables = st.integers(1, 8).flatmap(
    lambda n: st.tuples(
        st.lists(words, min_size=n, max_size=n), st.lists(st.lists(words, min_size=n, max_size=n))
    )
)


@given(tables)
def test_no_line_of_a_table_is_wider_than_a_terminal(made: tuple[list[str], list[list[str]]]) -> None:
    """Whatever the script: at most 80 columns, one line a row, no control character."""
    head, rows = made
    lines = table(head, rows).split("\n")
    assert len(lines) == 1 + len(rows)
    assert all(seen_width(line) <= WIDTH for line in lines)
    assert not any(unicodedata.category(c) == "Cc" for line in lines for c in line)


@given(st.lists(words, min_size=1))
def test_columns_begin_at_one_place(cells: list[str]) -> None:
    """Whatever stands before it, a column begins as far to the right in every row as a terminal counts."""
    lines = table(("fact", "mark"), [(cell, "|") for cell in cells]).split("\n")
    assert len({seen_width(line[: line.rindex("|")]) for line in lines[1:]}) == 1


@given(words, st.integers(1, 40))
def test_cutting_keeps_the_beginning(text: str, width: int) -> None:
    """Never wider than asked, with an ellipsis exactly where something is missing."""
    kept = cut(text, width)
    assert columns(kept) <= width
    assert kept == text or (kept.endswith("…") and text.startswith(kept[:-1]))
