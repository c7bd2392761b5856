"""Every `palimpsest_*` metric, moved by one frozen outcome or set from one frozen reading of the house.

Knows names, labels and buckets. Doesn't know where the values come from; no label ever holds fact
text, a file name or an id.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from store.facts import EditState, Outcome, Reading, RowClass

_STAGE_BUCKETS = (0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
_FRESHNESS_BUCKETS = (5, 15, 30, 60, 120, 300, 600, 1800, 3600, 6 * 3600, 24 * 3600)


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the gauges show; ages in seconds, sizes in bytes, times as Unix seconds. `edits_left` is
    None while it is unknown, which a scrape shows as NaN."""

    queue_depth: int = 0
    oldest_pending_age: float = 0.0
    held: int = 0
    live_generation: int = 0
    paused: bool = False
    disk_free_bytes: int = 0
    ledger_bytes: int = 0
    wal_bytes: int = 0
    last_backup: float = 0.0
    headroom: float = 1.0
    edits_left: int | None = None


class Metrics:
    """The metrics of one daemon in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._make_counters(registry)
        self._make_gauges(registry)
        self.stage_seconds = Histogram(
            "palimpsest_edit_stage_seconds",
            "Time one stage of an edit took",
            ["stage"],
            buckets=_STAGE_BUCKETS,
            registry=registry,
        )
        self.freshness = Histogram(
            "palimpsest_freshness_seconds",
            "From drop of a fact file to the fact being live",
            buckets=_FRESHNESS_BUCKETS,
            registry=registry,
        )

    def _make_counters(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"palimpsest_{name}", text, labels, registry=registry)

        self.files = counter("files_total", "Fact files taken from the inbox", "result")
        self.records = counter("records_total", "Rows of fact files by what they meant", "class")
        self.edits = counter("edits_total", "Edits by the state they came to", "state")
        self.generations = counter("generations_total", "Candidate generations", "result")
        self.rollbacks = counter("rollbacks_total", "Generations rolled back", "trigger")
        self.verdicts = counter("gate_verdicts_total", "Gate verdicts", "suite", "verdict")
        self.hooks = counter("hooks_total", "Publish hooks run", "result")
        self.watcher_restarts = counter("watcher_restarts_total", "Restarts of the inbox watcher")
        for result in ("accepted", "duplicate", "failed"):
            self.files.labels(result)
        for row_class in RowClass:
            self.records.labels(row_class.value)
        for state in EditState:
            self.edits.labels(state.value)

    def _make_gauges(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"palimpsest_{name}", text, labels, registry=registry)

        self.queue_depth = gauge("queue_depth", "Edits waiting or being worked on")
        self.oldest_pending = gauge("oldest_pending_age_seconds", "Age of the oldest edit that is due")
        self.held = gauge("edits_held", "Edits held for a human")
        self.live_generation = gauge("live_generation", "Number of the live generation; 0 is the base")
        self.served_generation = gauge(
            "served_generation", "Number of the generation that the serving endpoint was last found with"
        )
        self.served_generation.set(math.nan)
        self.suite_value = gauge("suite_value", "Last reading of a suite on the served weights", "suite")
        self.suite_threshold = gauge("suite_threshold", "Threshold of a suite's gate", "suite")
        self.paused = gauge("paused", "1 while editing is paused")
        self.last_success = gauge("last_success_timestamp_seconds", "When an edit last went live")
        self.disk_free = gauge("disk_free_bytes", "Free bytes where the models are")
        self.ledger_bytes = gauge("ledger_size_bytes", "Size of the ledger")
        self.wal_bytes = gauge("ledger_wal_size_bytes", "Size of the ledger's write-ahead log")
        self.last_backup = gauge("last_backup_timestamp_seconds", "When the ledger was last backed up")
        self.headroom = gauge(
            "retention_headroom_ratio", "Share of the loss the gates allow that is left; 1 is the base"
        )
        self.edits_left = gauge(
            "capacity_edits_left", "Edits that may follow before they wait; NaN while unknown"
        )
        self.build_info = gauge("build_info", "Version of this daemon", "version")
        self.model_info = gauge("model_info", "The base model", "name", "sha256")

    def describe(self, version: str, model: str, base_sha256: str, thresholds: Mapping[str, float]) -> None:
        """What doesn't change while the daemon runs."""
        self.build_info.labels(version).set(1)
        self.model_info.labels(model, base_sha256).set(1)
        for suite, threshold in thresholds.items():
            self.suite_threshold.labels(suite).set(threshold)

    def observe(self, outcome: Outcome, now: datetime) -> None:
        """Everything one edit moved."""
        self.edits.labels(outcome.state.value).inc()
        for stage, seconds in outcome.seconds:
            self.stage_seconds.labels(stage).observe(seconds)
        for suite in outcome.judgement.suites if outcome.judgement else ():
            self.verdicts.labels(suite.suite.value, suite.verdict.name.lower()).inc()
        if outcome.judgement is not None:
            live = outcome.state is EditState.LIVE
            self.generations.labels("committed" if live else "discarded").inc()
        if outcome.state is EditState.LIVE and outcome.judgement is not None:
            self.read(suite.reading for suite in outcome.judgement.suites)
        if outcome.state in (EditState.LIVE, EditState.ALREADY_KNOWN):
            self.last_success.set(now.timestamp())
            if outcome.freshness_seconds is not None:
                self.freshness.observe(max(outcome.freshness_seconds, 0.0))

    def read(self, readings: Iterable[Reading | None]) -> None:
        """Show what was measured of the weights that are served."""
        for reading in readings:
            if reading is not None:
                self.suite_value.labels(reading.suite.value).set(reading.value)

    def file(self, result: str, row_classes: Iterable[RowClass] = ()) -> None:
        self.files.labels(result).inc()
        for row_class in row_classes:
            self.records.labels(row_class.value).inc()

    def endpoint_serves(self, generation: int | None) -> None:
        """What the serving endpoint was found with; None when it couldn't be told."""
        self.served_generation.set(math.nan if generation is None else generation)

    def show(self, vitals: Vitals) -> None:
        self.queue_depth.set(vitals.queue_depth)
        self.oldest_pending.set(vitals.oldest_pending_age)
        self.held.set(vitals.held)
        self.live_generation.set(vitals.live_generation)
        self.paused.set(vitals.paused)
        self.disk_free.set(vitals.disk_free_bytes)
        self.ledger_bytes.set(vitals.ledger_bytes)
        self.wal_bytes.set(vitals.wal_bytes)
        self.last_backup.set(vitals.last_backup)
        self.headroom.set(vitals.headroom)
        self.edits_left.set(math.nan if vitals.edits_left is None else vitals.edits_left)

    def serve(self, host: str, port: int) -> tuple[WSGIServer, int]:
        """Serve on `host`; port 0 picks a free one. Returns the server and its port. Raises OSError."""
        server, _thread = start_http_server(port, host, self.registry)
        return server, server.server_port
