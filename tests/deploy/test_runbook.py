"""The runbook: a section for each alert, commands that exist, links that lead somewhere."""

import re
import shlex

import pytest

from daemon.cli import make_parser
from store.errors import UsageError
from tests.deploy.conftest import ROOT, alerts

RUNBOOK = (ROOT / "deploy" / "RUNBOOK.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", RUNBOOK, re.MULTILINE | re.DOTALL))


def test_every_alert_has_a_section_and_every_section_an_alert() -> None:
    """In the same order, so that both can be read side by side."""
    assert list(SECTIONS) == list(alerts())


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_says_what_it_means_what_to_look_at_and_what_to_do(name: str) -> None:
    """Three parts, in that order, with something to type in them."""
    parts = re.findall(r"^\*\*(.+?)\.\*\*", SECTIONS[name], re.MULTILINE)
    assert parts == ["Means", "Look at", "Do"]
    assert re.search(r"^    palimpsest ", SECTIONS[name], re.MULTILINE)


@pytest.mark.parametrize("line", sorted(set(re.findall(r"^    palimpsest (.+)$", RUNBOOK, re.MULTILINE))))
def test_its_commands_are_commands(line: str) -> None:
    """The command line's own parser takes each of them."""
    try:
        make_parser().parse_args(shlex.split(line))
    except UsageError as error:
        pytest.fail(str(error))


def test_its_links_lead_to_sections() -> None:
    """A link goes to the section that it names."""
    for text, anchor in re.findall(r"\[(\w+)\]\(#(\w+)\)", RUNBOOK):
        assert text in SECTIONS
        assert anchor == text.lower()


def test_the_events_it_greps_for_are_logged() -> None:
    """Each is written somewhere in the code, as it stands or with its ending filled in."""
    code = "\n".join(path.read_text("utf-8") for path in (ROOT / "daemon").glob("*.py"))
    for event in set(re.findall(r"--grep ([a-z_]+\.[a-z_]+)", RUNBOOK)):
        assert re.search(rf'"{re.escape(event)}"|f"{event.split(".")[0]}\.{{', code), event
