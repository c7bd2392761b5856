"""Writes every golden file anew: `python -m tests.corpus`."""

import tempfile
from pathlib import Path

from tests.corpus import CASES, GOLDEN, as_text, judge


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for old in GOLDEN.iterdir():
        old.unlink()
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            name, value = judge(case, Path(folder))
        (GOLDEN / name).write_text(as_text(value), encoding="ascii")
    print(f"{len(CASES)} golden files in {GOLDEN}")


if __name__ == "__main__":
    main()
