"""Which words are good news, bad news or not settled yet, for terminals that take colours.

Knows the words that states, verdicts and checks have. Doesn't know terminals: `daemon.console` paints.
"""

import re
from collections.abc import Mapping, Sequence

from daemon import console
from daemon.console import Tone, paint
from store.facts import EditState

_TONES: Mapping[str, Tone] = {
    **dict.fromkeys((EditState.LIVE, EditState.ALREADY_KNOWN, "pass", "ok"), Tone.GOOD),
    **dict.fromkeys((EditState.HELD, EditState.FAILED, "blocked", "fail", "error", "problem"), Tone.BAD),
    **dict.fromkeys((EditState.PENDING, EditState.EDITING, EditState.JUDGED), Tone.OPEN),
    **dict.fromkeys(("running", "building", "inconclusive", "warning"), Tone.OPEN),
}
# Every other column may hold what a fact says, where `live` is just a word.
_COLUMNS = frozenset({"state", "verdict", "action"})


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """`daemon.console.table` with states and verdicts painted."""
    return console.table(head, rows, tone_of=_tone_of)


def _tone_of(column: str, cell: str) -> Tone | None:
    return _TONES.get(cell) if column in _COLUMNS else None


def word(text: str) -> str:
    """A state or verdict on its own, painted."""
    return paint(text, _TONES.get(text))


def words(line: str) -> str:
    """A line that holds nothing but our own words, with each of them painted."""
    return re.sub(r"[a-z_]+", lambda found: word(found.group()), line)
