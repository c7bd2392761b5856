"""A bench report as a picture: efficacy and retention against the number of edits, a line a recipe.

Knows matplotlib, which only the extra `bench` installs. Doesn't know how anything was measured.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from store.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = (("new_held", "new answer, unseen wordings"), ("unrelated", "unrelated knowledge kept"))
Series = tuple[str, list[dict[str, Any]]]


def require() -> None:
    """Raise UsageError when there is no matplotlib to draw with."""
    try:
        import matplotlib as _drawing  # noqa: F401
    except ImportError as error:
        hint = "pip install 'palimpsest-daemon[bench]'"
        raise UsageError("draw", "--png", "matplotlib isn't installed", hint) from error


def series(reports: Sequence[dict[str, Any]]) -> list[Series]:
    """(label, points in the order of N) of every recipe of every report. A recipe that several reports
    measured has a line for each of them."""
    found: list[Series] = []
    for report in reports:
        for recipe in dict.fromkeys(p["recipe"] for p in report["points"]):
            points = [p for p in report["points"] if p["recipe"] == recipe]
            same = sum(label.split(" #")[0] == recipe for label, _ in found)
            label = f"{recipe} #{same + 1}" if same else recipe
            found.append((label, sorted(points, key=lambda p: p["n_edits"])))
    return found


def draw(reports: Sequence[dict[str, Any]], out: Path) -> None:
    """Write the picture as a PNG."""
    picture(reports).savefig(out, format="png", dpi=120)


def picture(reports: Sequence[dict[str, Any]]) -> "Figure":
    """A panel for efficacy and one for retention, in %, with 95 % intervals."""
    require()
    from matplotlib.figure import Figure  # no pyplot: no state, no display

    lines = series(reports)
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    for axes, (metric, title) in zip(figure.subplots(1, 2), PANELS, strict=True):
        for label, points in lines:
            shown = [(p["n_edits"], p["metrics"][metric]) for p in points if p["metrics"][metric]["n"]]
            values = [100 * m["value"] for _, m in shown]
            below = [100 * (m["value"] - m["low"]) for _, m in shown]
            above = [100 * (m["high"] - m["value"]) for _, m in shown]
            counts = [n for n, _ in shown]
            axes.errorbar(counts, values, yerr=(below, above), marker="o", capsize=3, label=label)
        ticks = sorted({p["n_edits"] for _, points in lines for p in points})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [str(t) for t in ticks])
        axes.minorticks_off()
        axes.set_xlabel("edits in one model")
        axes.set_ylabel("%")
        axes.set_ylim(-2, 102)
        axes.set_title(title)
        axes.grid(visible=True, alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")
    return figure
