"""Bad and borderline files, each against what was once read and found right (`tests.corpus`)."""

from pathlib import Path

import pytest

from store.factfile import parse
from tests.corpus import CASES, FILES, GOLDEN, Case, as_text, judge

ONE_FACT = [
    "nfc-and-nfd.jsonl", "full-width.jsonl", "ligature.jsonl", "sharp-s.jsonl", "kelvin.jsonl",
    "greek-capitals.jsonl", "hangul-jamo.jsonl", "no-break-space.jsonl",
]  # fmt: skip
TWO_FACTS = ["superscript.jsonl", "dotted-i.jsonl"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_file_is_read_or_refused_as_before(case: Case, tmp_path: Path) -> None:
    """Every message, place and row is the golden file's; `python -m tests.corpus` writes them anew."""
    name, value = judge(case, tmp_path)
    assert as_text(value) == (GOLDEN / name).read_text("ascii")


def test_every_golden_file_has_its_case() -> None:
    """At least 150 cases, each with an id of its own, and no golden file that nothing is compared with."""
    ids = [case.id for case in CASES]
    assert len(ids) == len(set(ids)) >= 150
    golden = {path.name.removesuffix(".error.json").removesuffix(".rows.json") for path in GOLDEN.iterdir()}
    assert golden == set(ids)


@pytest.mark.parametrize("name", [path.name for path in sorted(GOLDEN.glob("*.error.json"))])
def test_a_refusal_says_what_to_do(name: str) -> None:
    """Each refused file of the corpus gets a hint, save those whose cause says it all."""
    import json

    report = json.loads((GOLDEN / name).read_text("ascii"))
    assert report["cause"]
    assert report["hint"] or report["cause"].split(": ", 1)[1].startswith(("expected ", "'version' must be"))


@pytest.mark.parametrize(("name", "facts"), [(n, 1) for n in ONE_FACT] + [(n, 2) for n in TWO_FACTS])
def test_spellings_of_one_name_are_one_fact(name: str, facts: int) -> None:
    """Rows whose subjects differ in normal form, case, width or ligatures state one fact; a superscript
    and the dotted I of Turkish, which are other characters, make another one."""
    updates = parse(FILES[name], name).updates
    assert len(updates) == 2
    assert len({update.key.folded() for update in updates}) == facts
