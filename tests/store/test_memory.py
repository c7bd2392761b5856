"""Files at and far over the cap, each in a process of its own so that its memory can be read."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CAP = 64 * 1024 * 1024

MEASURE = """
import json, re, sys, time
from pathlib import Path
from daemon.config import Config, InboxSettings
from daemon.inbox import Claim, Inbox
from store.errors import FactFileError
from store.factfile import parse

path, cap = Path(sys.argv[1]), int(sys.argv[2])
began = time.process_time()
try:
    data, _ = Inbox(Config().layout, InboxSettings(max_file_bytes=cap)).read(Claim(path.name, path))
    parsed = parse(data, path.name, max_bytes=cap)
    end = f"{len(parsed.updates)} rows, {len(parsed.errors)} refused"
except FactFileError as error:
    end = error.code
seconds = time.process_time() - began
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
print(json.dumps({"end": end, "peak": peak, "seconds": seconds}))
"""

NOTE = b"n" * 120
EMOJI = '{"subject": "\U0001f600", "relation": "r", "object": "o"}\n'.encode()  # 4 bytes a character
PERU = b'{"subject": "Peru", "relation": "capital", "object": "Lima", "note": "' + NOTE + b'"}\n'
# Name, how the file begins, what is said until it is full, how it ends, and what comes of it. The first is
# what an export looks like; the others take the most memory or time for their size.
FULL = [
    ("rows.jsonl", EMOJI, PERU, b"", "347715 rows, 0 refused"),
    ("lists.jsonl", b"", b'{"aliases": [' + b"[]," * 1_300_000 + b"1]}\n", b"", "0 rows, 17 refused"),
    ("blank.jsonl", b"", b"\n", b"x", "0 rows, 1 refused"),
    ("objects.json", b'[{"aliases": [', b"{},", b"1]}]", "too_long"),
    ("commas.csv", b"subject,relation,object\n", b",", b"", "0 rows, 1 refused"),
    ("quotes.csv", b"subject,relation,object\n", b'"",', b"", "too_long"),
    ("values.yaml", b"", b"- [" + b"a," * 1_900 + b"]\n", b"", "too_large"),
]  # fmt: skip


def measured(path: Path, cap: int) -> dict[str, float | str]:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", MEASURE, str(path), str(cap)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    found: dict[str, float | str] = json.loads(done.stdout)
    print(found)  # for the record
    return found


@pytest.mark.parametrize(("name", "begin", "unit", "end", "outcome"), FULL, ids=[case[0] for case in FULL])
def test_a_file_at_the_cap_takes_ten_times_its_size_at_most(
    tmp_path: Path, name: str, begin: bytes, unit: bytes, end: bytes, outcome: str
) -> None:
    """64 MiB, whatever is in them, are read or refused within 640 MiB and a minute of processor time,
    half of what systemd's watchdog allows."""
    path = tmp_path / name
    with path.open("wb") as file:
        room = CAP - len(begin) - len(end)
        whole = unit * max(1, 1024 * 1024 // len(unit))
        file.write(begin)
        for _ in range(room // len(whole)):
            file.write(whole)
        file.write(unit * (room % len(whole) // len(unit)))
        file.write(end)
    found = measured(path, CAP)
    assert found["end"] == outcome
    assert float(found["peak"]) < 10 * CAP
    assert float(found["seconds"]) < 60


def test_a_sparse_file_of_2_gib_is_refused_unread(tmp_path: Path) -> None:
    """A file over the cap costs no memory: not a byte of it is read."""
    path = tmp_path / "huge.jsonl"
    with path.open("wb") as file:
        file.truncate(2 * 1024**3)
    found = measured(path, CAP)
    assert found["end"] == "too_large"
    assert float(found["peak"]) < 100e6
    assert float(found["seconds"]) < 1
