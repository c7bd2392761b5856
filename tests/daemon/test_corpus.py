"""The corpus dropped into a real inbox: nothing stops the daemon's scan, nothing is lost."""

import os
from pathlib import Path

from daemon.fakes import FakeClock
from daemon.house import House
from daemon.inbox import Inbox
from daemon.ingest import ingest_ready, ingest_resumed
from tests.corpus import CASES, GOLDEN, Case


def place(case: Case, folder: Path) -> None:
    """Make one case in a folder, last written long ago."""
    case.make(folder / case.name)
    os.utime(folder / case.name, (0, 0), follow_symlinks=False)


def entries(*folders: Path) -> int:
    """What lies in folders and their folders by date, without reports."""
    reports = (".error.json", ".result.json")
    return sum(
        not path.is_dir() or path.suffix == ".jsonl"
        for folder in folders
        for path in folder.iterdir()
        if not path.name.endswith(reports)
    )


def test_every_file_of_the_corpus_ends_where_it_belongs(house: House, inbox: Inbox, clock: FakeClock) -> None:
    """All files dropped at once end in done/ or failed/, as their golden files say, with those very
    reports beside them, and the inbox and processing/ are empty."""
    for case in CASES:
        place(case, house.layout.inbox)
    (house.layout.inbox / ".other").unlink()  # the hard link's other name
    done = {ingested.name: ingested for ingested in ingest_ready(house, inbox)}
    assert set(done) == {case.name for case in CASES}
    for case in CASES:
        golden = GOLDEN / f"{case.id}.error.json"
        ingested = done[case.name]
        assert (ingested.result == "failed") is golden.exists(), case.id
        if golden.exists():
            report = (house.layout.state / ingested.report["see"]).read_text("ascii")
            assert report == golden.read_text("ascii"), case.id
    assert list(house.layout.inbox.iterdir()) == []
    assert list(house.layout.processing.iterdir()) == []
    assert entries(house.layout.failed, house.layout.done / clock().date().isoformat()) == len(CASES)


def test_what_a_crash_left_claimed_ends_where_it_belongs(house: House, inbox: Inbox) -> None:
    """The same files found in processing/ at start come to the same ends, whatever their names are there."""
    for case in CASES:
        place(case, house.layout.processing)
    (house.layout.processing / ".other").unlink()
    done = {ingested.name: ingested for ingested in ingest_resumed(house, inbox)}
    for case in CASES:
        refused = (GOLDEN / f"{case.id}.error.json").exists()
        assert (done[case.name].result == "failed") is refused, case.id
    assert list(house.layout.processing.iterdir()) == []
