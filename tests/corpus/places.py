"""What Git can't hold: names of any bytes, links, pipes, holes, and files over the cap of these tests."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

GOOD = b'{"subject": "Peru", "relation": "capital", "object": "Lima"}\n'
OTHER = GOOD.replace(b"Peru", b"Chile")  # never accepted: the same bytes again would be a duplicate
BAD = b'{"subject": "Peru", "relation": "capital"}\n'
_CAP = 1024 * 1024


def _file(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def _sparse(size: int) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        path.touch()
        os.truncate(path, size)

    return make


def _hard_link(path: Path) -> None:
    """`ln x inbox/ && rm x` is a good way to drop a file, so a second name is no fault."""
    other = path.with_name(".other")
    other.write_bytes(GOOD)
    os.link(other, path)


def _socket(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)  # the path itself may be too long for a socket
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def _directory(path: Path) -> None:
    path.mkdir()
    (path / "facts.jsonl").write_bytes(GOOD)


PLACES: dict[str, tuple[bytes, Callable[[Path], object]]] = {
    "pipe": (b"pipe.jsonl", os.mkfifo),
    "socket": (b"socket.jsonl", _socket),
    "directory": (b"directory.jsonl", _directory),
    "symlink": (b"symlink.jsonl", lambda path: path.symlink_to("/etc/hostname")),
    "symlink-dangling": (b"dangling.jsonl", lambda path: path.symlink_to("nowhere")),
    "symlink-to-itself": (b"loop.jsonl", lambda path: path.symlink_to(path.name)),
    "symlink-to-directory": (b"etc.jsonl", lambda path: path.symlink_to("/etc")),
    "hard-link": (b"hard-link.jsonl", _hard_link),
    "sparse-2-gib": (b"sparse.jsonl", _sparse(2 * 1024**3)),
    "sparse-under-the-cap": (b"holes.jsonl", _sparse(_CAP)),
    "one-byte-over-the-cap": (b"over.jsonl", _file(GOOD + b" " * (_CAP + 1 - len(GOOD)))),
    "exactly-the-cap": (b"cap.jsonl", _file(GOOD + b" " * (_CAP - len(GOOD)))),
    "name-of-255-bytes": (b"n" * 249 + b".jsonl", _file(GOOD)),
    "name-of-255-bytes-refused": (b"m" * 249 + b".jsonl", _file(BAD)),
    "name-of-84-han": ("漢".encode() * 83 + b".jsonl", _file(BAD)),
    "name-not-utf-8": (b"K\xf6ln.jsonl", _file(GOOD)),
    "name-not-utf-8-refused": (b"K\xf6ln-2.jsonl", _file(BAD)),
    "name-not-utf-8-snapshot": (b"K\xf6ln.snapshot.jsonl", _file(GOOD)),
    "name-with-line-break": (b"a\nb.jsonl", _file(BAD)),
    "name-with-escape-codes": (b"\x1b[31ma.jsonl", _file(BAD)),
    "name-right-to-left": ("a\u202elnosj.jsonl".encode(), _file(BAD)),
    "name-with-dots": (b"a...jsonl", _file(GOOD)),
    "name-like-a-path": (b"x\\..\\..\\etc\\passwd.jsonl", _file(BAD)),
    "name-like-an-option": (b"--help.jsonl", _file(GOOD)),
    "name-with-shell": (b"$(touch x);`id`.jsonl", _file(BAD)),
    "name-in-capitals": (b"FACTS.JSONL", _file(GOOD)),
    "name-without-ending": (b"facts", _file(OTHER)),
    "name-of-ending": (b"jsonl", _file(OTHER)),
    "name-double-ending": (b"facts.jsonl.txt", _file(OTHER)),
    "name-compressed": (b"facts.jsonl.gz", _file(b"\x1f\x8b\x08\x00")),
    "snapshot-nfd-name": ("Ko\u0308ln.snapshot.jsonl".encode(), _file(GOOD)),  # as macOS names files
    "snapshot-blank-name": (b" .snapshot.jsonl", _file(OTHER)),
    "snapshot-invisible-name": ("at\u200blas.snapshot.jsonl".encode(), _file(OTHER)),
    "snapshot-mixed-name": ("P\u0430ris.snapshot.jsonl".encode(), _file(OTHER)),
    "snapshot-long-name": (b"s" * 170 + b".snapshot.jsonl", _file(OTHER)),
    "name-of-a-report": (b"facts.jsonl.error.json", _file(b"[" + GOOD + b"]")),
    "name-spreadsheet": (b"facts.xlsx", _file(b"PK\x03\x04")),
}
