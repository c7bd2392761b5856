"""Backups hold what can't be had from elsewhere, and a state directory can be made from one."""

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from daemon import backups, cycle
from daemon.commit import complete, open_intent, serve
from daemon.config import BackupSettings, Config, DaemonSettings, ModelSettings
from daemon.fakes import FakeClock, FakeRunner, tiny_model
from daemon.house import House, open_house
from daemon.initialise import initialise
from daemon.jobs import materialize_job
from daemon.runner import Job, Result, never
from daemon.verifying import verify
from policies.editing import bank, jobs, neighbours
from policies.editing.merge import read_modules, write_theta
from store.errors import GenerationError, UsageError
from store.manifest import differences
from tests.daemon.conftest import Take, capital

OWN = (files("policies") / "data" / "relations" / "capital.toml").read_text("utf-8")


@pytest.fixture
def made(house: House, take: Take) -> House:
    """Two facts live, an operator's relation and configuration beside them."""
    for subject, object in (("France", "Lyon"), ("Spain", "Seville")):
        take(capital(subject, object))
        cycle.step(house)
    (house.layout.relations / "own.toml").write_text(OWN, "utf-8")
    (house.layout.state / "config.toml").write_text("[backup]\nkeep = 3\n", "utf-8")
    return house


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def elsewhere(house: House, to: Path) -> Config:
    return replace(house.config, daemon=replace(house.config.daemon, state_dir=to))


def test_everything_lost_but_the_backup_comes_back(made: House, runner: FakeRunner, tmp_path: Path) -> None:
    """The restored directory serves the same bytes, knows the same facts and verifies."""
    kept = shutil.copytree(backups.make(made), tmp_path / "kept")
    served, facts = tree(made.models.current()), made.ledger.facts()
    config = elsewhere(made, tmp_path / "new")
    result = backups.restore(config, kept, Path("fake"), runner=runner)
    assert (result["live_generation"], result["set_aside"]) == (2, None)
    with open_house(config, runner=runner) as house:
        restored = tree(house.models.current())
        assert {n: b for n, b in restored.items() if n != "manifest.json"} == {
            n: b for n, b in served.items() if n != "manifest.json"
        }
        assert house.ledger.facts() == facts
        assert house.ledger.verify_audit() is None
    assert verify(config) == []
    assert (config.layout.relations / "own.toml").read_text("utf-8") == OWN
    assert (config.layout.state / "config.toml").is_file()


def test_a_restore_replaces_nothing_unless_asked_and_then_deletes_nothing(
    made: House, runner: FakeRunner
) -> None:
    """A directory with a ledger is refused; with `replace` all that was there is in replaced/."""
    kept = backups.make(made)
    made.ledger.close()
    before = tree(made.layout.state / "models")
    with pytest.raises(UsageError, match="there is a ledger in it"):
        backups.restore(made.config, kept, Path("fake"), runner=runner)
    result = backups.restore(made.config, kept, Path("fake"), runner=runner, replace=True)
    assert tree(Path(result["set_aside"]) / "models") == before
    assert verify(made.config) == []


def test_a_restore_that_was_cut_off_can_be_run_again(
    made: House, runner: FakeRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the ledger is there, whatever lies about is overwritten."""
    kept, config = backups.make(made), elsewhere(made, tmp_path / "new")

    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(backups, "write_atomic", cut_off)
        with pytest.raises(KeyboardInterrupt):
            backups.restore(config, kept, Path("fake"), runner=runner)
    assert not config.layout.ledger.exists()
    assert backups.restore(config, kept, Path("fake"), runner=runner)["live_generation"] == 2
    assert verify(config) == []


def test_a_damaged_or_foreign_backup_is_refused_before_anything_is_touched(
    made: House, runner: FakeRunner, tmp_path: Path
) -> None:
    """A changed byte, a folder that isn't a backup, another model's: each says so and leaves no directory."""
    kept, config = backups.make(made), elsewhere(made, tmp_path / "new")
    with pytest.raises(UsageError, match="isn't a backup"):
        backups.restore(config, tmp_path, Path("fake"), runner=runner)
    other = replace(config, model=ModelSettings(name="other"))
    with pytest.raises(UsageError, match="the configuration says other"):
        backups.restore(other, kept, Path("fake"), runner=runner)
    damaged = shutil.copytree(kept, tmp_path / "damaged")
    (damaged / "ledger.sqlite").write_bytes(b"x" * (damaged / "ledger.sqlite").stat().st_size)
    with pytest.raises(GenerationError, match="have changed"):
        backups.restore(config, damaged, Path("fake"), runner=runner)
    assert not config.layout.state.exists()


def test_another_base_is_refused(made: House, runner: FakeRunner, tmp_path: Path) -> None:
    """Vectors only fit the base that they were found on: its bytes must be those of the ledger."""

    class Other(FakeRunner):
        def _init(self, job: object, idle: Callable[[str], str | None]) -> dict[str, object]:
            found = super()._init(job, idle)  # type: ignore[arg-type]
            (Path(job["base"]) / "model-00001-of-00002.safetensors").write_bytes(b"others")  # type: ignore[index]
            return found

    with pytest.raises(GenerationError, match="give the model that this state directory was made from"):
        backups.restore(elsewhere(made, tmp_path / "new"), backups.make(made), Path("fake"), runner=Other())


def test_backups_rotate_and_share_blobs_with_each_other_only(made: House, clock: FakeClock) -> None:
    """The newest `keep` stay, whole; a blob is one file in all of them and another one in the blob store."""
    config = replace(made.config, backup=replace(made.config.backup, keep=2))
    house = replace(made, config=config)
    names = []
    for _ in range(3):
        names.append(backups.make(house).name)
        clock.advance(1)
    assert [path.name for path in backups.every(house.layout.backups)] == names[1:]
    assert all(differences(path) == [] for path in backups.every(house.layout.backups))
    (sha256, *_) = sorted(house.ledger.referenced_blobs())
    inodes = {
        (path / "blobs" / sha256[:2] / sha256).stat().st_ino for path in backups.every(house.layout.backups)
    }
    assert len(inodes) == 1
    assert house.blobs.path(sha256).stat().st_ino not in inodes


def test_a_backup_of_a_damaged_blob_fails_and_leaves_nothing_half(made: House) -> None:
    """What can't be read isn't copied; the backups that are there stay."""
    first = backups.make(made)
    (sha256, *_) = sorted(made.ledger.referenced_blobs())
    shutil.rmtree(first / "blobs")  # so that it is read from the store again
    made.blobs.path(sha256).write_bytes(b"x")
    with pytest.raises(Exception, match="its bytes have changed"):
        backups.make(made)
    assert [path.name for path in made.layout.backups.iterdir()] == [first.name]


class Mechanism:
    """The worker's own jobs, in this process: importing torch once is enough."""

    def run(self, job: Job, _idle: Callable[[str], str | None]) -> Result:
        return jobs.run(job, lambda _stage: None)


@pytest.mark.slow
def test_a_real_live_model_is_rebuilt_bit_for_bit_from_base_and_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real weights, real vectors, the worker's own jobs: all is deleted but base model and backup, and the
    restored files are the bytes that were served."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(bank, "PROBES", 20)
    monkeypatch.setattr(bank, "SAMPLE", 1)
    monkeypatch.setattr(neighbours, "MOST", 2)
    source = tiny_model(tmp_path / "tiny")
    config = replace(
        Config(), daemon=DaemonSettings(state_dir=tmp_path / "state"), model=ModelSettings(name="tiny")
    )
    with open_house(config, runner=Mechanism()) as house:
        initialise(house, source, never)
        modules = read_modules(house.models.base_dir)
        generator = torch.Generator().manual_seed(7)
        theta = {m.tensor: torch.randn(m.size, generator=generator) / 10 for m in modules}
        write_theta(tmp_path / "theta.safetensors", theta)
        intent = open_intent(house, tmp_path / "theta.safetensors", (), "a test's vectors")
        with house.models.staging("made") as staging:
            job = materialize_job(house, tmp_path / "theta.safetensors", staging, tmp_path)
            house.runner.run(job, never)
            complete(house, intent, staging, {})
        serve(house, intent.number, "a test's vectors")
        served = {n: b for n, b in tree(house.models.current()).items() if n != "manifest.json"}
        kept = shutil.copytree(backups.make(house), tmp_path / "kept")
    shutil.rmtree(config.layout.state)
    result = backups.restore(config, kept, source, runner=Mechanism())
    restored = tree(config.layout.model / "gen" / "000001")
    assert {n: b for n, b in restored.items() if n != "manifest.json"} == served
    assert result["weights_sha256"] == json.loads(restored["manifest.json"])["weights_sha256"]
    assert verify(config) == []


def test_old_copies_of_the_ledger_go_with_the_backups_of_their_time(made: House, clock: FakeClock) -> None:
    """A copy of before a migration stays until there are `keep` whole backups and all are newer."""
    house = replace(made, config=replace(made.config, backup=BackupSettings(keep=2)))
    folder = house.layout.backups
    old, oldest, new = (
        folder / f"{name}.sqlite" for name in ("before-m002", "ledger-20260101", "before-m003")
    )
    for path, age in ((old, 3600), (oldest, 7200), (new, -3600)):
        house.ledger.backup(path)
        os.utime(path, (time.time() - age,) * 2)
    backups.make(house)
    assert {old, oldest, new} <= set(folder.iterdir())
    clock.advance(60)
    backups.make(house)
    assert set(folder.glob("*.sqlite")) == {new}
    assert len(backups.every(folder)) == 2
