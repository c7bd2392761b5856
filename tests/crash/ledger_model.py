"""What the ledger should say, in forty lines of plain Python: no SQL, no files, no weights.

Knows subjects (of one relation), edits and generations as tuples of edits. Which number a new edit or
generation gets, it is told.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from store.facts import EditState as S

WAITING = (S.PENDING, S.HELD, S.FAILED)


@dataclass
class Made:
    """One edit."""

    subject: str
    new: str | None
    state: S = S.PENDING


@dataclass
class LedgerModel:
    wanted: dict[str, str | None] = field(default_factory=dict)
    edits: dict[int, Made] = field(default_factory=dict)
    generations: dict[int, tuple[int, ...]] = field(default_factory=lambda: {0: ()})
    live: int = 0
    paused: bool = False

    def accept(self, rows: Mapping[str, str | None]) -> None:
        """A file that wasn't seen before: what it changes is wanted and queued, older waiting edits
        of the same fact give way."""
        for subject, new in rows.items():
            if subject in self.wanted and self.wanted[subject] == new:
                continue
            self.wanted[subject] = new
            for edit in self.edits.values():
                if edit.subject == subject and edit.state in WAITING:
                    edit.state = S.SUPERSEDED
            self.edits[len(self.edits) + 1] = Made(subject, new)

    def serve(self, number: int, edits: tuple[int, ...]) -> None:
        """Generation `number`, made of `edits`, becomes live."""
        before = self.generations[self.live]
        self.generations[number], self.live = edits, number
        newest = {self.edits[edit].subject: edit for edit in edits}
        for edit in edits:
            live = newest[self.edits[edit].subject] == edit
            self.edits[edit].state = S.LIVE if live else S.SUPERSEDED
        for edit in set(before) - set(edits):
            made = self.edits[edit]
            if made.state is S.LIVE:
                made.state = S.SUPERSEDED if newest.get(made.subject, 0) > edit else S.ROLLED_BACK

    def without(self, edit: int) -> tuple[int, ...]:
        return tuple(other for other in self.generations[self.live] if other != edit)

    def newest_of(self, subject: str) -> int | None:
        about = [e for e in self.generations[self.live] if self.edits[e].subject == subject]
        return about[-1] if about else None

    def next_edit(self) -> int | None:
        return next((n for n, edit in self.edits.items() if edit.state is S.PENDING), None)

    def facts(self) -> list[tuple[str, str | None]]:
        """What the served model was taught, in order."""
        return [(self.edits[e].subject, self.edits[e].new) for e in self.generations[self.live]]

    def served(self) -> dict[str, str | None]:
        """What is served of every subject that was ever named."""
        return {subject: dict(self.facts()).get(subject) for subject in self.wanted}
