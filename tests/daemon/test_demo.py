"""The demonstration proves what it shows, and says so when something isn't."""

import json
import sys
from pathlib import Path

import pytest

from daemon import demo
from daemon.fakes import FakeRunner
from daemon.house import open_house
from daemon.initialise import initialise
from daemon.runner import never
from tests.daemon.fake_daemon import BASE, make_config

pytestmark = pytest.mark.slow

SCRIPT = {"France": "known"}


def demonstrate(state: Path, script: dict[str, str]) -> tuple[demo.Proof, str]:
    """Run it against a fake daemon process."""
    config = make_config(state)
    runner = FakeRunner(base=BASE)
    with open_house(config, runner=runner) as house:
        initialise(house, Path("fake"), never)
    said: list[str] = []
    command = [sys.executable, "-m", "tests.daemon.fake_daemon", str(state), json.dumps(script)]
    proof = demo.demonstrate(config, command, runner, said.append)
    return proof, "\n".join(said)


def test_every_claim_of_the_demonstration_holds(tmp_path: Path) -> None:
    """Known, changed and retracted facts, retention, metrics, rollback and the stop."""
    proof, said = demonstrate(tmp_path / "state", SCRIPT)
    assert proof.holds, said
    assert len(proof.checks) == 13
    assert "Lyra" in said
    assert 'edits_total{"state": "live"}' in said


def test_a_claim_that_is_not_so_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fact that the model turns out to know already isn't what was promised."""
    monkeypatch.setattr(demo, "weights_sha256", lambda folder: "other")
    proof, said = demonstrate(tmp_path / "state", SCRIPT)
    assert not proof.holds
    assert [text for so, text in proof.checks if not so] == ["the weights' SHA-256 is what it was"]
    assert "NOT SO" in said
