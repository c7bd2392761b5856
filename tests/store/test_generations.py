"""Generations on disk, blobs and the lock."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from store.blobs import BlobError, BlobStore
from store.errors import GenerationError, LockedError
from store.generations import MANIFEST, ModelStore, weights_sha256
from store.lock import StateLock


@pytest.fixture
def models(tmp_path: Path) -> ModelStore:
    """A sealed base of two shards that is served."""
    models = ModelStore(tmp_path / "models" / "tiny")
    models.base_dir.mkdir(parents=True)
    fill(models.base_dir, b"editable")
    models.seal_base({"source": "test"})
    models.promote(0)
    return models


def fill(directory: Path, editable: bytes, shared: Path | None = None) -> None:
    if shared is None:
        (directory / "a.safetensors").write_bytes(b"shared")
    else:
        (directory / "a.safetensors").hardlink_to(shared)
    (directory / "b.safetensors").write_bytes(editable)
    (directory / "adapter").mkdir()
    (directory / "adapter" / "adapter.safetensors").write_bytes(b"adapter")
    (directory / "config.json").write_text("{}")


def build(models: ModelStore, number: int, editable: bytes = b"edited") -> None:
    with models.staging(f"t{number}") as staging:
        fill(staging, editable, models.base_dir / "a.safetensors")
        models.commit(staging, number, {"parent": 0, "edits": [number]})


def test_a_commit_is_a_whole_directory_with_its_manifest(models: ModelStore) -> None:
    """The manifest lists every file with size and hash, and what the caller said."""
    build(models, 42)
    manifest = models.manifest(42)
    assert models.gen_dir(42).name == "000042"
    assert sorted(manifest["files"]) == [
        "a.safetensors", "adapter/adapter.safetensors", "b.safetensors", "config.json",
    ]  # fmt: skip
    assert manifest["files"]["b.safetensors"] == {"sha256": hashlib.sha256(b"edited").hexdigest(), "size": 6}
    assert (manifest["number"], manifest["edits"]) == (42, [42])
    assert manifest["weights_sha256"] == weights_sha256(models.gen_dir(42))
    assert models.verify(42) == []
    assert models.numbers() == [0, 42]
    assert models.sweep_staging() == []


def test_equal_weights_have_equal_hashes(models: ModelStore) -> None:
    """The hash of a generation's weights depends on its tensors' files alone."""
    build(models, 1, b"editable")
    assert models.manifest(1)["weights_sha256"] == models.manifest(0)["weights_sha256"]
    build(models, 2)
    assert models.manifest(2)["weights_sha256"] != models.manifest(0)["weights_sha256"]


def test_promotion_swaps_one_relative_symlink(models: ModelStore) -> None:
    """`current` names the served directory, `previous` the one before; promoting twice is free."""
    assert (models.current_number(), models.previous_number()) == (0, None)
    build(models, 1)
    build(models, 2)
    models.promote(1)
    models.promote(2)
    models.promote(2)
    assert os.readlink(models.root / "current") == "gen/000002"
    assert (models.current_number(), models.previous_number()) == (2, 1)
    assert models.current() == models.gen_dir(2).resolve()
    models.promote(0)
    assert os.readlink(models.root / "current") == "base"


def test_what_is_incomplete_cannot_be_promoted(models: ModelStore) -> None:
    """Without a manifest there is no generation, and `current` stays."""
    models.gen_dir(7).mkdir(parents=True)
    for number in (7, 8):
        with pytest.raises(GenerationError):
            models.promote(number)
    assert models.current_number() == 0


def test_staging_is_gone_unless_committed(models: ModelStore) -> None:
    """A build that fails leaves nothing; what a crash left is swept."""
    with models.staging("t") as staging:
        fill(staging, b"x")
    assert not staging.exists()
    (models.root / ".staging" / "crashed").mkdir()
    assert models.sweep_staging() == ["crashed"]
    with pytest.raises(GenerationError), models.staging("../x"):
        pass


def test_a_number_is_committed_once(models: ModelStore) -> None:
    """A second commit of a number is refused, and the base can't be committed over."""
    build(models, 1)
    for number in (1, 0):
        with pytest.raises(GenerationError, match="its directory exists"):
            build(models, number)
    assert models.verify(1) == []


@pytest.mark.parametrize("kind", ["symlink", "fifo", "no weights"])
def test_only_plain_files_with_weights_are_committed(models: ModelStore, kind: str) -> None:
    """Links, pipes and a directory without weights can't become a generation."""
    with models.staging("t") as staging:
        if kind != "no weights":
            fill(staging, b"x")
        if kind == "symlink":
            (staging / "c").symlink_to("/etc/passwd")
        if kind == "fifo":
            os.mkfifo(staging / "c")
        with pytest.raises(GenerationError):
            models.commit(staging, 1, {})
    assert models.numbers() == [0]


def test_damage_is_named(models: ModelStore) -> None:
    """Verification names files that are missing, extra, cut or changed."""
    build(models, 1)
    folder = models.gen_dir(1)
    (folder / "b.safetensors").write_bytes(b"edite!")
    (folder / "adapter" / "adapter.safetensors").write_bytes(b"a")
    (folder / "config.json").unlink()
    (folder / "extra").touch()
    assert models.verify(1) == [
        "config.json is missing",
        "extra isn't in the manifest",
        "adapter/adapter.safetensors has 1 bytes, the manifest says 7",
        "the bytes of b.safetensors have changed",
    ]
    (folder / MANIFEST).write_text("{")
    assert "isn't JSON" in models.verify(1)[0]
    assert models.verify(9) == ["there is no such directory"]


def test_every_byte_is_synced_before_the_rename(models: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """All files, then the manifest, then the directories are on disk before the directory gets its
    name; an fsync that fails stops the commit."""
    synced: list[str] = []
    real = os.fsync

    def record(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    build(models, 1)
    manifest = next(i for i, name in enumerate(synced) if name.startswith(f".{MANIFEST}"))
    named = synced.index("gen", manifest)
    files = {"a.safetensors", "b.safetensors", "adapter.safetensors", "config.json", "adapter", "t1"}
    assert files <= set(synced[:manifest])
    assert "t1" in synced[manifest:named]

    def fail(descriptor: int) -> None:
        raise OSError("I/O error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="I/O error"):
        build(models, 2)
    assert models.numbers() == [0, 1]


def test_the_served_one_and_the_base_stay(models: ModelStore) -> None:
    """Neither deletion nor quarantine touches what is served, nor the base."""
    build(models, 1)
    models.promote(1)
    for number in (0, 1, 5):
        with pytest.raises(GenerationError):
            models.delete(number)
        with pytest.raises(GenerationError):
            models.quarantine(number, "r")
    models.promote(0)
    models.delete(1)
    assert models.numbers() == [0]
    assert (models.base_dir / "a.safetensors").read_bytes() == b"shared"


def test_quarantine_keeps_every_copy_and_says_why(models: ModelStore) -> None:
    """A number that is set aside twice is kept twice, each with its reason."""
    for reason in ("torn", "torn again"):
        build(models, 1)
        aside = models.quarantine(1, reason)
        assert (aside / "quarantined.txt").read_text() == f"{reason}\n"
    assert sorted(path.name for path in (models.root / "quarantine").iterdir()) == ["000001", "000001-2"]


def test_nothing_served_and_strange_links_are_errors(models: ModelStore) -> None:
    """A missing, dangling or foreign `current` is an error that says so."""
    empty = ModelStore(models.root.parent / "empty")
    with pytest.raises(GenerationError, match="nothing is served"):
        empty.current_number()
    assert empty.numbers() == []
    (models.root / "current").unlink()
    (models.root / "current").symlink_to("gen/000009")
    with pytest.raises(GenerationError, match="its directory is missing"):
        models.current()
    (models.root / "current").unlink()
    (models.root / "current").symlink_to("/etc")
    with pytest.raises(GenerationError, match="isn't a generation"):
        models.current_number()


def test_room_is_two_models(models: ModelStore) -> None:
    """A build wants room for two models, whatever else is asked for."""
    assert models.disk_needed() == 2 * models.model_bytes()
    assert models.has_room()
    assert not models.has_room(2**62)


def test_blobs_are_named_by_their_bytes(tmp_path: Path) -> None:
    """What is put can be got; putting again is free and mends damage."""
    blobs = BlobStore(tmp_path / "blobs")
    name = blobs.put(b"delta")
    assert name == hashlib.sha256(b"delta").hexdigest()
    assert blobs.has(name)
    assert blobs.get(name) == b"delta"
    blobs.path(name).write_bytes(b"del")
    with pytest.raises(BlobError, match="its bytes have changed"):
        blobs.get(name)
    assert blobs.put(b"delta") == name
    assert blobs.get(name) == b"delta"


def test_missing_and_misnamed_blobs_are_errors(tmp_path: Path) -> None:
    """A missing blob says so; a name that isn't a hash never becomes a path."""
    blobs = BlobStore(tmp_path)
    assert not blobs.has("0" * 64)
    with pytest.raises(BlobError, match="missing"):
        blobs.get("0" * 64)
    for name in ("../../etc/passwd", "", "A" * 64):
        with pytest.raises(BlobError, match="isn't a SHA-256"):
            blobs.get(name)


def test_sweeping_blobs_keeps_what_is_named(tmp_path: Path) -> None:
    """Blobs nobody names and torn writes go, the others stay."""
    blobs = BlobStore(tmp_path)
    kept, gone = blobs.put(b"kept"), blobs.put(b"gone")
    torn = blobs.path(kept).with_name(".torn.tmp")
    torn.touch()
    assert sorted(blobs.gc({kept})) == sorted([gone, torn.name])
    assert blobs.get(kept) == b"kept"


HOLD = """
import sys
from pathlib import Path
from store.lock import StateLock
with StateLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_the_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    """A second process is told the pid of the first; killing the first frees the lock."""
    lock = StateLock(tmp_path)
    assert lock.holder() is None
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with pytest.raises(LockedError, match=f"process {child.pid} holds it") as caught:
            lock.acquire()
        assert caught.value.exit_code == 75
        assert lock.holder() == child.pid
        child.kill()
        child.wait()
    with lock:
        assert lock.holder() == os.getpid()
        with pytest.raises(LockedError):
            StateLock(tmp_path).acquire()
    assert lock.holder() is None


def test_a_manifest_is_readable_json(models: ModelStore) -> None:
    """Operators and tools can read the manifest with any JSON reader."""
    assert json.loads((models.base_dir / MANIFEST).read_text())["source"] == "test"
