"""A short run of the fuzzer, the same inputs each time; `python -m tests.fuzz` for longer ones."""

import pytest

from store.factfile import ParsedFile, parse
from tests import fuzz


@pytest.mark.parametrize(("kind", "inputs"), [("facts", 8_000), ("relations", 5_000), ("config", 5_000)])
def test_no_input_breaks_the_contract(kind: str, inputs: int) -> None:
    """Mutated files are read or refused at a place that exists, in bounded time, twice the same; and
    what was read is read as the same again."""
    ends = fuzz.fuzz(kind, inputs, seed=1)
    assert ends.total() == inputs
    assert ends["read"] > inputs / 100


@pytest.mark.slow
def test_no_input_breaks_the_contract_in_a_longer_run() -> None:
    """Another seed, and five times as many inputs."""
    assert fuzz.fuzz("facts", 40_000, seed=2).total() == 40_000


def test_the_fuzzer_sees_a_broken_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parser that raises something else is found, by a number that makes the same input again."""

    def broken(data: bytes, name: str) -> ParsedFile:
        if b"Lima" in data and name.endswith(".yaml"):
            raise IndexError(len(data))
        return parse(data, name)

    monkeypatch.setattr(fuzz, "parse", broken)
    with pytest.raises(fuzz.ViolationError, match=r"facts input \d+ of seed 1") as caught:
        fuzz.fuzz("facts", 1_000, seed=1)
    number = int(str(caught.value).split()[2])
    data, name = fuzz.make_input(fuzz.FACTS, 1, number)
    assert b"Lima" in data
    assert name.endswith(".yaml")
