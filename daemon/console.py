"""What commands print: JSON or text on stdout, tables of at most 80 columns, progress on stderr.

Knows terminals. Doesn't know what is printed.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

WIDTH = 80
_PLAIN = "{desc}{elapsed}"  # for stages that say nothing of how much is left


def show(value: Any, text: str, *, as_json: bool) -> None:
    """Print `value` as JSON, or `text`."""
    body = json.dumps(value, indent=2, ensure_ascii=False, default=str) if as_json else text
    sys.stdout.write(body + "\n" if body else "")
    sys.stdout.flush()


def table(head: Sequence[str], rows: Sequence[Sequence[object]], width: int = WIDTH) -> str:
    """Columns of text no wider than `width`; the widest ones are cut with an ellipsis."""
    cells = [[_flat(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(head))]
    while sum(widths) + 2 * (len(widths) - 1) > width:
        widest = widths.index(max(widths))
        if widths[widest] <= 4:
            break
        widths[widest] -= 1
    lines = ["  ".join(_cut(cell, w).ljust(w) for cell, w in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)


def _flat(cell: object) -> str:
    return "-" if cell is None else " ".join(str(cell).split())


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


@contextmanager
def progress(label: str) -> Iterator[Callable[[str], None]]:
    """A bar on stderr fed with stages; a stage like `init: 120/600` moves it, any other only shows.

    Redrawn a few times a second on a terminal, and every ten seconds where a log keeps each line.
    """
    bar = tqdm(desc=label, file=sys.stderr, bar_format=_PLAIN)
    pause, drawn = (0.2 if sys.stderr.isatty() else 10.0), 0.0

    def on_stage(stage: str) -> None:
        nonlocal drawn
        if time.monotonic() - drawn < pause:
            return
        drawn = time.monotonic()
        name, _, counted = stage.rpartition(" ")
        done, _, total = counted.partition("/")
        counts = done.isdigit() and total.isdigit() and int(total) > 0
        bar.bar_format = None if counts else _PLAIN
        bar.desc = f"{label} {name.rstrip(':')}: " if counts else f"{label} {stage}: "
        bar.total, bar.n = (int(total), int(done)) if counts else (None, 0)
        bar.refresh()

    try:
        yield on_stage
    finally:
        bar.close()
