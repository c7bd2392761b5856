"""Commands that look back, or ahead without doing anything: diff, materialize, report, --dry-run."""

import hashlib
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from daemon import rollback
from daemon.house import House
from store.errors import (
    EXIT_OK,
    EXIT_PLAN_HAS_CHANGES,
    EXIT_USAGE,
)
from tests.daemon.conftest import Cli, Take, capital

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.usefixtures("two_live")
def test_diff_shows_the_answers_that_two_generations_give_differently(palimpsest: Cli) -> None:
    """Generation 1 knows France's edit, generation 2 Spain's too: one of two facts differs."""
    status, found = palimpsest.json("diff", "1", "2")
    assert (status, found["asked"]) == (EXIT_PLAN_HAS_CHANGES, 2)
    (row,) = found["different"]
    assert (row["about"], row["one"], row["other"]) == ("fact", "Madrid", "Seville")
    assert "Spain" in row["prompt"]
    assert palimpsest("diff", "2", "2") == (EXIT_OK, "0 of 2 answers differ\n")
    assert palimpsest("diff", "1", "9")[0] == 1


@pytest.mark.usefixtures("two_live")
def test_materialize_writes_a_past_model_that_shares_no_file(palimpsest: Cli, house: House) -> None:
    """The files are those of the generation, and writing into them can't harm the base; a directory that is
    there already is left alone."""
    out = house.layout.state / "export"
    status, found = palimpsest.json("materialize", "--generation", "1", "--out", str(out))
    assert (status, found["weights_sha256"]) == (EXIT_OK, house.ledger.generation(1).weights_sha256)
    served = house.models.gen_dir(1)
    for path in out.iterdir():
        assert path.read_bytes() == (served / path.name).read_bytes()
        assert path.stat().st_nlink == 1
    assert palimpsest("materialize", "--generation", "1", "--out", str(out))[0] == EXIT_USAGE
    assert palimpsest("materialize", "--as-of", "2020-01-01", "--out", str(out / "x"))[0] == EXIT_USAGE


@pytest.mark.usefixtures("two_live")
def test_a_dry_run_changes_no_byte(palimpsest: Cli, house: House, tmp_path: Path) -> None:
    """submit, rollback and gc say what they would do; names, bytes and links of the state directory stay."""
    house.blobs.put(b"nobody refers to this")
    facts = tmp_path / "facts.jsonl"
    facts.write_text('{"subject": "Italy", "relation": "capital", "object": "Turin"}\n', "utf-8")
    before = contents(house.layout.state)
    for argv, says in (
        (["submit", "--dry-run", str(facts)], "Italy"),
        (["plan", str(facts)], "Italy"),
        (["rollback", "--dry-run", "--to", "0"], "would serve generation 0"),
        (["rollback", "--dry-run", "--edit", "1"], "a new generation"),
        (["rollback", "--dry-run", "--fact", "Spain", "capital"], "would serve generation 1"),
        (["gc", "--dry-run"], "1 blobs would go"),
    ):
        status, text = palimpsest(*argv)
        assert status == EXIT_PLAN_HAS_CHANGES
        assert says in text
        assert contents(house.layout.state) == before


def contents(folder: Path) -> dict[str, str]:
    """Every name below a folder with its bytes' digest or its link's target. SQLite's shared memory isn't
    data: readers note in it that they read."""
    return {
        str(path.relative_to(folder)): str(path.readlink())
        if path.is_symlink()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if (path.is_symlink() or path.is_file()) and not path.name.endswith("-shm")
    }


@pytest.mark.usefixtures("two_live")
def test_report_is_one_page_that_loads_nothing(
    palimpsest: Cli, house: House, take: Take, tmp_path: Path
) -> None:
    """Facts, edits, readings and rollbacks are in it, text from outside is escaped, and no script, link or
    address is."""
    take(capital("<script>alert(1)</script>", "A & B"))
    rollback.to_generation(house, 1)
    out = tmp_path / "report.html"
    assert palimpsest("report", "--out", str(out))[0] == EXIT_OK
    page = out.read_text("utf-8")
    for text in (
        "Lyon",
        "Seville",
        "rolled back to generation 1",
        "efficacy of generation 2: 1",
        "A &amp; B",
    ):
        assert text in page
    assert not re.search(r"<script|<link|<img|https?:|@import|url\(", page)
    opened, closed = (Counter(re.findall(rf"<{end}(table|tr|td|svg|dl|div|p)\b", page)) for end in ("", "/"))
    assert opened == closed


@pytest.mark.slow
@pytest.mark.usefixtures("two_live")
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium isn't installed")
def test_a_browser_lays_the_report_out(palimpsest: Cli, tmp_path: Path) -> None:
    """Headless Chromium renders both charts and all three tables, and reports no error."""
    out = tmp_path / "report.html"
    palimpsest("report", "--out", str(out))
    browser = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}/profile",
    ]
    done = subprocess.run(
        [*browser, "--dump-dom", out.as_uri()], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.count("<svg") == 2
    assert done.stdout.count("<table") == 2, "facts and edits; nothing was rolled back"
    assert "None." in done.stdout
