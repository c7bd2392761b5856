"""What must hold of a state directory whatever happened to it; each check reads, none repairs."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from daemon.config import Config
from store.facts import EditState
from store.generations import ModelStore
from store.ledger import Ledger


def check_served(config: Config) -> None:
    """`current` shows a whole generation: every byte fits its manifest."""
    models = ModelStore(config.layout.model)
    assert models.verify(models.current_number()) == []


def check_state(config: Config, inputs: Iterable[bytes] = ()) -> None:
    """Served bytes are the ledger's live generation, the audit chain holds, edits are live at most once
    and none is left in the middle, and every input file lies somewhere."""
    check_served(config)
    models = ModelStore(config.layout.model)
    with Ledger.open_readonly(config.layout.ledger) as ledger:
        assert ledger.integrity() == []
        live = ledger.live_generation()
        assert live is not None
        assert models.current_number() == live.number
        assert models.manifest(live.number)["weights_sha256"] == live.weights_sha256
        assert len(set(live.edits)) == len(live.edits)
        assert not ledger.edits([EditState.EDITING, EditState.JUDGED])
        assert {edit.id for edit in ledger.edits([EditState.LIVE])} <= set(live.edits)
        assert not [row.number for row in ledger.generations() if row.state == "building"]
    assert not list((models.root / ".staging").glob("*"))
    check_inputs(config, inputs)


def check_inputs(config: Config, inputs: Iterable[bytes]) -> None:
    """Input is moved, never deleted."""
    layout = config.layout
    found = {_sha256(path.read_bytes()) for path in _files(layout.inbox, layout.processing)}
    found |= {_sha256(path.read_bytes()) for path in _files(layout.done, layout.failed)}
    assert {_sha256(data) for data in inputs} <= found


def _files(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
