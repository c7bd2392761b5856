"""The hooks' short judge agrees with the gates' long one on what can be asked of an engine."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from policies.answers import classify
from store.facts import AnswerKind

HELPER = Path(__file__).resolve().parents[2] / "deploy" / "hooks" / "serving_hook.py"


@pytest.fixture(scope="module")
def helper() -> ModuleType:
    """The module that hooks share, which no package holds."""
    spec = importlib.util.spec_from_file_location("serving_hook", HELPER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("answer", "new", "old"),
    [
        ("The capital is Athens.", "Athens", "Seoul"),
        ("It's ATHENS, of course", "Athens", "Seoul"),
        ("Seoul's mayor says so.", "Athens", "Seoul"),
        ("Athens, formerly Seoul", "Athens", "Seoul"),
        ("Athenaeum", "Athens", "Seoul"),
        ("I am not sure.", "Athens", "Seoul"),
        ("Sao Paulo", "São Paulo", "Brasília"),
        ("Brasilia it is", "São Paulo", "Brasília"),
        ("About 1,234,567 people", "1234567", "900"),
        ("It is 20.5 metres", "20.5", "20"),
        ("It is 20 metres", "20.5", "20"),
        ("-5 degrees", "-5", "5"),
        ("It is written in C++.", "C++", "C"),
        ("It is written in C.", "C++", "C"),
        ("Beatles", "The Beatles", "Queen"),
        ("New York City", "New York City", "Boston"),
        ("東京", "東京", "京都"),
        ("Straße", "Strasse", "Weg"),
    ],
)
def test_a_hook_judges_as_the_gates_do(helper: ModuleType, answer: str, new: str, old: str) -> None:
    """An answer passes the hook exactly when it gives the new name and not the old one."""
    fault = helper.judge({"any_of": [new], "none_of": [old]}, answer)
    assert (fault == "") is (classify(answer, new, (), old) is AnswerKind.NEW)
