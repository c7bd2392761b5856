"""What the files in deploy/ are held against: the metrics of a daemon, and the tools of Prometheus."""

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from daemon.metrics import Metrics, Stage, Vitals
from policies.gates import gates_for
from store.facts import Op

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = tuple(sorted((PROMETHEUS / "rules").glob("*.yml")))
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
ADDED = {"job", "instance", "le"}  # by Prometheus and by histograms


@dataclass(frozen=True)
class Exported:
    """One name that can be queried: the labels it has, and of each the values known from the start."""

    labels: dict[str, set[str]]


def tool(name: str) -> str:
    """A tool of Prometheus; skips the test where it isn't installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} isn't installed (Debian: apt-get install --no-install-recommends prometheus)")
    return found


def promtool(*arguments: str, stdin: str = "") -> str:
    """Output of a promtool that found no fault."""
    command = [tool("promtool"), *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@cache
def exported() -> dict[str, Exported]:
    """Every name that a daemon's metrics can be asked by."""
    metrics = Metrics(CollectorRegistry())
    periods = dict.fromkeys(Stage, 1.0)
    metrics.describe("1", "model", "sha", gates_for(Op.UPSERT), periods=periods)
    metrics.show(Vitals())
    metrics.stage_seconds.labels("learn")
    found: dict[str, Exported] = {}
    for family in metrics.registry.collect():
        for suffix in SUFFIXES[family.type]:
            found[family.name + suffix] = Exported({})
        for sample in family.samples:
            for label, value in sample.labels.items():
                if sample.name in found:
                    found[sample.name].labels.setdefault(label, set()).add(value)
    return found


@cache
def rules() -> tuple[dict[str, Any], ...]:
    files = [yaml.safe_load(path.read_text("utf-8")) for path in RULES]
    return tuple(rule for file in files for group in file["groups"] for rule in group["rules"])


def recorded() -> dict[str, str]:
    """Recording rules by name, with their expressions."""
    return {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def faults(expression: str) -> Iterator[str]:
    """Names that nobody exports, labels and values that they don't have."""
    known = exported()
    for name, _, selectors in _selections(expression):
        if name in recorded() or name in ("up", "ALERTS"):
            continue
        if name not in known:
            yield f"{name} isn't exported"
            continue
        for label, operator, text in selectors:
            values = known[name].labels.get(label)
            if label in ADDED:
                continue
            if values is None:
                yield f"{name} has no label {label}"
            elif operator in ("=", "=~", "!=") and not set(text.split("|")) <= values:
                yield f"{name}: {label} is never {sorted(set(text.split('|')) - values)}"


def _selections(expression: str) -> Iterable[tuple[str, str, list[tuple[str, str, str]]]]:
    """Each metric name of an expression with the matchers in its braces."""
    pattern = r"((?:instance\w*:)?(?:palimpsest|process)_\w+(?::\w+)?|\bup\b|\bALERTS\b)(\{[^}]*\})?"
    for match in re.finditer(pattern, expression):
        matchers = re.findall(r'(\w+)\s*(=~|!=|!~|=)\s*"([^"]*)"', match[2] or "")
        yield match[1], match[2] or "", matchers
