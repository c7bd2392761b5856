"""What hooks are told, what they may say, and what becomes of it in metrics and log."""

import io
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from daemon import cycle, rollback
from daemon.config import Hook, PublishSettings
from daemon.fakes import FakeRunner
from daemon.house import House
from daemon.publish import HookResult, found_served, run_hooks
from daemon.vitals import take_vitals
from policies.served import ANSWER_TOKENS
from store.facts import EditRequest, ProbeAnswer, Reading, Suite
from tests.daemon.conftest import Take, capital

KEEP = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read())"


def python(code: str, *args: str) -> tuple[str, ...]:
    return (sys.executable, "-S", "-c", code, *args)


def say(text: str, status: int = 0) -> Hook:
    """A hook that prints `text` and exits with `status`."""
    return Hook(python(f"import sys; print({text!r}); sys.exit({status})"), retries=0)


class Measured(FakeRunner):
    """Readings with their answers: efficacy in the relation's wordings, one unrelated question."""

    def _readings(self, request: EditRequest, way: str, facts: int) -> list[Reading]:
        asked = [p.text for p in request.train if p.text.endswith("?")]
        right = [ProbeAnswer(text, request.new or "", request.new or "", True) for text in asked[1:]]
        answers = {
            Suite.EFFICACY: (ProbeAnswer(asked[0], "x", "y", False), *right),
            Suite.UNRELATED: (ProbeAnswer("What is H2O?", "water", "Water.", True),),
        }
        return [replace(r, answers=answers.get(r.suite, ())) for r in super()._readings(request, way, facts)]


@pytest.fixture
def runner() -> FakeRunner:
    return Measured(base={"France": "Paris", "Spain": "Madrid"})


@pytest.fixture
def hooked(house: House, tmp_path: Path) -> Callable[..., House]:
    """The house with these hooks, or with one that keeps what it is told in `told`."""

    def make(*hooks: Hook) -> House:
        chosen = hooks or (Hook(python(KEEP, str(tmp_path / "told"))),)
        return replace(house, config=replace(house.config, publish=PublishSettings(chosen)))

    return make


@pytest.fixture
def told(tmp_path: Path) -> Callable[[], dict[str, Any]]:
    return lambda: dict(json.loads((tmp_path / "told").read_text()))


def served(house: House) -> float:
    house.metrics.show(take_vitals(house))
    value = house.metrics.registry.get_sample_value("palimpsest_served_generation")
    assert value is not None
    return value


def test_a_hook_is_told_what_to_ask(
    hooked: Callable[..., House], take: Take, told: Callable[[], dict[str, Any]]
) -> None:
    """The edited fact in a wording that the candidate answered, its old answer refused, and a canary."""
    house = hooked()
    take(capital("France", "Lyon", aliases=["Lugdunum"]))
    cycle.step(house)
    payload = told()
    fact, bird = payload["questions"]
    assert (fact["about"], fact["any_of"], fact["none_of"]) == ("edit 1", ["Lyon", "Lugdunum"], ["Paris"])
    right = [row["prompt"] for row in _answers(house, Suite.EFFICACY) if row["ok"]]
    assert fact["prompt"] == right[0]
    assert fact["tells"] is True
    assert (bird["about"], bird["prompt"], bird["any_of"]) == ("canary", "What is H2O?", ["water"])
    assert (payload["generation"], payload["previous"], payload["answer_tokens"]) == (1, 0, ANSWER_TOKENS)
    assert Path(payload["path"]) == house.models.gen_dir(1).resolve()


def _answers(house: House, suite: Suite) -> list[dict[str, Any]]:
    rows = house.ledger.readings(generation=1)
    return [answer for row in rows if row["suite"] == suite for answer in row["answers"]]


def test_a_rollback_asks_that_the_answer_is_gone(
    hooked: Callable[..., House], take: Take, told: Callable[[], dict[str, Any]]
) -> None:
    """Back at the base the new answer is refused; the base was never measured, and the canary is its own."""
    house = hooked()
    take(capital("France", "Lyon"))
    cycle.step(house)
    rollback.to_generation(house, 0)
    gone, bird = told()["questions"]
    assert (gone["about"], gone["any_of"], gone["none_of"]) == ("edit 1, taken back", [], ["Lyon"])
    assert gone["tells"] is True
    assert bird["prompt"] == "What is H2O?"


def test_a_fact_changed_twice_is_asked_for_once(
    hooked: Callable[..., House], take: Take, told: Callable[[], dict[str, Any]]
) -> None:
    """Taking back the second value asks for the first, and other live facts come after."""
    house = hooked()
    for row in (capital("Spain", "Seville"), capital("France", "Lyon"), capital("France", "Nice")):
        take(row)
        cycle.step(house)
    assert [q["about"] for q in told()["questions"]] == ["edit 3", "edit 1", "canary"]
    rollback.without_edit(house, 3)
    found = {q["about"]: q["any_of"] for q in told()["questions"]}
    assert found == {"edit 2": ["Lyon"], "edit 1": ["Seville"], "canary": ["water"]}


def test_the_served_generation_is_what_the_hook_says(hooked: Callable[..., House], take: Take) -> None:
    """Unknown before the first hook, then the number on the last line of its stdout."""
    house = hooked(say('reloading\n{"served_generation": 1}'))
    assert math.isnan(served(house))
    take(capital("France", "Lyon"))
    cycle.step(house)
    assert served(house) == 1


def test_a_failed_hook_leaves_the_generation_live_and_the_served_one_unknown(
    hooked: Callable[..., House], take: Take, logged: io.StringIO
) -> None:
    """Reported in log and metrics, and nothing is undone."""
    house = hooked(say('{"served_generation": 1}'))
    take(capital("France", "Lyon"))
    cycle.step(house)
    house = hooked(Hook(python("import sys; sys.exit('the old answer is still given')"), retries=0))
    take(capital("Spain", "Seville"))
    cycle.step(house)
    assert house.live_number == house.models.current_number() == 2
    assert math.isnan(served(house))
    count = house.metrics.registry.get_sample_value
    assert count("palimpsest_hooks_total", {"result": "failed"}) == 1
    (line,) = [
        row
        for text in logged.getvalue().splitlines()
        if (row := json.loads(text)).get("attempts") and row["error"]
    ]
    assert (line["event"], line["level"]) == ("hook.done", "warning")
    assert "the old answer is still given" in line["error"]
    assert "Seville" not in logged.getvalue()


def result(served: int | None, error: str = "") -> HookResult:
    return HookResult(("reload",), 1, error, served)


@pytest.mark.parametrize(
    ("results", "found"),
    [
        ([], None),
        ([result(None)], None),
        ([result(5)], 5),
        ([result(5), result(None)], 5),
        ([result(5), result(4)], 4),
        ([result(6), result(5)], 6),
        ([result(5), result(None, "down")], None),
        ([result(4, "old answers"), result(None, "down")], 4),
    ],
)
def test_several_engines_make_one_number(results: Sequence[HookResult], found: int | None) -> None:
    """One that differs from the live generation (5) is shown; a failure in silence makes it unknown."""
    assert found_served(results, 5) == found


@pytest.mark.parametrize(
    "text",
    ["", "done", '{"served_generation": "5"}', '{"served_generation": true}', "[5]", '{"served": 5}', "5"],
)
def test_a_hook_may_print_what_it_likes(text: str) -> None:
    """Only the agreed form counts; nothing else is an error."""
    assert run_hooks([say(text)], {}) == [HookResult(say(text).argv, 1, "", None)]


def test_a_hook_that_is_too_slow_is_ended_with_its_children(tmp_path: Path) -> None:
    """A restart that the hook began must not finish after it was given up."""
    pid = tmp_path / "pid"
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)'])\n"
        "open(sys.argv[1] + '.tmp', 'w').write(str(child.pid))\n"
        "import os; os.rename(sys.argv[1] + '.tmp', sys.argv[1])\n"
        "time.sleep(600)\n"
    )
    (ended,) = run_hooks([Hook(python(code, str(pid)), timeout=2.0, retries=0)], {})
    assert "no answer within 2 s" in ended.error
    deadline = time.monotonic() + 30
    while _runs(int(pid.read_text())) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _runs(int(pid.read_text()))


def _runs(pid: int) -> bool:
    """Whether the process is there and more than a zombie that nobody has collected yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
