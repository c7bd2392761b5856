"""Every `palimpsest_*` metric, moved by one frozen outcome or set from one frozen reading of the house.

Knows names, labels and buckets. Doesn't know where the values come from nor who scrapes them
(`daemon.exposition`); no label ever holds fact text, a file name or an id. Counters exist with every
label from the start, as an increase from nothing to 1 is none to Prometheus. What isn't known is NaN.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from policies.gates import Direction, Gate
from policies.sources import For
from store.facts import EditState, Outcome, RowClass, Suite, Verdict

_STAGE_BUCKETS = (0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
_EDIT_BUCKETS = (1, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600)
_FRESHNESS_BUCKETS = (5, 15, 30, 60, 120, 300, 600, 1800, 3600, 6 * 3600, 24 * 3600)
_BOUNDS = {Direction.AT_LEAST: "min", Direction.AT_MOST: "max"}
# What the end of an edit can be; the states in between are never counted.
_ENDS = (
    EditState.LIVE,
    EditState.ALREADY_KNOWN,
    EditState.PENDING,
    EditState.HELD,
    EditState.FAILED,
    EditState.CANCELLED,
    EditState.ROLLED_BACK,
)


class Stage(StrEnum):
    """What a daemon does over and over, each with its last success and, where it is periodic, a period."""

    SCAN = "scan"
    INGEST = "ingest"
    EDIT = "edit"
    PUBLISH = "publish"
    BACKUP = "backup"
    REPROBE = "reprobe"
    AUDIT = "audit"


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the gauges show; ages in seconds, sizes in bytes, times as Unix seconds. None while something
    is unknown or never was, which a scrape shows as NaN; so is a suite that isn't in `suites`."""

    queue_depth: int = 0
    oldest_pending_age: float = 0.0
    held: int = 0
    live_generation: int = 0
    served_generation: int | None = None
    rollbacks: int = 0
    paused_since: float | None = None
    disk_free_bytes: int = 0
    disk_full: bool = False
    ledger_bytes: int = 0
    wal_bytes: int = 0
    headroom: float = 1.0
    edits_left: int | None = None
    capacity_full: bool = False
    waiting: Mapping[For, int] = field(default_factory=dict)
    suites: Mapping[Suite, float] = field(default_factory=dict)
    last_success: Mapping[Stage, float] = field(default_factory=dict)


class _Counted(Collector):
    """A counter whose value is the ledger's: it goes on over restarts, and counts what was done while no
    daemon ran."""

    def __init__(self, name: str, text: str, **labels: str) -> None:
        self.value = 0
        self._labelnames = tuple(labels)
        self._name, self._text, self._labels = f"palimpsest_{name}", text, labels

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(self._name, self._text, labels=self._labelnames)
        family.add_metric(tuple(self._labels.values()), self.value)
        yield family

    def describe(self) -> Iterable[Metric]:
        return self.collect()


class Metrics:
    """The metrics of one daemon in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        ProcessCollector(registry=registry)
        self._make_counters(registry)
        self._make_gauges(registry)
        self._make_histograms(registry)

    def _make_counters(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, **labels: Iterable[str]) -> Counter:
            """`labels` are the labels' names with all their values."""
            made = Counter(f"palimpsest_{name}", text, labels, registry=registry)
            for values in product(*labels.values()) if labels else ():
                made.labels(*map(str, values))
            return made

        self.files = counter(
            "files_total", "Fact files taken from the inbox", result=("accepted", "duplicate", "failed")
        )
        self.records = counter(
            "records_total", "Rows of fact files by what they meant", **{"class": RowClass}
        )
        self.edits = counter("edits_total", "Edits by the state they came to", state=_ENDS)
        self.generations = counter(
            "generations_total", "Candidate generations", result=("committed", "discarded")
        )
        self.rollbacks = _Counted("rollbacks_total", "Generations rolled back", trigger="manual")
        registry.register(self.rollbacks)
        self.verdicts = counter(
            "gate_verdicts_total",
            "Tries of edits by what a gate's suite judged of them",
            suite=Suite,
            verdict=[verdict.name.lower() for verdict in Verdict],
        )
        self.hooks = counter("hooks_total", "Publish hooks run", result=("ok", "failed"))
        self.watcher_restarts = counter("watcher_restarts_total", "Restarts of the inbox watcher")

    def _make_gauges(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"palimpsest_{name}", text, labels, registry=registry)

        self.queue_depth = gauge("queue_depth", "Edits waiting or being worked on")
        self.oldest_pending = gauge("oldest_pending_age_seconds", "Age of the oldest edit that is due")
        self.held = gauge("edits_held", "Edits held for a human")
        self.waiting = gauge(
            "edits_waiting", "Edits that wait for approval, their source's rate or the hour", "reason"
        )
        self.live_generation = gauge("live_generation", "Number of the live generation; 0 is the base")
        self.served_generation = gauge(
            "served_generation", "Number of the generation that the serving endpoint was last found with"
        )
        self.suite_value = gauge("suite_value", "Last reading of a suite on the served weights", "suite")
        self.suite_threshold = gauge(
            "suite_threshold", "Threshold of a suite's gate, a min or a max", "suite", "bound"
        )
        self.headroom = gauge(
            "retention_headroom_ratio", "Share of the loss the gates allow that is left; 1 is the base"
        )
        self.edits_left = gauge(
            "capacity_edits_left", "Edits that may follow before they wait; NaN while unknown"
        )
        self.capacity_full = gauge("capacity_full", "1 while edits wait for capacity")
        self.paused = gauge("paused", "1 while editing is paused")
        self.paused_since = gauge(
            "paused_since_timestamp_seconds", "When editing was paused; NaN while it isn't"
        )
        self.last_success = gauge(
            "last_success_timestamp_seconds", "When a stage last came to a good end; NaN: never", "stage"
        )
        self.period = gauge("period_seconds", "How often a stage is to run; 0: never", "stage")
        self.initialised = gauge("initialised_timestamp_seconds", "When the state directory was initialised")
        self.disk_free = gauge("disk_free_bytes", "Free bytes where the models are")
        self.disk_full = gauge("disk_full", "1 while edits wait for room on the disk")
        self.disk_needed = gauge("disk_needed_bytes", "Free bytes without which no edit is started")
        self.ledger_bytes = gauge("ledger_size_bytes", "Size of the ledger")
        self.wal_bytes = gauge("ledger_wal_size_bytes", "Size of the ledger's write-ahead log")
        self.audit_chain_ok = gauge("audit_chain_ok", "1 when the audit's chain was last found whole, else 0")
        self.build_info = gauge("build_info", "Version of this daemon", "version")
        self.model_info = gauge("model_info", "The base model", "name", "sha256")
        for unknown in (self.served_generation, self.audit_chain_ok, self.paused_since, self.initialised):
            unknown.set(math.nan)
        for stage in Stage:
            self.last_success.labels(stage.value).set(math.nan)

    def _make_histograms(self, registry: CollectorRegistry) -> None:
        def histogram(name: str, text: str, buckets: Iterable[float], *labels: str) -> Histogram:
            name = f"palimpsest_{name}"
            return Histogram(name, text, labels, buckets=tuple(buckets), registry=registry)

        self.edit_seconds = histogram(
            "edit_seconds", "Time one try of an edit took, in a batch its share of it", _EDIT_BUCKETS
        )
        self.stage_seconds = histogram(
            "edit_stage_seconds", "Time one stage of an edit took", _STAGE_BUCKETS, "stage"
        )
        self.freshness = histogram(
            "freshness_seconds", "From drop of a fact file to the fact being live", _FRESHNESS_BUCKETS
        )

    def describe(
        self,
        version: str,
        model: str,
        base_sha256: str,
        gates: Iterable[Gate],
        *,
        initialised: float | None = None,
        disk_needed_bytes: int = 0,
        periods: Mapping[Stage, float] | None = None,
    ) -> None:
        """What doesn't change while the daemon runs."""
        self.build_info.labels(version).set(1)
        self.model_info.labels(model, base_sha256).set(1)
        for gate in gates:
            self.suite_threshold.labels(gate.suite.value, _BOUNDS[gate.direction]).set(gate.threshold)
        self.initialised.set(_or_nan(initialised))
        self.disk_needed.set(disk_needed_bytes)
        for stage, seconds in (periods or {}).items():
            self.period.labels(stage.value).set(seconds)

    def tried(self, outcomes: Sequence[Outcome], seconds: float) -> None:
        """Everything that one try moved, in which an edit or a batch of them took so many seconds."""
        for outcome in outcomes:
            self.edit_seconds.observe(seconds / len(outcomes))
            self._moved(outcome)
        if any(outcome.judgement is not None for outcome in outcomes):
            live = any(outcome.state is EditState.LIVE for outcome in outcomes)
            self.generations.labels("committed" if live else "discarded").inc()

    def _moved(self, outcome: Outcome) -> None:
        self.edits.labels(outcome.state.value).inc()
        for stage, seconds in outcome.seconds:
            self.stage_seconds.labels(stage).observe(seconds)
        for suite in outcome.judgement.suites if outcome.judgement else ():
            self.verdicts.labels(suite.suite.value, suite.verdict.name.lower()).inc()
        fresh = outcome.freshness_seconds
        if outcome.state in (EditState.LIVE, EditState.ALREADY_KNOWN) and fresh is not None:
            self.freshness.observe(max(fresh, 0.0))

    def file(self, result: str, row_classes: Iterable[RowClass] = ()) -> None:
        self.files.labels(result).inc()
        for row_class in row_classes:
            self.records.labels(row_class.value).inc()

    def succeeded(self, stage: Stage, now: datetime) -> None:
        """A stage came to a good end that the ledger doesn't tell of."""
        self.last_success.labels(stage.value).set(now.timestamp())

    def show(self, vitals: Vitals) -> None:
        self.queue_depth.set(vitals.queue_depth)
        self.oldest_pending.set(vitals.oldest_pending_age)
        self.held.set(vitals.held)
        self.live_generation.set(vitals.live_generation)
        self.served_generation.set(_or_nan(vitals.served_generation))
        self.rollbacks.value = vitals.rollbacks
        self.paused.set(vitals.paused_since is not None)
        self.paused_since.set(_or_nan(vitals.paused_since))
        self.disk_free.set(vitals.disk_free_bytes)
        self.disk_full.set(vitals.disk_full)
        self.ledger_bytes.set(vitals.ledger_bytes)
        self.wal_bytes.set(vitals.wal_bytes)
        for reason in For:
            self.waiting.labels(reason.value).set(vitals.waiting.get(reason, 0))
        self.headroom.set(vitals.headroom)
        self.edits_left.set(_or_nan(vitals.edits_left))
        self.capacity_full.set(vitals.capacity_full)
        for suite in Suite:
            self.suite_value.labels(suite.value).set(vitals.suites.get(suite, math.nan))
        for stage, when in vitals.last_success.items():
            self.last_success.labels(stage.value).set(when)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
