"""Scrape configuration, rules and alerts: promtool agrees, every name is exported, every alert is tested."""

from collections import Counter
from functools import cache
from typing import Any

import pytest
import yaml

from tests.deploy.conftest import PROMETHEUS, RULES, alerts, faults, promtool, recorded, rules

CASES = PROMETHEUS / "tests" / "alerts_test.yml"


@cache
def cases() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(CASES.read_text("utf-8"))["tests"]
    return found


def test_the_configuration_is_good() -> None:
    """promtool reads it with all its rule files."""
    said = promtool("check", "config", str(PROMETHEUS / "prometheus.yml"))
    assert f"{len(RULES)} rule files found" in said


def test_the_rules_are_good() -> None:
    """Every expression parses, and no rule is written twice."""
    promtool("check", "rules", *map(str, RULES))


def test_every_alert_fires_and_is_silent_when_it_should() -> None:
    """promtool plays the cases through, annotations included."""
    assert "SUCCESS" in promtool("test", "rules", str(CASES))


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule.get("record"))
def test_rules_ask_only_for_what_is_exported(rule: dict[str, Any]) -> None:
    """Names, labels and values are the daemon's; a rule about a typo would be silent for ever."""
    assert list(faults(rule["expr"])) == []


@pytest.mark.parametrize("name", alerts())
def test_every_alert_has_a_case_that_fires_and_one_that_is_silent(name: str) -> None:
    """And each case asks for the alert that its name begins with."""
    kinds = Counter(
        bool(expected["exp_alerts"])
        for case in cases()
        for expected in case["alert_rule_test"]
        if expected["alertname"] == name
    )
    assert kinds[True] >= 1
    assert kinds[False] >= 1
    named = {expected["alertname"] for case in cases() for expected in case["alert_rule_test"]}
    assert named == set(alerts())


@pytest.mark.parametrize("name", alerts())
def test_every_alert_says_what_a_human_needs(name: str) -> None:
    """A severity, one line, a sentence with the numbers, and where the runbook goes on."""
    rule = alerts()[name]
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    assert "{{ $labels.instance }}" in notes["summary"]
    assert notes["description"].endswith(".")
    assert notes["runbook_url"] == f"deploy/RUNBOOK.md#{name.lower()}"


def test_recorded_names_say_what_they_are() -> None:
    """LEVEL:METRIC:OPERATION, as Prometheus asks for, and each of them is used."""
    used = " ".join(rule["expr"] for rule in rules()) + (
        PROMETHEUS.parent / "grafana" / "dashboards" / "palimpsest.json"
    ).read_text("utf-8")
    for name in recorded():
        level, metric, operation = name.split(":")
        assert level in ("instance", "instance_suite")
        assert metric.startswith("palimpsest_")
        assert operation
        assert used.count(name), name


def test_the_checks_of_names_notice_a_typo() -> None:
    """The test above would find a name, a label and a value that don't exist."""
    assert list(faults("palimpsest_editz_total")) == ["palimpsest_editz_total isn't exported"]
    assert list(faults('palimpsest_edits_total{stat="live"}')) == ["palimpsest_edits_total has no label stat"]
    assert list(faults('rate(palimpsest_edits_total{state=~"live|gone"}[5m])')) == [
        "palimpsest_edits_total: state is never ['gone']"
    ]
    assert list(faults('palimpsest_edit_stage_seconds_bucket{le="5"} + up{job="x"}')) == []
