"""What commands print: JSON or text on stdout, tables of at most 80 columns, progress on stderr.

Knows terminals: how wide characters are there, when one takes colours, how bars are drawn. Doesn't know
what is printed; which words are good or bad news is in `daemon.tones`.
"""

import json
import os
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from textwrap import wrap
from typing import Any, TextIO

from tqdm import tqdm

WIDTH = 80
LOG_SECONDS = 10.0  # between two lines of progress where there is no terminal
_PLAIN = "{desc}{elapsed}"  # for stages that say nothing of how much is left
_COUNTED = "{desc}{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} {elapsed}"


class Tone(StrEnum):
    """How a word looks on a terminal, as the numbers of its escape sequence."""

    GOOD = "32"
    BAD = "31"
    OPEN = "33"
    HEAD = "1"
    DIM = "2"


ToneOf = Callable[[str, str], Tone | None]  # of a column's head and a cell's text


def show(value: Any, text: str, *, as_json: bool) -> None:
    """Print `value` as JSON, or `text`."""
    body = json.dumps(value, indent=2, ensure_ascii=False, default=str) if as_json else text
    sys.stdout.write(body + "\n" if body else "")
    sys.stdout.flush()


def takes_colours(stream: TextIO) -> bool:
    """A terminal that isn't dumb, unless the user's NO_COLOR says otherwise (no-color.org)."""
    named = os.environ.get("TERM", "dumb") != "dumb"
    return named and not os.environ.get("NO_COLOR") and stream.isatty()


def paint(text: str, tone: Tone | None) -> str:
    """`text`, coloured when stdout takes colours. Widths are worked out before: what this adds has none."""
    return f"\033[{tone}m{text}\033[0m" if tone and text and takes_colours(sys.stdout) else text


def table(
    head: Sequence[str], rows: Sequence[Sequence[object]], width: int = WIDTH, tone_of: ToneOf | None = None
) -> str:
    """Columns of text no wider than `width` on a terminal; the widest ones are cut with an ellipsis. With
    `tone_of` the head is bold and cells are painted."""
    cells = [[_flat(cell) for cell in row] for row in (head, *rows)]
    widths = [max(columns(row[at]) for row in cells) for at in range(len(head))]
    while sum(widths) + 2 * (len(widths) - 1) > width:
        widest = widths.index(max(widths))
        if widths[widest] <= 4:
            break
        widths[widest] -= 1
    lines = []
    for number, row in enumerate(cells):
        fitted = [cut(cell, w) for cell, w in zip(row, widths, strict=True)]
        gaps = [" " * (w - columns(cell) + 2) for cell, w in zip(fitted, widths, strict=True)]
        if tone_of is not None:
            tones = [
                tone_of(name, cell) if number else Tone.HEAD for name, cell in zip(head, row, strict=True)
            ]
            fitted = [paint(cell, tone) for cell, tone in zip(fitted, tones, strict=True)]
        lines.append("".join(cell + gap for cell, gap in zip(fitted, gaps, strict=True)).rstrip())
    return "\n".join(lines)


def columns(text: str) -> int:
    """How many columns `text` takes on a terminal."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, width: int) -> str:
    """`text` in at most `width` columns, with an ellipsis where something is missing."""
    if columns(text) <= width:
        return text
    kept, used = "", 1
    for character in text:
        used += _columns(character)
        if used > width:
            break
        kept += character
    return kept + "…"


def wrapped(text: str, indent: int, width: int = WIDTH - 1) -> list[str]:
    """`text` in lines of at most `width` columns, all but the first one indented; none where it is empty."""
    return wrap(text, width, subsequent_indent=" " * indent, break_on_hyphens=False)


def counted(count: int, what: str) -> str:
    """`1 edit`, `2 edits`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def harmless(text: str) -> str:
    """`text` without control characters: what a fact or a file's name holds must not steer a terminal."""
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) == "Cc" else c for c in text)


def _flat(cell: object) -> str:
    return "-" if cell is None else harmless(" ".join(str(cell).split()))


@contextmanager
def progress(label: str) -> Iterator[Callable[[str], None]]:
    """A bar on stderr fed with stages; a stage like `init: 120/600` moves it, any other only shows.

    Gone at the end. Where stderr is no terminal there is no bar, but a line every ten seconds.
    """
    if not sys.stderr.isatty():
        yield _logged(label)
        return
    bar = tqdm(desc=f"{label} ", file=sys.stderr, bar_format=_PLAIN, leave=False, dynamic_ncols=True)
    drawn, over = 0.0, threading.Event()

    def on_stage(stage: str) -> None:
        nonlocal drawn
        if time.monotonic() - drawn < 0.2:
            return
        drawn = time.monotonic()
        name, _, counted = stage.rpartition(" ")
        done, _, total = counted.partition("/")
        counts = done.isdigit() and total.isdigit() and int(total) > 0
        bar.bar_format = _COUNTED if counts else _PLAIN
        bar.desc = cut(f"{label} {name.rstrip(':')}" if counts else f"{label} {stage}", 50) + " "
        bar.total, bar.n = (int(total), int(done)) if counts else (None, 0)
        bar.refresh()

    def tick() -> None:  # the time goes on while a stage says nothing
        while not over.wait(1.0):
            bar.refresh()

    ticking = threading.Thread(target=tick, name="progress", daemon=True)
    ticking.start()
    try:
        yield on_stage
    finally:
        over.set()
        ticking.join()
        bar.close()


def _logged(label: str) -> Callable[[str], None]:
    began = time.monotonic()

    def on_stage(stage: str) -> None:
        nonlocal began
        if time.monotonic() - began >= LOG_SECONDS:
            began = time.monotonic()
            sys.stderr.write(f"{label} {stage}\n")
            sys.stderr.flush()

    return on_stage
