"""One self-contained HTML page: what is served, what was edited when, what that did, what was taken back.

Knows HTML and SVG, and how to read a `Story`. Doesn't know the ledger, files or clocks. Everything that
came from outside is escaped; the page loads nothing and runs no script.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape

WIDTH, LEFT, RIGHT = 960, 150, 20
LINES = {
    "efficacy": "#2563eb",
    "paraphrase": "#0891b2",
    "neighbours": "#d97706",
    "unrelated": "#16a34a",
    "live_facts": "#9333ea",
}
COLOURS = {
    "live": "#16a34a",
    "already_known": "#16a34a",
    "superseded": "#64748b",
    "rolled_back": "#dc2626",
    "held": "#d97706",
    "failed": "#dc2626",
    "cancelled": "#64748b",
}
_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1000px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
p.sub { opacity: .75; margin: 0 0 1rem }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(118px, 1fr)); gap: .6rem; margin: 1rem 0 }
dl div { background: var(--soft); border-radius: 8px; padding: .6rem .8rem }
dt { font-size: .8rem; opacity: .75 } dd { margin: 0; font-size: 1.25rem; font-variant-numeric: tabular-nums }
table { border-collapse: collapse; width: 100%; font-size: .9rem }
th, td { text-align: left; padding: .3rem .5rem; border-bottom: 1px solid var(--line); vertical-align: top }
th { font-weight: 600 } td.n { font-variant-numeric: tabular-nums; white-space: nowrap }
svg { width: 100%; height: auto; display: block }
svg text { font: 12px system-ui, sans-serif; fill: currentColor }
.key { display: inline-block; margin-right: 1rem; font-size: .85rem }
.key i { display: inline-block; width: .8em; height: .8em; border-radius: 50%; margin-right: .35em }
"""


@dataclass(frozen=True, slots=True)
class EditMark:
    """One edit: when it came to its state, and why."""

    id: int
    subject: str
    relation: str
    new: str
    state: str
    at: datetime
    generation: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Span:
    """A generation being live; `until` None: still."""

    generation: int
    since: datetime
    until: datetime | None
    reason: str


@dataclass(frozen=True, slots=True)
class Measured:
    """A generation's readings by suite."""

    generation: int
    values: dict[str, float]


@dataclass(frozen=True, slots=True)
class Rollback:
    """A switch back: when, from where to where and why."""

    at: datetime
    left: int | None
    to: int
    reason: str


@dataclass(frozen=True, slots=True)
class Story:
    """All that the page tells. `tiles` and `facts` are rows of text."""

    model: str
    at: datetime
    tiles: tuple[tuple[str, str], ...]
    facts: tuple[tuple[str, ...], ...]
    edits: tuple[EditMark, ...]
    spans: tuple[Span, ...]
    measured: tuple[Measured, ...]
    thresholds: dict[str, float]
    rollbacks: tuple[Rollback, ...]


def page(story: Story) -> str:
    """The whole document."""
    title = f"Palimpsest: {escape(story.model)}"
    tiles = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in story.tiles)
    edits = [
        (str(e.id), _when(e.at), e.subject, e.relation, e.new, e.state, _gen(e.generation), e.reason)
        for e in reversed(story.edits)
    ]
    back = [(_when(r.at), _gen(r.left), _gen(r.to), r.reason) for r in reversed(story.rollbacks)]
    body = [
        f"<h1>{title}</h1>",
        f'<p class="sub">as of {_when(story.at)} UTC</p>',
        f"<dl>{tiles}</dl>",
        "<h2>Edits and generations over time</h2>",
        _timeline(story),
        "<h2>Efficacy and retention by generation</h2>",
        _readings(story),
        "<h2>Facts</h2>",
        _table(("subject", "relation", "served", "wanted", "edit"), story.facts, "No facts yet."),
        "<h2>Rollbacks</h2>",
        _table(("when", "from", "to", "why"), back, "None."),
        "<h2>Edits</h2>",
        _table(("edit", "when", "subject", "relation", "new", "state", "gen", "why"), edits, "No edits yet."),
    ]
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    viewport = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}{viewport}</head><body>\n'
        + "\n".join(body)
        + ("\n</body></html>\n")
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], empty: str) -> str:
    lines = ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    if not lines:
        return f"<p>{escape(empty)}</p>"
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f"<table><thead><tr>{top}</tr></thead><tbody>" + "\n".join(lines) + "</tbody></table>"


def _timeline(story: Story) -> str:
    """Bars: which generation was live; dots: edits where they ended; red lines: rollbacks."""
    moments = [s.since for s in story.spans] + [e.at for e in story.edits] + [story.at]
    first, last = min(moments), max(moments)
    seconds = max((last - first).total_seconds(), 1.0)

    def x(moment: datetime) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (moment - first).total_seconds() / seconds

    shapes = [_text(0, 34, "live generation"), _text(0, 84, "edits")]
    for i, span in enumerate(story.spans):
        a, b = x(span.since), x(span.until or story.at)
        shade = 0.35 if i % 2 else 0.6
        what = f"generation {span.generation}, {_when(span.since)}: {span.reason}"
        shapes.append(
            f'<rect x="{a:.1f}" y="18" width="{max(b - a, 1.5):.1f}" height="24" fill="#2563eb" '
            f'opacity="{shade}"><title>{escape(what)}</title></rect>'
        )
        if b - a > 16:
            shapes.append(_text(a + 4, 34, str(span.generation)))
    for r in story.rollbacks:
        shapes.append(
            f'<line x1="{x(r.at):.1f}" x2="{x(r.at):.1f}" y1="8" y2="100" stroke="#dc2626" stroke-width="2">'
            f"<title>{escape(f'rolled back to generation {r.to}: {r.reason}')}</title></line>"
        )
    for e in story.edits:
        what = f"edit {e.id}, {e.subject} / {e.relation}: {e.state}. {e.reason}"
        shapes.append(
            f'<circle cx="{x(e.at):.1f}" cy="80" r="5" fill="{COLOURS.get(e.state, "#2563eb")}" '
            f'opacity="0.8"><title>{escape(what)}</title></circle>'
        )
    shapes += [_text(LEFT, 118, _when(first)), _text(WIDTH - RIGHT, 118, _when(last), "end")]
    keys = _keys(
        [(state, colour) for state, colour in COLOURS.items() if any(e.state == state for e in story.edits)]
    )
    return f'<svg viewBox="0 0 {WIDTH} 126" role="img" aria-label="timeline">{"".join(shapes)}</svg>{keys}'


def _readings(story: Story) -> str:
    """One line a suite over the generations that were measured; dashes: the gate."""
    if not story.measured:
        return "<p>Nothing was measured yet.</p>"
    top, bottom = 12, 220
    last = max(len(story.measured) - 1, 1)

    def x(at: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * at / last

    def y(value: float) -> float:
        return bottom - (bottom - top) * min(max(value, 0.0), 1.0)

    shapes = [
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="currentColor" '
        f'opacity="0.15"/>' + _text(LEFT - 8, y(v) + 4, f"{v:.0%}", "end")
        for v in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    for suite, colour in LINES.items():
        points = [(x(i), y(m.values[suite]), m) for i, m in enumerate(story.measured) if suite in m.values]
        if suite in story.thresholds and points:
            at = y(story.thresholds[suite])
            shapes.append(
                f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="{colour}" '
                f'stroke-dasharray="2 5" opacity="0.6"/>'
            )
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b, _ in points)
        shapes.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        shapes += [
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{colour}">'
            f"<title>{suite} of generation {m.generation}: {m.values[suite]:.3g}</title></circle>"
            for a, b, m in points
        ]
    step = -(-len(story.measured) // 20)
    shapes += [
        _text(x(i), bottom + 18, str(m.generation), "middle")
        for i, m in enumerate(story.measured)
        if i % step == 0
    ]
    shapes.append(_text(LEFT - 8, bottom + 18, "generation", "end"))
    keys = _keys(list(LINES.items()))
    return f'<svg viewBox="0 0 {WIDTH} 246" role="img" aria-label="readings">{"".join(shapes)}</svg>{keys}'


def _keys(named: Sequence[tuple[str, str]]) -> str:
    spans = [f'<span class="key"><i style="background:{c}"></i>{escape(n)}</span>' for n, c in named]
    return f"<p>{''.join(spans)}</p>" if spans else ""


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _when(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"


def _gen(number: int | None) -> str:
    return "-" if number is None else str(number)
