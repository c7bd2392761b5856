"""The inbox's contract: what is ready, what is refused and where everything ends."""

import errno
import itertools
import json
import os
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from daemon.fakes import FakeClock, ScriptedFolder
from daemon.house import House
from daemon.inbox import Inbox, is_ignored
from daemon.ingest import Ingested, ingest_ready, ingest_resumed
from daemon.submission import read_file
from store.errors import FactFileError
from store.factfile import parse
from store.facts import EditState
from tests.daemon.conftest import Take, capital

GOOD = '{"subject": "France", "relation": "capital", "object": "Lyon"}\n'


def refused(house: House, name: str) -> dict[str, Any]:
    """The report beside a refused file."""
    report: dict[str, Any] = json.loads((house.layout.failed / f"{name}.error.json").read_text())
    assert os.path.lexists(house.layout.failed / name)
    assert not os.path.lexists(house.layout.inbox / name)
    return report


@pytest.mark.parametrize(
    ("name", "content", "line", "column", "word"),
    [
        ("key.jsonl", GOOD + '{"subject": "a", "relation": "b", "objct": "c"}', 2, None, "objct"),
        ("missing.jsonl", '{"subject": "a", "relation": "b"}', 1, None, "object"),
        ("date.csv", "subject,relation,object,effective_at\na,b,c,yesterday\n", 2, None, "yesterday"),
        ("nul.jsonl", b'{"subject": "a\x00", "relation": "b", "object": "c"}', 1, None, ""),
        ("latin.csv", "subject,relation,object\nKöln,river,Rhein\n".encode("latin-1"), 2, 2, ""),
        ("bomb.yaml", "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\n" * 1,
         None, None, ""),
        ("broken.json", '[{"subject": "a",\n  "relation" "b"}]', 2, 14, ""),
        ("empty.jsonl", "", 1, 1, ""),
        ("prose.txt", "hello", 1, 1, ""),
    ],
)  # fmt: skip
def test_bad_content_is_refused_with_line_and_column(
    house: House, inbox: Inbox, folder: ScriptedFolder,
    name: str, content: str | bytes, line: int | None, column: int | None, word: str,
) -> None:  # fmt: skip
    """Whatever is wrong with a file, its report names the place, and the file beside it gets in."""
    folder.drop(name, content)
    folder.drop("zz-good.jsonl", GOOD)
    results = {done.name: done.result for done in ingest_ready(house, inbox)}
    assert results == {name: "failed", "zz-good.jsonl": "accepted"}
    report = refused(house, name)
    assert report["line"] >= 1
    assert report["column"] >= 1
    assert line is None or report["line"] == line
    assert column is None or report["column"] == column
    assert word in report["cause"] + report["excerpt"]
    assert report["code"]
    assert house.metrics.registry.get_sample_value("palimpsest_files_total", {"result": "failed"}) == 1


def test_a_symbolic_link_is_refused_and_its_target_never_read(
    house: House, inbox: Inbox, folder: ScriptedFolder, tmp_path: Path
) -> None:
    """A link in the inbox can't make the daemon read another file."""
    (tmp_path / "secret.jsonl").write_text(GOOD)
    (folder.path / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    (done,) = ingest_ready(house, inbox)
    assert done.result == "failed"
    assert refused(house, "link.jsonl")["code"] == "symlink"
    assert (house.layout.failed / "link.jsonl").is_symlink()


def test_a_directory_a_pipe_and_a_socket_are_refused(
    house: House, inbox: Inbox, folder: ScriptedFolder
) -> None:
    """Nothing but regular files is opened for reading, and nothing blocks."""
    (folder.path / "dir.jsonl").mkdir()
    os.mkfifo(folder.path / "pipe.jsonl")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(folder.path, os.O_RDONLY)
        try:
            listener.bind(f"/proc/self/fd/{here}/sock.jsonl")  # the path itself may be too long for a socket
        finally:
            os.close(here)
        assert {done.result for done in ingest_ready(house, inbox)} == {"failed"}
    assert "directory" in refused(house, "dir.jsonl")["cause"]
    assert "pipe" in refused(house, "pipe.jsonl")["cause"]
    assert refused(house, "sock.jsonl")["line"] == 1


def test_a_huge_sparse_file_is_refused_unread(house: House, inbox: Inbox, folder: ScriptedFolder) -> None:
    """A gigabyte of nothing costs neither memory nor time."""
    with (folder.path / "huge.jsonl").open("wb") as file:
        file.truncate(1024**3)
    os.utime(folder.path / "huge.jsonl", (0, 0))
    (done,) = ingest_ready(house, inbox)
    assert done.result == "failed"
    assert refused(house, "huge.jsonl")["code"] == "too_large"


def test_a_file_is_taken_once_it_is_still(
    house: House, inbox: Inbox, folder: ScriptedFolder, clock: FakeClock
) -> None:
    """A writer that is still at it isn't cut off."""
    folder.append("slow.jsonl", GOOD[:20])
    assert inbox.ready(clock()) == []
    assert inbox.waiting()
    clock.advance(1.5)
    folder.append("slow.jsonl", GOOD[20:])
    clock.advance(1.5)
    assert inbox.ready(clock()) == []
    clock.advance(0.6)
    assert inbox.ready(clock()) == ["slow.jsonl"]


def test_a_file_dated_in_the_future_is_taken_by_observation(
    house: House, inbox: Inbox, folder: ScriptedFolder, clock: FakeClock
) -> None:
    """A wrong clock somewhere else can't keep a file waiting."""
    folder.drop("future.jsonl", GOOD, age_seconds=-3600)
    assert inbox.ready(clock()) == []
    clock.advance(2.1)
    assert inbox.ready(clock()) == ["future.jsonl"]


def test_a_marker_makes_a_file_ready_at_once(
    house: House, inbox: Inbox, folder: ScriptedFolder, clock: FakeClock
) -> None:
    """`NAME.ready` is the writer's word, and goes when it was heard."""
    folder.append("a.jsonl", GOOD)
    folder.append("a.jsonl.ready", "")
    assert [done.result for done in ingest_ready(house, inbox)] == ["accepted"]
    assert list(folder.path.iterdir()) == []


@pytest.mark.parametrize(
    "name", [".hidden.jsonl", "a.jsonl~", "a.tmp", "a.jsonl.part", ".a.jsonl.swp", "a.ready"]
)
def test_temporaries_are_ignored(name: str, inbox: Inbox, folder: ScriptedFolder, clock: FakeClock) -> None:
    """What editors and downloaders leave is nobody's business."""
    assert is_ignored(name)
    folder.drop(name, GOOD)
    assert inbox.ready(clock()) == []


def test_files_are_taken_oldest_first(inbox: Inbox, folder: ScriptedFolder, clock: FakeClock) -> None:
    """Order is (mtime, name), so that two exports apply as they were made."""
    folder.drop("b.jsonl", GOOD, age_seconds=10)
    folder.drop("a.jsonl", GOOD, age_seconds=10)
    folder.drop("c.jsonl", GOOD, age_seconds=20)
    assert inbox.ready(clock()) == ["c.jsonl", "a.jsonl", "b.jsonl"]


def test_an_accepted_file_lies_in_done_with_its_rows(house: House, take: Take, clock: FakeClock) -> None:
    """Input is moved, never deleted; the report says each row's class and edit."""
    take(capital("France", "Lyon"), capital("Spain", None))
    folder = house.layout.done / clock().date().isoformat()
    assert (folder / "file1.jsonl").is_file()
    report = json.loads((folder / "file1.jsonl.result.json").read_text())
    assert [(row["line"], row["class"], row["edit"]) for row in report["rows"]] == [
        (1, "new", 1),
        (2, "retracted", 2),
    ]


def test_the_same_bytes_again_are_a_duplicate(house: House, inbox: Inbox, folder: ScriptedFolder) -> None:
    """Identity is the content, whatever the name: no second edit, nothing deleted."""
    folder.drop("a.jsonl", GOOD)
    ingest_ready(house, inbox)
    folder.drop("b.jsonl", GOOD)
    (again,) = ingest_ready(house, inbox)
    assert again.result == "duplicate"
    assert [row["edit"] for row in again.report["rows"]] == [1]
    assert len(house.ledger.edits()) == 1


def test_the_same_bytes_under_two_names_at_once_make_one_edit(
    house: House, inbox: Inbox, folder: ScriptedFolder
) -> None:
    """Twice in one scan, then renamed and with its lines in another order: one edit each, all input kept."""
    rows = [GOOD, GOOD.replace("France", "Spain")]
    for name in ("a.jsonl", "b.jsonl"):
        folder.drop(name, "".join(rows))
    folder.drop("c.jsonl", "".join(reversed(rows)), age_seconds=30)
    assert [done.result for done in ingest_ready(house, inbox)] == ["accepted", "duplicate", "accepted"]
    assert [(edit.id, edit.key.subject) for edit in house.ledger.edits()] == [(1, "France"), (2, "Spain")]
    day = next(house.layout.done.iterdir())
    assert {path.name for path in day.glob("?.jsonl")} == {"a.jsonl", "b.jsonl", "c.jsonl"}


@pytest.mark.parametrize("order", list(itertools.permutations([1, 2, 3])))
def test_files_in_any_order_end_the_same(
    house: House, inbox: Inbox, folder: ScriptedFolder, order: tuple[int, ...]
) -> None:
    """The highest version wins, whenever it came: late old files make no edit and undo nothing."""
    for at, version in enumerate(order):
        row = capital("France", f"City {version}", version=version)
        folder.drop(f"{at}.jsonl", json.dumps(row), age_seconds=10 - at)
    assert [done.result for done in ingest_ready(house, inbox)] == ["accepted"] * 3
    waiting = house.ledger.edits([EditState.PENDING])
    assert [edit.new for edit in waiting] == ["City 3"]
    assert len(house.ledger.edits()) == len([v for at, v in enumerate(order) if v > max((0, *order[:at]))])


def test_one_scan_finds_a_burst_and_a_missing_folder_holds_nothing(
    house: House, inbox: Inbox, folder: ScriptedFolder, clock: FakeClock
) -> None:
    """Events aren't needed: a single look sees all 8,000 files, and none while the inbox is gone."""
    names = [f"{number:04}.jsonl" for number in range(8000)]
    for name in names:
        (folder.path / name).touch()
        os.utime(folder.path / name, (0, 0))
    assert inbox.ready(clock()) == names
    shutil.rmtree(folder.path)
    assert ingest_ready(house, inbox) == []
    folder.path.mkdir()
    folder.drop("a.jsonl", GOOD)
    assert [done.result for done in ingest_ready(house, inbox)] == ["accepted"]


def test_the_same_name_again_overwrites_nothing(house: House, inbox: Inbox, folder: ScriptedFolder) -> None:
    """Two different files of one name both stay."""
    for object in ("Lyon", "Nice"):
        folder.drop("a.jsonl", GOOD.replace("Lyon", object))
        ingest_ready(house, inbox)
    names = {path.name for path in next(house.layout.done.iterdir()).iterdir()}
    assert {"a.jsonl", "a.2.jsonl", "a.jsonl.result.json", "a.2.jsonl.result.json"} == names


def test_input_named_like_a_report_is_kept(house: House, inbox: Inbox, folder: ScriptedFolder) -> None:
    """A file called `a.jsonl.result.json` isn't written over by the report of `a.jsonl`."""
    for ending in ("result", "error"):
        folder.drop(f"a.jsonl.{ending}.json", f"[{GOOD}]" if ending == "result" else "[]")
    ingest_ready(house, inbox)
    folder.drop("a.jsonl", GOOD.replace("Lyon", "Nice"))
    ingest_ready(house, inbox)
    folder.drop("a.jsonl", "nonsense")
    ingest_ready(house, inbox)
    done = next(house.layout.done.iterdir())
    assert (done / "a.jsonl.result.input.json").read_text() == f"[{GOOD}]"
    assert json.loads((done / "a.jsonl.result.json").read_text())["file"] == "a.jsonl"
    assert (house.layout.failed / "a.jsonl.error.input.json").read_text() == "[]"
    assert refused(house, "a.jsonl")["file"] == "a.jsonl"


def test_a_snapshot_keeps_its_source_under_a_second_name(
    house: House, inbox: Inbox, folder: ScriptedFolder
) -> None:
    """Two files of one name are one source's, also when the second is found claimed after a crash."""
    (house.layout.processing / "atlas.snapshot.jsonl").write_text(GOOD)
    folder.drop("atlas.snapshot.jsonl", GOOD.replace("Lyon", "Nice"))
    (claim,) = inbox.claims(FakeClock()(), lambda name, error: None)
    assert claim.path.name == "atlas.snapshot.2.jsonl"
    assert {done.result for done in ingest_resumed(house, inbox)} == {"accepted"}
    assert {fact.source for fact in house.ledger.facts().values()} == {"atlas"}


def test_a_file_that_grows_while_it_is_read_is_refused(
    house: House, inbox: Inbox, folder: ScriptedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a file is never taken for a whole one: what its writer added later would be lost."""
    folder.drop("slow.jsonl", GOOD)
    fstat = os.fstat

    def and_then_more(handle: int) -> os.stat_result:
        found = fstat(handle)
        with (house.layout.processing / "slow.jsonl").open("a") as file:
            file.write(GOOD)
        return found

    monkeypatch.setattr("daemon.inbox.os.fstat", and_then_more)
    (done,) = ingest_ready(house, inbox)
    monkeypatch.undo()
    assert done.result == "failed"
    assert refused(house, "slow.jsonl")["code"] == "changing"


def test_a_fault_of_ours_makes_no_poison_file(
    house: House, inbox: Inbox, folder: ScriptedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the parser raises, the file ends in failed/ and the next one is taken."""

    def broken(data: bytes, name: str, **limits: int) -> Any:
        if name == "a.jsonl":
            raise TypeError(name)
        return parse(data, name, **limits)

    monkeypatch.setattr("daemon.ingest.parse", broken)
    folder.drop("a.jsonl", GOOD, age_seconds=90)
    folder.drop("b.jsonl", GOOD)
    assert [done.result for done in ingest_ready(house, inbox)] == ["failed", "accepted"]
    assert refused(house, "a.jsonl")["code"] == "internal"


def test_names_of_any_bytes_and_lengths_are_finished(
    house: House, inbox: Inbox, folder: ScriptedFolder
) -> None:
    """File systems allow names that aren't text or leave no room for a report's ending."""
    os.rename(folder.drop("plain", GOOD), os.fsencode(folder.path) + b"/\xff\xfe\n.jsonl")
    folder.drop("x" * 245 + ".jsonl", GOOD.replace("Lyon", "Nice"))
    results = ingest_ready(house, inbox)
    assert [done.result for done in results] == ["accepted", "accepted"]
    assert list(folder.path.iterdir()) == []
    assert list(house.layout.processing.iterdir()) == []


def test_one_bad_row_refuses_the_whole_file(house: House, take: Take) -> None:
    """All or nothing by default."""
    done = take(capital("France", "Lyon"), {"subject": "Spain"})
    assert done.result == "failed"
    assert house.ledger.edits() == []


def test_what_a_dead_process_had_claimed_is_finished(house: House, inbox: Inbox, take: Take) -> None:
    """A crash before or after the ledger's transaction leads to the same end."""
    before = house.layout.processing / "before.jsonl"
    before.write_text(GOOD)
    assert [done.result for done in ingest_resumed(house, inbox)] == ["accepted"]
    after = house.layout.processing / "before.jsonl"
    after.write_text(GOOD)
    (again,) = ingest_resumed(house, inbox)
    assert again.result == "accepted"
    assert [row["edit"] for row in again.report["rows"]] == [1]
    assert len(house.ledger.edits()) == 1


def test_a_file_that_cannot_be_moved_stops_nobody(
    house: House, inbox: Inbox, folder: ScriptedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim whose way is barred stays claimed for the next scan; the next file goes on."""
    folder.drop("a.jsonl", GOOD, age_seconds=20)
    folder.drop("b.jsonl", GOOD.replace("Lyon", "Nice"))
    accept = Inbox.accept

    def broken(self: Inbox, claim: Any, result: Any, now: Any) -> Path:
        if claim.name == "a.jsonl":
            raise OSError(errno.EACCES, "Permission denied")
        return accept(self, claim, result, now)

    monkeypatch.setattr(Inbox, "accept", broken)
    done: list[Ingested] = ingest_ready(house, inbox)
    assert [each.name for each in done] == ["b.jsonl"]
    assert [path.name for path in house.layout.processing.iterdir()] == ["a.jsonl"]
    monkeypatch.undo()
    assert [each.result for each in ingest_resumed(house, inbox)] == ["accepted"]


def test_stopping_leaves_the_rest_in_the_inbox(house: House, inbox: Inbox, folder: ScriptedFolder) -> None:
    """Thousands of files don't delay the end: what wasn't begun stays where it is."""
    for number in range(3):
        folder.drop(f"{number}.jsonl", GOOD.replace("Lyon", f"City{number}"))
    asked = iter([False, True])
    assert [done.name for done in ingest_ready(house, inbox, lambda: next(asked))] == ["0.jsonl"]
    assert {path.name for path in folder.path.iterdir()} == {"1.jsonl", "2.jsonl"}


def test_the_command_line_refuses_before_it_drops(house: House, tmp_path: Path) -> None:
    """`submit` and `plan` name the same place as the daemon would."""
    path = tmp_path / "bad.jsonl"
    path.write_text('{"subject": "a", "relation": "b", "objct": "c"}')
    with pytest.raises(FactFileError, match=re.compile("objct")) as caught:
        read_file(house.config, path)
    assert caught.value.line == 1
