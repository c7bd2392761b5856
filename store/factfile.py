"""Fact files: bytes in, checked updates and row errors out.

Knows the formats and which faults end a file and which a row. Doesn't know folders, the ledger or
the clock. Errors count lines and columns (in characters) from 1.
"""

from dataclasses import dataclass

from store.errors import FactFileError
from store.facts import FactUpdate

MAX_BYTES = 64 * 1024 * 1024
MAX_ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """A file that could be read. `errors` are the refused rows; `source` is the snapshot's source
    (empty for other files): the one that its rows name, else NAME of NAME.snapshot.csv."""

    name: str
    format: str  # jsonl | json | csv | yaml
    snapshot: bool
    updates: tuple[FactUpdate, ...]
    errors: tuple[FactFileError, ...]
    source: str = ""


def is_fact_file(name: str) -> bool:
    """Whether the name says a known format."""
    raise NotImplementedError


def parse(data: bytes, name: str, *, max_rows: int = MAX_ROWS, max_bytes: int = MAX_BYTES) -> ParsedFile:
    """Parse a file by the ending of its name (.jsonl .ndjson .json .csv .yaml .yml, and
    NAME.snapshot.csv|jsonl). Raises `FactFileError` when the file as a whole can't be used; a row
    that can't be used is in `errors`."""
    raise NotImplementedError
