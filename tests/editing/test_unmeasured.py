"""A suite that crashes isn't measured; the machine's own troubles are none of a suite's."""

from typing import Any

import pytest

from policies.editing import suites
from policies.editing.suites import Reference, measure
from store.facts import Suite

NOTHING: Any = None  # a model that nobody asks anything


def test_a_suite_that_crashes_leaves_the_others_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """No plain text at all makes drift divide by nothing: its two readings are missing, with the reason."""
    monkeypatch.setattr(suites, "ask_all", lambda *_: [])
    found = measure(NOTHING, Reference((), ()), lambda stage: None)
    assert [reading.suite for reading in found.own[0]] == [*suites.OF_ONE_FACT]
    assert [reading.suite for reading in found.shared] == [*suites.OF_ALL, Suite.OVER_REFUSAL]
    assert found.unmeasured == ("drift crashed: ZeroDivisionError: division by zero",)


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(28, "No space left"), RuntimeError("can't allocate memory")]
)
def test_a_machine_in_trouble_is_no_crash_of_a_suite(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Those end the job, which is then tried again later instead of being judged."""

    monkeypatch.setattr(suites, "ask_all", lambda *_: [])

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(suites, "drift", fail)
    with pytest.raises(type(error)):
        measure(NOTHING, Reference((), ()), lambda stage: None)
