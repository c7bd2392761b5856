"""What the bench counts, and the point of a report that it becomes.

Knows shares, means and their 95 % intervals. Doesn't know models or how anything was measured.
"""

import math
import resource
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from policies.answers import wilson_interval
from store.facts import AnswerKind, Reading

METRICS = (
    "new_train",
    "new_held",
    "old_gone",
    "neighbours",
    "unrelated",
    "over_refusal",
    "same_subject",
    "over_refusal_unlearn",
)
WORDINGS = ("train_question", "train_cloze", "held_question", "held_cloze")
Record = dict[str, Any]


@dataclass(slots=True)
class Tally:
    """Successes and trials of each metric, kinds of answers by wording, drift (nats a token, one reading
    a model), norms of states, seconds, bytes, and edits that found no solution."""

    good: dict[str, int] = field(default_factory=lambda: dict.fromkeys(METRICS, 0))
    count: dict[str, int] = field(default_factory=lambda: dict.fromkeys(METRICS, 0))
    kinds: dict[str, dict[str, int]] = field(
        default_factory=lambda: {w: dict.fromkeys(map(str, AnswerKind), 0) for w in WORDINGS}
    )
    drift: list[Reading] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    norm_of: str = "nothing"
    edit_seconds: list[float] = field(default_factory=list)
    stage_seconds: dict[str, list[float]] = field(default_factory=dict)
    gate_seconds: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    failed: int = 0

    def add(self, metric: str, results: Sequence[bool]) -> None:
        self.good[metric] += sum(results)
        self.count[metric] += len(results)

    def add_reading(self, metric: str, reading: Reading) -> None:
        self.add(metric, [a.ok for a in reading.answers])

    def add_stages(self, seconds: Sequence[tuple[str, float]]) -> None:
        for stage, s in seconds:
            self.stage_seconds.setdefault(stage, []).append(s)

    def merge(self, other: "Tally") -> None:
        """Add all that `other` counted."""
        for name in METRICS:
            self.good[name] += other.good[name]
            self.count[name] += other.count[name]
        for wording, found in other.kinds.items():
            for kind, n in found.items():
                self.kinds[wording][kind] += n
        for stage, seconds in other.stage_seconds.items():
            self.stage_seconds.setdefault(stage, []).extend(seconds)
        for mine, theirs in (
            (self.norms, other.norms),
            (self.edit_seconds, other.edit_seconds),
            (self.gate_seconds, other.gate_seconds),
        ):
            mine.extend(theirs)
        self.drift.extend(other.drift)
        self.sizes.extend(other.sizes)
        self.failed += other.failed
        self.norm_of = other.norm_of if other.norms else self.norm_of


def point(tally: Tally, *, recipe: str, n_edits: int, cases: int) -> Record:
    """One point of the report: shares with 95 % Wilson intervals, drift, norms, seconds, bytes.

    Seconds, bytes and norms are of the edits since the point before; `peak_rss_bytes` of the process
    since `forget_peak`.
    """
    return {
        "recipe": recipe,
        "n_edits": n_edits,
        "cases": cases,
        "failed": tally.failed,
        "metrics": metrics(tally),
        "kinds": kinds(tally),
        "kl": drift(tally.drift),
        "norm": {
            "of": tally.norm_of,
            **_spread(tally.norms),
            "last": tally.norms[-1] if tally.norms else None,
        },
        "seconds_per_edit": _spread(tally.edit_seconds),
        "seconds_per_stage": {s: _spread(v) for s, v in tally.stage_seconds.items()},
        "gate_seconds": {"median": statistics.median(tally.gate_seconds) if tally.gate_seconds else None},
        "bytes_per_edit": max(tally.sizes, default=0),
        "peak_rss_bytes": peak_rss(),
    }


def metrics(tally: Tally) -> Record:
    return {name: share(tally.good[name], tally.count[name]) for name in METRICS}


def kinds(tally: Tally) -> Record:
    """For each wording the share of every kind of answer, all of one n."""
    found: Record = {}
    for wording, counted in tally.kinds.items():
        n = sum(counted.values())
        found[wording] = {"n": n, **{kind: share(k, n) for kind, k in counted.items()}}
    return found


def share(good: int, n: int) -> Record:
    """A share with its interval; no value where nothing was asked."""
    low, high = wilson_interval(good, n)
    return {"value": good / n if n else None, "low": low, "high": high, "n": n}


def drift(readings: Sequence[Reading]) -> Record:
    """Mean KL to the base in nats a token. The interval (normal approximation) is over texts for one
    model, over models for several: their texts are the same ones."""
    if not readings:
        return {"value": None, "low": None, "high": None, "n": 0, "over": "texts"}
    if len(readings) == 1:
        r = readings[0]
        return {"value": r.value, "low": r.low, "high": r.high, "n": r.n, "over": "texts"}
    values = [r.value for r in readings]
    mean, half = statistics.mean(values), 1.96 * statistics.stdev(values) / math.sqrt(len(values))
    return {"value": mean, "low": mean - half, "high": mean + half, "n": len(values), "over": "models"}


def _spread(values: Sequence[float]) -> Mapping[str, float | None]:
    if not values:
        return {"median": None, "max": None}
    return {"median": statistics.median(values), "max": max(values)}


def forget_peak() -> None:
    """Start the peak of resident memory anew, where the kernel lets us (Linux); else it is the process's."""
    try:
        Path("/proc/self/clear_refs").write_text("5", "ascii")
    except OSError:
        return


def peak_rss() -> int:
    """Peak resident memory of this process in bytes."""
    try:
        status = Path("/proc/self/status").read_text("ascii")
        return next(int(x.split()[1]) for x in status.splitlines() if x.startswith("VmHWM:")) * 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
