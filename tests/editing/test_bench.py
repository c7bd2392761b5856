"""The harness on a tiny random model: which cases, which points, what each of them counts."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from policies.editing import bench
from policies.editing.baselines.method import Edited, Task, World
from policies.editing.baselines.ours import Prompted, nothing
from policies.editing.baselines.registry import NAMES
from policies.editing.cases import read_cases
from policies.editing.edit import ask_before
from policies.editing.fit import NoProgressError
from policies.editing.measure import answers
from policies.editing.suites import MEASURED_TOKENS, reference
from policies.editing.tally import METRICS, WORDINGS, Tally, drift, forget_peak, peak_rss, point
from store.errors import UsageError
from store.facts import AnswerKind, Phrasing, Reading, Suite
from tests.editing.test_baselines import SHORT, fingerprint, world

pytestmark = pytest.mark.slow

__all__ = ["world"]  # a fixture

SUBJECTS = ("Ada", "Bob", "Eve")
SLOW = {"gentle", "unguarded", "one-stage", "random-modules"}  # `default` with other settings


def record(subject: str) -> dict[str, Any]:
    return {
        "id": f"t-{subject}",
        "subject": subject,
        "relation": "place",
        "old": "Oslo",
        "new": "Rome",
        "prompts": [f"{subject} is in"],
        "questions": [f"Where is {subject}?"],
        "paraphrases": [f"The place of {subject} is"],
        "paraphrase_questions": [f"Do you know where {subject} is?"],
        "neighbours": [{"question": "Where is Zoe?", "answer": "Bonn"}],
    }


@pytest.fixture
def cases_file(tmp_path: Path) -> Path:
    path = tmp_path / "cases.jsonl"
    path.write_text("\n\n".join(json.dumps(record(s)) for s in SUBJECTS) + "\n", "utf-8")
    return path


def test_cases_are_taken_after_those_skipped(cases_file: Path) -> None:
    """`skip` and `limit` count cases, not lines."""
    assert [c.request.key.subject for c in read_cases(cases_file, 5, skip=1)] == ["Bob", "Eve"]
    assert [c.request.key.subject for c in read_cases(cases_file, 1, skip=2)] == ["Eve"]
    assert read_cases(cases_file, 5, skip=3) == []


def test_a_case_shows_the_editor_nothing_that_is_measured(cases_file: Path) -> None:
    """Held-out wordings and the neighbours asked about are not in the request."""
    (case,) = read_cases(cases_file, 1)
    assert not {p.text for p in case.held_out} & {p.text for p in case.request.train}
    assert case.request.held_out == ()
    assert "Zoe" not in case.request.neighbours


def test_a_case_that_lacks_a_field_is_named_by_line(tmp_path: Path) -> None:
    """The error says which line and what is missing."""
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps({"id": "x"}) + "\n", "utf-8")
    with pytest.raises(UsageError, match=r"line 1: missing subject"):
        read_cases(path, 1)


def test_what_the_base_does_not_know_is_left_out(world: World, cases_file: Path) -> None:
    """A case needs two wordings with the old object and a neighbour its right answer; both are counted."""
    cases = read_cases(cases_file, 3)
    cloze = Phrasing("Ada is in", False)
    (said,) = answers(world.lm, [cloze], max_new_tokens=MEASURED_TOKENS)
    request = replace(cases[0].request, old=said)
    known = replace(cases[0], request=request, train=(cloze,), held_out=(cloze,))
    once = replace(known, id="once", held_out=())
    kept, left = bench.firm(world, [known, once, *cases[1:]])
    assert [(c.id, c.neighbours) for c in kept] == [("t-Ada", ())]
    assert left == {"cases": ["once", "t-Bob", "t-Eve"], "neighbours": 1}
    assert len(bench.firm(world, cases, least=0)[0]) == 3


@pytest.mark.parametrize("name", sorted(set(NAMES) - SLOW))
def test_every_recipe_runs_in_the_harness(
    world: World, cases_file: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two cases in one model: points after one and at the end, the first one again, the base intact."""
    monkeypatch.setattr(bench, "FIRST", 1)
    report, before = bench.Report(), fingerprint(world.lm)
    bench.run_sequential(world, read_cases(cases_file, 2), name, SHORT[name](), report)
    assert [(p["recipe"], p["n_edits"]) for p in report.points] == [(name, 1), (name, 2)]
    assert [p["failed"] for p in report.points] == [0, 0]
    assert [e["id"] for e in report.edits] == ["t-Ada", "t-Bob"]
    (again,) = report.first_again
    assert (again["cases"], again["metrics"]["new_held"]["n"]) == (1, 2)
    assert fingerprint(world.lm) == before


def test_a_point_counts_every_wording_once(world: World, cases_file: Path) -> None:
    """Kinds are of all answers by wording; metrics keep their names; nothing drifts without an edit."""
    report = bench.Report()
    bench.run_single(world, read_cases(cases_file, 3), "none", nothing, report)
    (found,) = report.points
    assert (found["n_edits"], found["cases"]) == (1, 3)
    assert set(found["metrics"]) == set(METRICS)
    assert {w: k["n"] for w, k in found["kinds"].items()} == dict.fromkeys(WORDINGS, 3)
    for kinds in found["kinds"].values():
        assert sum(round(kinds[kind]["value"] * kinds["n"]) for kind in AnswerKind) == kinds["n"]
        assert kinds["new"]["low"] <= kinds["new"]["value"] <= kinds["new"]["high"]
    assert found["metrics"]["unrelated"]["n"] == 3 * len(world.bank.report)
    assert found["metrics"]["same_subject"] == {"value": None, "low": 0.0, "high": 1.0, "n": 0}
    assert found["kl"]["value"] == pytest.approx(0, abs=1e-6)
    assert found["kl"]["n"] == 3
    assert found["norm"] == {"of": "nothing", "median": 0.0, "max": 0.0, "last": 0.0}


def test_an_edit_is_measured_with_its_weights_in_force(world: World, cases_file: Path) -> None:
    """An editing recipe drifts from the base, has a norm, bytes, stages and doubt after stage 1."""
    report = bench.Report()
    bench.run_single(world, read_cases(cases_file, 2), "p", SHORT["published-1e-2"](), report)
    (found,) = report.points
    assert found["kl"]["low"] > 0
    assert found["norm"]["of"] == "log scales"
    assert found["norm"]["median"] > 0
    assert found["bytes_per_edit"] > 0
    assert set(found["seconds_per_stage"]) == {"ask", "localise", "unlearn", "learn"}
    assert found["metrics"]["over_refusal_unlearn"]["n"] == 2
    assert found["gate_seconds"]["median"] > 0
    assert [e["metrics"]["new_train"]["n"] for e in report.edits] == [2, 2]


def test_the_report_is_published_after_every_case(world: World, cases_file: Path) -> None:
    """A killed run has lost the case it was working on and no more."""
    seen: list[tuple[int, int]] = []
    report = bench.Report(lambda r: seen.append((len(r.points), r.points[-1]["cases"])))
    cases = read_cases(cases_file, 2)
    bench.run_single(world, cases, "none", nothing, report)
    bench.run_single(world, cases, "prompt", Prompted(), report)
    assert seen == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert [p["recipe"] for p in report.points] == ["none", "prompt"]


def test_an_edit_without_a_solution_counts_as_failed_and_changes_nothing(
    world: World, cases_file: Path
) -> None:
    """The run goes on, and what is measured is the model without that edit."""

    def never(_world: World, task: Task) -> Edited:
        raise NoProgressError("fit", str(task.request.key), "none of the steps helped")

    report = bench.Report()
    bench.run_sequential(world, read_cases(cases_file, 2), "never", never, report)
    assert [p["failed"] for p in report.points] == [1, 1]
    assert report.points[-1]["kl"]["value"] == pytest.approx(0, abs=1e-6)
    assert [e["failed"] for e in report.edits] == [True, True]


def test_the_prompt_is_wrapped_for_every_suite(world: World, cases_file: Path) -> None:
    """What is asked holds the fact; the answer is judged by the case's own wording."""
    (case,) = read_cases(cases_file, 1)
    task = Task(case.request, ask_before(world.lm, case.request))
    state = Prompted(everywhere=True)(world, task).state
    wrapped = bench._wrapped(reference(world.lm, world.bank, [case.request], (), ()), state)
    assert all(a.phrasing.text.startswith("Ada is in Rome. ") for a in wrapped.asked)


def test_drift_is_over_texts_for_one_model_and_over_models_for_several() -> None:
    """One reading keeps its own interval; of several the mean has theirs."""
    one = Reading(Suite.KL_DRIFT, 0.2, 0.1, 0.3, 12)
    two = Reading(Suite.KL_DRIFT, 0.4, 0.1, 0.3, 12)
    assert drift([one]) == {"value": 0.2, "low": 0.1, "high": 0.3, "n": 12, "over": "texts"}
    both = drift([one, two])
    assert (both["value"], both["n"], both["over"]) == (pytest.approx(0.3), 2, "models")
    assert both["low"] < one.value
    assert two.value < both["high"]
    assert drift([])["value"] is None


def test_merged_tallies_count_all() -> None:
    """What two cases counted is added up, and an empty tally makes a point too."""
    one, two = Tally(), Tally()
    for tally, ok in ((one, True), (two, False)):
        tally.add("new_train", [ok])
        tally.kinds["held_cloze"]["old"] += 1
        tally.add_stages([("learn", 2.0)])
    one.merge(two)
    made = point(one, recipe="x", n_edits=1, cases=2)
    assert made["metrics"]["new_train"]["value"] == 0.5
    assert made["kinds"]["held_cloze"]["old"]["n"] == 2
    assert made["seconds_per_stage"] == {"learn": {"median": 2.0, "max": 2.0}}
    assert point(Tally(), recipe="x", n_edits=1, cases=0)["seconds_per_edit"]["median"] is None


def test_the_peak_of_memory_begins_anew() -> None:
    """A recipe isn't charged for what the one before it held and gave back."""
    held = bytearray(200_000_000)
    high = peak_rss()
    assert len(held) < high
    del held
    forget_peak()
    assert peak_rss() < high - 100_000_000
