"""A bench report as text of at most 80 columns.

Knows the report's keys. Doesn't know how it was measured.
"""

from collections.abc import Iterator, Sequence
from typing import Any

COLUMNS = (
    ("train", "new_train"),
    ("held", "new_held"),
    ("gone", "old_gone"),
    ("neighb", "neighbours"),
    ("unrel", "unrelated"),
    ("refuse", "over_refusal"),
)


def table(reports: Sequence[dict[str, Any]]) -> str:
    """One report of one recipe in full, else one compact table of all points."""
    points = [p for r in reports for p in r["points"]]
    if len(reports) == 1 and len({p["recipe"] for p in points}) == 1:
        return "\n".join(_in_full(reports[0]))
    return "\n".join(_compared(reports, points))


def _in_full(report: dict[str, Any]) -> Iterator[str]:
    yield f"{report['model']}, recipe {report['recipe']}, {report['mode']}"
    if left := report.get("left_out"):
        yield (
            f"left out, not known to the base: {len(left['cases'])} cases, "
            f"{left['neighbours']} neighbours' questions"
        )
    for point in report["points"]:
        yield f"{point['cases']} cases, {point['n_edits']} edit(s) in one model"
        yield from _shares(point["metrics"])
        yield from _kinds(point["kinds"])
        yield from _costs(point)
    for again in report["first_again"]:
        yield f"the first {again['cases']} again, after {again['n_edits']} edits"
        yield from _shares(again["metrics"])


def _shares(metrics: dict[str, Any]) -> Iterator[str]:
    for name, m in metrics.items():
        value = "   - " if m["value"] is None else f"{100 * m['value']:5.1f}"
        yield f"  {name:20} {value} %  [{100 * m['low']:5.1f}, {100 * m['high']:5.1f}]  n {m['n']}"


def _kinds(kinds: dict[str, Any]) -> Iterator[str]:
    for wording, found in kinds.items():
        if found["n"]:
            shares = "  ".join(f"{k} {100 * v['value']:.0f}" for k, v in found.items() if k != "n")
            yield f"  {wording:20} {shares}  n {found['n']}"


def _costs(point: dict[str, Any]) -> Iterator[str]:
    kl, norm = point["kl"], point["norm"]
    if kl["value"] is not None:
        yield (
            f"  KL to the base {kl['value']:.3f} nats a token  [{kl['low']:.3f}, {kl['high']:.3f}]"
            f"  n {kl['n']} {kl['over']}"
        )
    if norm["median"] is not None:
        yield f"  norm of {norm['of']} {norm['median']:.2f} median, {norm['max']:.2f} max"
    stages = ", ".join(f"{s} {v['median']:.1f}" for s, v in point["seconds_per_stage"].items())
    yield f"  seconds by stage (median): {stages}"
    seconds, gate = point["seconds_per_edit"], point["gate_seconds"]["median"]
    line = f"  edit {seconds['median']:.1f} s median, {seconds['max']:.1f} s max"
    yield line if gate is None else f"{line}; gates {gate:.1f} s median"
    failed = f", {point['failed']} found no solution" if point["failed"] else ""
    size, rss = point["bytes_per_edit"] / 1e3, point["peak_rss_bytes"] / 2**20
    yield f"  {size:.1f} kB an edit, peak memory {rss:.0f} MiB{failed}"


def _compared(reports: Sequence[dict[str, Any]], points: Sequence[dict[str, Any]]) -> Iterator[str]:
    models = ", ".join(dict.fromkeys(r["model"] for r in reports))
    yield f"{models}; shares in % with 95 % intervals, KL in nats a token, s an edit"
    heads = "".join(f"{head:>8}" for head, _ in COLUMNS)
    yield f"{'recipe':15}{'N':>4}{heads}{'KL':>7}{'s':>6}"
    for point in points:
        found = [point["metrics"][name] for _, name in COLUMNS]
        values = "".join(f"{_percent(m['value']):>8}" for m in found)
        kl = point.get("kl", {}).get("value")
        drift = "-" if kl is None else f"{kl:.3f}"
        seconds = point["seconds_per_edit"]["median"]
        yield f"{point['recipe'][:15]:15}{point['n_edits']:>4}{values}{drift:>7}{seconds:>6.0f}"
        yield f"{'':19}" + "".join(f"{_interval(m):>8}" for m in found)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}"


def _interval(share: dict[str, Any]) -> str:
    return f"{100 * share['low']:.0f}-{100 * share['high']:.0f}" if share["n"] else ""
