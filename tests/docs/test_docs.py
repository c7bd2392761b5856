"""The documents say what the code does: targets, commands, exit codes, gates, metrics, links, docstrings."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

import store.errors
from daemon.config import Config, parse
from daemon.metrics import Metrics
from policies.gates import Direction, Gate, gates_for
from store.facts import Op
from store.records import FIELDS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
PACKAGES = ("daemon", "policies", "store")
MODULES = sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py") if p.stat().st_size)

# The base units and suffixes of the Prometheus naming rules, and names that count nothing but things.
UNITS = ("_seconds", "_bytes", "_ratio", "_info", "_celsius", "_timestamp_seconds")
UNITLESS_GAUGES = {
    "palimpsest_queue_depth",  # edits
    "palimpsest_edits_held",
    "palimpsest_edits_waiting",
    "palimpsest_capacity_edits_left",
    "palimpsest_live_generation",  # a number that names
    "palimpsest_served_generation",
    "palimpsest_disk_full",  # 0 or 1
    "palimpsest_paused",
    "palimpsest_capacity_full",
    "palimpsest_audit_chain_ok",
    "palimpsest_suite_value",  # the suite decides the unit
    "palimpsest_suite_threshold",
}
PRIVATE_LABELS = {
    "subject",
    "relation",
    "object",
    "fact",
    "file",
    "path",
    "edit",
    "edit_id",
    "generation",
    "id",
}


def targets() -> list[str]:
    """The phony targets of the Makefile, which are what people type."""
    lines = (ROOT / "Makefile").read_text("utf-8").splitlines()
    return next(line for line in lines if line.startswith(".PHONY:")).split()[1:]


def exported() -> Iterator[tuple[Metric, tuple[str, ...]]]:
    """Every metric of the daemon with its labels' names."""
    registry = CollectorRegistry()
    Metrics(registry)
    seen: set[int] = set()
    for collector in list(registry._names_to_collectors.values()):
        if id(collector) not in seen:
            seen.add(id(collector))
            for metric in collector.describe():  # type: ignore[attr-defined]
                yield metric, tuple(getattr(collector, "_labelnames", ()))


def public_name(metric: Metric) -> str:
    """The name as scraped: the client keeps a counter's `_total` apart, and an info's `_info`."""
    return metric.name + {"counter": "_total", "info": "_info"}.get(metric.type, "")


def table(marker: str) -> list[list[str]]:
    """Cells of the README's table after a `<!-- marker: ... -->` comment, without its two head lines."""
    after = re.split(rf"<!-- {marker}:.*?-->\s*", README)[1]
    lines = [line for line in after.split("\n\n")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.parametrize("target", targets())
def test_every_make_target_is_documented_and_exists(target: str) -> None:
    """Someone who reads only the README knows every target, and each one has a rule."""
    assert f"make {target}" in README
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)


def test_documents_name_only_targets_that_exist() -> None:
    """No document sends a reader to a target that isn't there."""
    for name in DOCUMENTS:
        named = re.findall(r"(?:^ {4}|`)make ([a-z-]+)", (ROOT / name).read_text("utf-8"), re.MULTILINE)
        assert set(named) <= set(targets()), name


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_module_says_what_it_is(path: Path) -> None:
    """Each module opens with a docstring, whose first line is a sentence of its own."""
    text = ast.get_docstring(ast.parse(path.read_text("utf-8")))
    assert text
    assert text.split("\n\n")[0].endswith((".", "?"))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_stay_short(path: Path) -> None:
    """A module over 350 lines is asking to be split by meaning."""
    assert len(path.read_text("utf-8").splitlines()) <= 350


def test_every_metric_is_documented_with_its_type_and_labels() -> None:
    """The README's table holds exactly the exported metrics."""
    documented = {row[0].strip("`"): row for row in table("metrics")}
    expected = {public_name(metric): (metric, labels) for metric, labels in exported()}
    assert set(documented) == set(expected)
    for name, (metric, labels) in expected.items():
        assert documented[name][1] == metric.type, name
        assert set(re.findall(r"`(\w+)`", documented[name][2])) >= set(labels), name


def test_metric_names_follow_the_prometheus_rules() -> None:
    """One prefix, lower case, base units, `_total` only on counters, and help on each."""
    for metric, labels in exported():
        name = public_name(metric)
        assert re.fullmatch(r"palimpsest_[a-z][a-z0-9_]*", name), name
        assert metric.documentation, name
        assert not name.endswith(
            ("_count", "_sum", "_bucket", "_ms", "_milliseconds", "_minutes", "_kb", "_mb")
        )
        assert (metric.type == "counter") is name.endswith("_total"), name
        if metric.type == "histogram":
            assert name.endswith(UNITS), name
        if metric.type == "gauge":
            assert name.endswith(UNITS) or name in UNITLESS_GAUGES, name
        assert all(re.fullmatch(r"[a-z][a-z0-9_]*", label) for label in labels), name
        assert not set(labels) & {"le", "quantile", "job", "instance"}, name


def test_no_label_can_hold_what_a_fact_says() -> None:
    """Labels are few and closed: nothing that grows with the facts, nor anything private."""
    for metric, labels in exported():
        assert not set(labels) & PRIVATE_LABELS, public_name(metric)


def test_the_gates_table_is_what_is_judged() -> None:
    """Thresholds in the README are the ones that candidates meet."""
    documented = {row[0].strip("`"): (row[2], row[3]) for row in table("gates")}
    upsert, retract = gates_for(Op.UPSERT), gates_for(Op.RETRACT)
    judged = {str(u.suite): (_rule(u), _rule(r)) for u, r in zip(upsert, retract, strict=True)}
    assert documented == judged


def _rule(gate: Gate) -> str:
    return f"{'>=' if gate.direction is Direction.AT_LEAST else '<='} {gate.threshold:g}"


def test_the_fact_file_table_has_every_field() -> None:
    """A field that the parser takes is in the README, and no other."""
    section = README.split("## Fact files")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(FIELDS)


def test_the_exit_code_table_is_the_codes() -> None:
    """The README's table is the one in `store.errors`, word for word, and no code is missing from it."""
    assert {int(row[0]): row[1] for row in table("exit codes")} == store.errors.EXIT_CODES
    codes = {value for name, value in vars(store.errors).items() if re.match("EXIT_(?!CODES)", name)}
    assert codes == set(store.errors.EXIT_CODES)


def test_every_command_is_documented() -> None:
    """What `palimpsest --help` lists is in the README's table of commands, and the other way round."""
    script = "import sys; sys.argv = ['palimpsest', '--help']; from daemon.cli import main; sys.exit(main())"
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    commands = set(re.findall(r"^ {4}([a-z][a-z-]*)(?: {2,}|$)", shown.stdout, re.MULTILINE))
    section = README.split("## Commands")[1].split("<!-- exit codes")[0]
    first_cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert {name for cell in first_cells for name in re.findall(r"`([a-z-]+)", cell)} == commands


def test_configuration_named_in_the_readme_exists() -> None:
    """The README's example is accepted by the parser as it stands, and so are keys named in prose."""
    section = README.split("## Configuration")[1].split("\n## ")[0]
    example = "\n".join(line[4:] for line in section.splitlines() if line.startswith("    "))
    parse(example, "README.md")
    hints = get_type_hints(Config)
    for name in DOCUMENTS:
        for table_name, key in re.findall(r"`([a-z]+)\.([a-z_]+)`", (ROOT / name).read_text("utf-8")):
            if table_name in hints and table_name not in PACKAGES:
                assert key in _keys(hints[table_name]), f"{name}: {table_name}.{key}"


def _keys(kind: Any) -> set[str]:
    return {f.name for f in fields(kind)} if is_dataclass(kind) else set()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_between_documents_lead_somewhere(name: str) -> None:
    """Every relative link, and every path in backquotes that names one of our folders, exists."""
    text = (ROOT / name).read_text("utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    folders = "|".join((*PACKAGES, "tests", "deploy", "systemd"))
    paths = re.findall(rf"`((?:{folders})/[\w./@-]+)`", text)
    assert [p for p in (*links, *paths) if not (ROOT / p).exists()] == []


def test_documents_name_no_machine() -> None:
    """No path of one person's machine, and nothing that only exists in a workplace."""
    for path in (
        *(ROOT / name for name in DOCUMENTS),
        ROOT / "Makefile",
        ROOT / ".ci" / "run",
        ROOT / "pyproject.toml",
    ):
        assert not re.search(r"/(?:home|root|tmp|work)/", path.read_text("utf-8")), path.name
