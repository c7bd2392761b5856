"""`palimpsest bench` as a command: arguments, report, table and picture."""

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from daemon import bench, bench_plot, bench_table, cli
from daemon.fakes import tiny_model
from policies.editing import bank, neighbours
from policies.editing.tally import Tally, point
from store.errors import EXIT_OK, EXIT_USAGE, UsageError

pytestmark = pytest.mark.slow

CASE = {
    "subject": "Ada",
    "relation": "place",
    "old": "Oslo",
    "new": "Rome",
    "prompts": ["Ada is in"],
    "questions": ["Where is Ada?"],
    "paraphrases": ["The place of Ada is"],
    "paraphrase_questions": ["Do you know where Ada is?"],
}


def made_point(recipe: str, n_edits: int) -> dict[str, Any]:
    tally = Tally()
    for name in ("new_train", "new_held", "old_gone", "unrelated"):
        tally.add(name, [True] * 7 + [False])
    tally.kinds["train_question"]["new"] = 8
    tally.edit_seconds += [1.0, 2.0]
    tally.norms += [3.0]
    tally.add_stages([("learn", 1.0)])
    return json.loads(json.dumps(point(tally, recipe=recipe, n_edits=n_edits, cases=2)))  # type: ignore[no-any-return]


def report(*recipes: str, marks: tuple[int, ...] = (1, 5)) -> dict[str, Any]:
    return {
        "model": "tiny",
        "recipe": ",".join(recipes),
        "mode": "sequential",
        "points": [made_point(r, n) for r in recipes for n in marks],
        "first_again": [],
    }


@pytest.fixture
def cases_file(tmp_path: Path) -> Path:
    path = tmp_path / "cases.jsonl"
    path.write_text("".join(json.dumps({"id": f"t-{i}"} | CASE) + "\n" for i in range(3)), "utf-8")
    return path


def test_two_recipes_are_measured_in_one_run(
    tmp_path: Path,
    cases_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A report with a point a recipe, a table with a row for each, and a picture."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(bank, "PROBES", 20)
    monkeypatch.setattr(neighbours, "MOST", 2)
    out, png = tmp_path / "out.json", tmp_path / "out.png"
    model = str(tiny_model(tmp_path / "tiny"))
    asked = ["--cases", str(cases_file), "--n", "1", "--skip", "1", "--model", model, "--unknown"]
    status = cli.main(["bench", *asked, "--recipe", "none,prompt", "--json", str(out), "--png", str(png)])
    assert status == EXIT_OK, capsys.readouterr().err
    found = json.loads(out.read_text("utf-8"))
    assert [(p["recipe"], p["n_edits"], p["cases"]) for p in found["points"]] == [
        ("none", 1, 1),
        ("prompt", 1, 1),
    ]
    assert (found["complete"], found["mode"], found["skip"], found["n"]) == (True, "single", 1, 1)
    assert [e["id"] for e in found["edits"]] == ["t-1", "t-1"]
    assert png.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    shown = capsys.readouterr().out
    assert "none " in shown
    assert "prompt " in shown


def test_recipes_may_be_listed_or_repeated() -> None:
    """Names keep their order, each once; without any it is the default."""
    assert bench.recipe_names(["rome,lora", "none", "rome"]) == ["rome", "lora", "none"]
    assert bench.recipe_names(None) == ["default"]


def test_an_unknown_recipe_is_refused_before_anything_is_measured(
    cases_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 64 and the names that there are."""
    assert cli.main(["bench", "--cases", str(cases_file), "--recipe", "default,nonsense"]) == EXIT_USAGE
    assert "finetune-layer" in capsys.readouterr().err


def test_skipping_all_cases_is_refused(cases_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """There is nothing to measure beyond the end of the file."""
    assert cli.main(["bench", "--cases", str(cases_file), "--skip", "3"]) == EXIT_USAGE
    assert "holds no case" in capsys.readouterr().err


def test_tables_fit_a_terminal() -> None:
    """No line is over 80 columns, in full or compared, with the longest names there are."""
    full = bench_table.table([report("default")])
    compared = bench_table.table([report("random-modules", "published-1e-2")])
    assert max(len(line) for line in (*full.splitlines(), *compared.splitlines())) <= 80
    assert "new 100  old 0" in full
    for recipe in ("random-modules", "published-1e-2"):
        assert sum(line.startswith(recipe) for line in compared.splitlines()) == 2


def test_a_compared_point_shows_shares_above_their_intervals() -> None:
    """Seven of eight is 88 %, 53 to 98; what wasn't measured is a dash."""
    lines = bench_table.table([report("none", "rome", marks=(1,))]).splitlines()
    assert lines[2].split() == ["none", "1", "88", "88", "88", "-", "88", "-", "-", "2"]
    assert lines[3].split() == ["53-98"] * 4


def test_the_picture_has_a_line_a_recipe(tmp_path: Path) -> None:
    """Both panels draw every recipe of this run and of earlier ones, at the N that were measured."""
    drawn = [report("default", "rome"), report("rome", marks=(1,))]
    figure = bench_plot.picture(drawn)
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["default", "rome", "rome #2"]
    for axes in figure.axes:
        counts = [list(c.lines[0].get_xdata()) for c in axes.containers]  # type: ignore[attr-defined]
        assert counts == [[1, 5], [1, 5], [1]]
    out = tmp_path / "out.png"
    bench_plot.draw(drawn, out)
    assert out.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_a_picture_without_matplotlib_is_refused_before_measuring(
    cases_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The message says what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    argv = ["bench", "--cases", str(cases_file), "--png", str(tmp_path / "out.png")]
    assert cli.main(argv) == EXIT_USAGE
    assert "[bench]" in capsys.readouterr().err


def test_an_earlier_report_is_read_and_anything_else_refused(tmp_path: Path) -> None:
    """Reports of before recipes could be compared name theirs at the top."""
    old = copy.deepcopy(report("default"))
    for found in old["points"]:
        del found["recipe"]
    path = tmp_path / "old.json"
    path.write_text(json.dumps(old), "utf-8")
    assert [p["recipe"] for p in bench.read_report(path)["points"]] == ["default", "default"]
    path.write_text('{"points": [{}]}', "utf-8")
    with pytest.raises(UsageError, match="bench --json"):
        bench.read_report(path)
