"""The main path on a second real model of another architecture, for those who ask for it.

    PALIMPSEST_GEMMA=1 .venv/bin/python -m pytest tests/model/test_gemma.py

fetches Gemma 3 270M (under Google's terms) and takes long the first time, when its bank is built.
"""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from daemon import cycle, rollback
from daemon.config import Config, DaemonSettings, ModelSettings
from daemon.house import open_house
from daemon.inbox import Inbox
from daemon.ingest import ingest_ready
from daemon.initialise import initialise
from daemon.runner import never
from store.facts import EditState, FactKey
from tests.model.gemma import gemma_model

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(not os.environ.get("PALIMPSEST_GEMMA"), reason="PALIMPSEST_GEMMA isn't set"),
]

FACT = FactKey("South Korea", "capital")


def test_a_fact_goes_live_in_gemma_and_back(tmp_path: Path) -> None:
    """A changed capital passes every gate on Gemma 3, and taking it back restores the base's bytes."""
    config = replace(
        Config(),
        daemon=DaemonSettings(state_dir=tmp_path / "state"),
        model=ModelSettings(name="gemma-3-270m"),
    )
    with open_house(config) as house:
        initialise(house, gemma_model(), never)
        (house.layout.inbox / "a.jsonl").write_text(
            '{"subject": "South Korea", "relation": "capital", "object": "Athens"}\n', "utf-8"
        )
        (house.layout.inbox / "a.jsonl.ready").touch()
        ingest_ready(house, Inbox(house.layout, house.config.inbox, lambda: 1e12))
        (edit,) = house.ledger.edits(key=FACT)
        while house.ledger.edit(edit.id).state is EditState.PENDING:
            assert cycle.step(house) != "nothing is due"
        edit = house.ledger.edit(edit.id)
        assert edit.state is EditState.LIVE, edit.reason
        undone = rollback.without_fact(house, FACT)
        assert undone["weights_sha256"] == house.ledger.generation(0).weights_sha256
