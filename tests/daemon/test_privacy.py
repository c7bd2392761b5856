"""Nothing that a fact says shows outside the ledger: not in logs, metrics, the process table or run files."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from daemon import commands_run, orders
from daemon.config import Config
from daemon.house import House
from store.errors import PalimpsestError
from store.facts import EditState
from tests.daemon.running import Daemon, Start

SECRET = "Zx7f3aQ"  # in every text of every row, and in the files' names
SCRIPT = {f"{SECRET} {way}": way for way in ("known", "bad", "crash", "garbage", "failed")}
REDACTING = (
    "[logs]\nlevel = 'debug'\n[sources.denied]\nrelations = []\n[sources.slow]\nrequire_approval = true\n"
)


def secret(subject: str, **more: Any) -> dict[str, Any]:
    texts = {key: f"{SECRET} {key}" for key in ("relation", "object", "old", "note", "source")}
    lists = {key: [f"{SECRET} {key} of {{subject}}?"] for key in ("prompts", "paraphrases")}
    return {**texts, **lists, "aliases": [f"{SECRET} alias"], "subject": f"{SECRET} {subject}", **more}


def walk(daemon: Daemon) -> dict[str, str]:
    """Facts on every way through the daemon; returns all that somebody outside could see of it."""
    rows = [secret(way) for way in ("good", "known", "bad", "crash", "garbage", "failed")]
    daemon.drop(f"{SECRET}.jsonl", *rows, secret("waits", source="slow"))
    daemon.drop(f"{SECRET} denied.jsonl", secret("good", source="denied"))
    for name, content in ((f"{SECRET}.json", f'["{SECRET}"'), (f"{SECRET}.txt", SECRET)):
        (daemon.config.layout.inbox / name).write_text(content)
    (daemon.config.layout.inbox / f"{SECRET} link.jsonl").symlink_to(SECRET)
    settled = (EditState.LIVE, EditState.ALREADY_KNOWN, EditState.HELD, EditState.HELD)
    daemon.wait_for(lambda: [daemon.state_of(n) for n in (1, 2, 3, 6)] == list(settled), "settled edits")
    daemon.wait_for(lambda: len(list(daemon.config.layout.failed.glob("*.error.json"))) == 4, "refused files")
    orders.give(daemon.config, "rollback", {"fact": [f"{SECRET} good", f"{SECRET} relation"]})
    with pytest.raises(PalimpsestError):
        orders.give(daemon.config, "rollback", {"fact": [f"{SECRET} none", f"{SECRET} relation"]})
    process = Path(f"/proc/{daemon.process.pid}")
    script = json.dumps(SCRIPT)  # an argument of the fake daemon only
    seen = {
        "metrics": daemon.scrape(),
        "process": "".join((process / name).read_text() for name in ("cmdline", "comm", "environ")).replace(
            script, ""
        ),
        "threads": "".join(path.read_text() for path in process.glob("task/*/comm")),
        "run": "".join(p.read_text() for p in daemon.config.layout.run.iterdir() if p.is_file()),
    }
    daemon.stop(signal.SIGTERM)
    return {**seen, "stderr": daemon.log.read_text()}


def begun(start: Start, tmp_path: Path, settings: str) -> Daemon:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "config.toml").write_text(settings)
    return start(SCRIPT)


@pytest.mark.slow
def test_nothing_of_a_fact_is_seen_outside(start: Start, tmp_path: Path) -> None:
    """Whatever becomes of a row or a file: live, known, held, broken down, refused, denied, waiting."""
    seen = walk(begun(start, tmp_path, REDACTING))
    assert {place: SECRET.casefold() in text.casefold() for place, text in seen.items()} == dict.fromkeys(
        seen, False
    )
    logged = [json.loads(line) for line in seen["stderr"].splitlines() if line.startswith("{")]
    events = {line["event"] for line in logged}
    assert {
        "file.failed",
        "file.accepted",
        "edit.live",
        "edit.held",
        "edit.broke_down",
        "order.failed",
    } <= events
    assert all(len(line["sha256"]) == 64 for line in logged if line["event"] == "file.accepted")


@pytest.mark.slow
def test_fact_text_is_logged_when_asked_for(start: Start, tmp_path: Path) -> None:
    """The same walk shows facts and file names then, in the log and nowhere else."""
    asked = REDACTING.replace("[logs]\n", "[logs]\nfact_text = true\n")
    seen = walk(begun(start, tmp_path, asked))
    assert [place for place, text in seen.items() if SECRET in text] == ["stderr"]
    assert f"{SECRET}.jsonl" in seen["stderr"]
    assert f"{SECRET} good" in seen["stderr"]


def test_a_crash_quotes_nothing(
    house: House, config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The interpreter's traceback would; ours names places only, and the exit status says that it failed."""

    def crash(*_: object) -> None:
        raise ValueError(SECRET)

    monkeypatch.setattr("daemon.service.Service.turn", crash)
    house.ledger.close()
    assert commands_run.run(None, config) == 1  # type: ignore[arg-type]
    captured = capsys.readouterr()
    assert '"daemon.crashed"' in captured.err
    assert "ValueError" in captured.err
    assert SECRET not in captured.err + captured.out
