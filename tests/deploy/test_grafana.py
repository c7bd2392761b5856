"""The dashboard: well formed, laid out without overlaps, and asking only for what there is."""

import json
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.conftest import ROOT, faults, promtool

GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "dashboards" / "palimpsest.json").read_text("utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
ROWS = ["Is it current?", "Is it safe?", "Pipeline", "Generations", "Resources"]
WIDTH = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def queries() -> Iterator[tuple[str, str]]:
    """Where, and what is asked: panels and annotations."""
    for panel in PANELS:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for note in DASHBOARD["annotations"]["list"]:
        yield note["name"], note["expr"]


def filled(expression: str) -> str:
    """As Grafana sends it."""
    return expression.replace("$__rate_interval", "1m").replace("$instance", ".+")


def cells(panel: dict[str, Any]) -> tuple[range, range]:
    at = panel["gridPos"]
    return range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])


def test_its_rows_are_the_operators_questions() -> None:
    """In the order in which one looks."""
    assert [panel["title"] for panel in PANELS if panel["type"] == "row"] == ROWS


def test_panels_are_unique_and_say_what_they_show() -> None:
    """An id, a title and a description of its own for each."""
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    shown = [panel for panel in PANELS if panel["type"] != "row"]
    assert len({panel["title"] for panel in shown}) == len(shown)
    assert all(panel["description"].endswith(".") for panel in shown)
    assert all(panel["fieldConfig"]["defaults"].get("unit") for panel in shown if panel["type"] != "table")


def test_no_two_panels_overlap_and_none_is_too_wide() -> None:
    """Grafana would push them about, differently in each version."""
    for panel in PANELS:
        assert cells(panel)[0].stop <= WIDTH, panel["title"]
    for one, other in combinations(PANELS, 2):
        sides = zip(cells(one), cells(other), strict=True)
        apart = [max(a.start, b.start) >= min(a.stop, b.stop) for a, b in sides]
        assert any(apart), f"{one['title']} and {other['title']}"


def test_datasource_and_instance_are_chosen_by_the_viewer() -> None:
    """No panel names a datasource or an instance of its own."""
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["datasource", "instance"]
    for panel in PANELS:
        if panel["type"] != "row":
            assert panel["datasource"] == SOURCE
            assert all(target["datasource"] == SOURCE for target in panel["targets"])
    assert [title for title, expression in queries() if 'instance=~"$instance"' not in expression] == []


@pytest.mark.parametrize(("title", "expression"), list(queries()))
def test_panels_ask_only_for_what_is_exported(title: str, expression: str) -> None:
    """Names, labels and values are the daemon's, or recorded by the rules."""
    assert list(faults(expression)) == [], title


def test_every_expression_parses(tmp_path: Path) -> None:
    """As promtool reads them, written as rules."""
    made = [{"record": f"panel:{n}", "expr": filled(text)} for n, (_, text) in enumerate(queries())]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": made}]}))
    promtool("check", "rules", str(path))


def test_provisioning_names_what_is_there() -> None:
    """One datasource, and a provider for the folder that holds the dashboard."""
    sources = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text("utf-8"))
    assert [(s["type"], s["isDefault"]) for s in sources["datasources"]] == [("prometheus", True)]
    providers = yaml.safe_load((GRAFANA / "provisioning/dashboards/palimpsest.yml").read_text("utf-8"))
    assert providers["providers"][0]["options"]["path"].endswith("/dashboards")
    assert DASHBOARD["uid"] == "palimpsest"
    assert "id" not in DASHBOARD  # belongs to one Grafana's database
