"""Each hazard that the doctor knows, from plain facts, and one look at a real state directory."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from daemon import doctor, kernel_clock
from daemon.doctor import OK, PROBLEM, WARNING, Finding
from daemon.house import House

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ((3, 36, 0), PROBLEM),
        ((3, 40, 1), WARNING),
        ((3, 44, 5), WARNING),
        ((3, 44, 6), OK),
        ((3, 45, 0), WARNING),
        ((3, 50, 7), OK),
        ((3, 51, 2), WARNING),
        ((3, 51, 3), OK),
        ((3, 52, 0), OK),
    ],
)
def test_sqlite_versions_with_known_hazards_are_named(version: tuple[int, ...], level: str) -> None:
    """No STRICT tables is a problem, the WAL-reset bug a warning, its fixes and backports are fine."""
    found = doctor.sqlite_version(version)
    assert found.level == level
    assert bool(found.hint) == (level != OK)


@pytest.mark.parametrize(("kind", "level"), [("nfs4", PROBLEM), ("fuse.sshfs", PROBLEM), ("ext4", OK)])
def test_a_network_mount_is_a_problem(kind: str, level: str) -> None:
    """SQLite's log and atomic renames need a local file system."""
    assert doctor.file_system(kind, "/srv").level == level


def test_parts_on_other_devices_are_named() -> None:
    """Files are renamed between the folders, which works on one file system only."""
    assert doctor.devices({"state": 1, "inbox": 1}).level == OK
    found = doctor.devices({"state": 1, "inbox": 2, "gen": 1})
    assert (found.level, "inbox" in found.detail) == (PROBLEM, True)


def test_few_inotify_watches_are_a_warning_with_the_command_that_raises_them() -> None:
    """Scans find the files all the same, only later."""
    assert doctor.inotify(65536, 128).level == OK
    assert doctor.inotify(None, None).level == OK
    found = doctor.inotify(100, 128)
    assert (found.level, "sysctl" in found.hint) == (WARNING, True)


def test_whoever_else_may_write_is_named() -> None:
    """The inbox by anybody is a warning, the ledger a problem; so are readers and strangers."""
    assert [f.level for f in doctor.rights({"ledger": 0o100600, "inbox": 0o40750}, 7, {"ledger": 7})] == [OK]
    levels = {
        (f.level, f.detail)
        for f in doctor.rights({"inbox": 0o40777, "ledger": 0o100666}, 7, {"inbox": 7, "ledger": 8})
    }
    assert levels == {
        (WARNING, "anybody may write inbox"),
        (PROBLEM, "anybody may write ledger"),
        (WARNING, "others may read the ledger"),
        (WARNING, "ledger belong to another user"),
    }


def test_room_and_clock() -> None:
    """Less room than an edit needs, and a clock behind the ledger's newest event, are problems."""
    assert [doctor.disk(free, 10).level for free in (9, 11, 100)] == [PROBLEM, WARNING, OK]
    assert doctor.clock(NOW, None).level == OK
    assert doctor.clock(NOW, NOW + timedelta(minutes=1)).level == OK
    assert doctor.clock(NOW, NOW + timedelta(hours=1)).level == PROBLEM


def test_model_files_that_lack_break_or_are_pickles() -> None:
    """What an engine couldn't load is a problem, what it might execute a warning."""
    whole = ["config.json", "manifest.json", "tokenizer.json", "model.safetensors"]
    assert [f.level for f in doctor.model_files(Path("base"), whole, {})] == [OK]
    (lacks,) = doctor.model_files(Path("base"), ["config.json", "manifest.json"], {})
    assert (lacks.level, "tokenizer" in lacks.detail) == (PROBLEM, True)
    (broken,) = doctor.model_files(Path("base"), whole, {"model.safetensors": "header too large"})
    assert (broken.level, "header too large" in broken.detail) == (PROBLEM, True)
    (pickle,) = doctor.model_files(Path("base"), [*whole, "pytorch_model.bin"], {})
    assert (pickle.level, "pytorch_model.bin" in pickle.detail) == (WARNING, True)


def test_python_daemon_beside_us_is_a_problem() -> None:
    """It has the same import name; a missing library is one too."""
    assert doctor.packages({"torch": "2", "python-daemon": None}).level == OK
    assert doctor.packages({"torch": "2", "python-daemon": "3"}).level == PROBLEM
    assert "torch" in doctor.packages({"torch": None}).detail


def test_what_lies_around_is_said() -> None:
    """Files that wait without a daemon, and refused ones; a running daemon with none is fine."""
    assert [f.level for f in doctor.activity(17, 3, 0)] == [OK]
    assert [f.level for f in doctor.activity(None, 3, 2)] == [WARNING, WARNING]


def test_a_real_state_directory_is_examined(house: House) -> None:
    """A weight file that isn't one is found by its header, and a state directory that isn't there said."""
    found = {f.detail: f for f in doctor.examine(house.config)}
    assert any(f.level == PROBLEM and "model-00002-of-00002.safetensors" in f.detail for f in found.values())
    house.ledger.close()
    house.layout.ledger.unlink()
    assert doctor.examine(house.config)[-1] == Finding(
        "state directory",
        PROBLEM,
        f"{house.layout.state} holds no ledger",
        "`palimpsest init`, or give --state DIR",
    )


def test_a_clock_that_nothing_corrects_is_a_warning() -> None:
    """What the kernel doesn't tell is none, and a warning is no failure of the command."""
    assert [doctor.synchronised(told).level for told in (True, None, False)] == [OK, OK, WARNING]
    assert "timesyncd" in doctor.synchronised(False).hint


def test_the_kernel_is_asked_and_its_clock_left_alone() -> None:
    """adjtimex only reads: asking twice says the same, with the bit that marks an unsynchronised clock."""
    assert kernel_clock.is_synchronised() in (True, False, None)
    assert kernel_clock.is_synchronised() is kernel_clock.is_synchronised()
