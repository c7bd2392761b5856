"""What the pristine base answers, asked once and remembered in a file beside its bank.

Knows texts and a file. Doesn't know why something is asked, nor any edited model: whoever asks brings the
base's own weights.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from policies.editing.measure import answers
from policies.editing.model import LanguageModel
from store.facts import Phrasing


class Memo:
    """Greedy answers by prompt and length; without a `file` they are remembered in this process only."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._said: dict[str, str] = {}
        if file is not None and file.exists():
            try:
                self._said = json.loads(file.read_text("utf-8"))
            except ValueError:
                file.unlink()  # a cache: what it held is asked again

    def answers(
        self,
        base: LanguageModel,
        phrasings: Sequence[Phrasing],
        *,
        max_new_tokens: int,
        on_batch: Callable[[int], None] = lambda done: None,
    ) -> list[str]:
        """The base's answer to each phrasing, in order; `on_batch` hears how many new ones are done."""
        keys = [f"{max_new_tokens} {'question' if p.is_question else 'cloze'} {p.text}" for p in phrasings]
        new = {k: p for k, p in zip(keys, phrasings, strict=True) if k not in self._said}
        if new:
            given = answers(base, list(new.values()), max_new_tokens=max_new_tokens, on_batch=on_batch)
            self._said |= zip(new, given, strict=True)
            if self._file is not None:
                staged = self._file.with_name(f"{self._file.name}.{os.getpid()}.tmp")
                staged.write_text(json.dumps(self._said, ensure_ascii=False, indent=0) + "\n", "utf-8")
                staged.rename(self._file)
        return [self._said[k] for k in keys]
