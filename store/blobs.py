"""Content-addressed bytes: written once, named by their SHA-256, checked on every read.

Knows files and fsync. Doesn't know what the bytes mean or who refers to them.
"""

import hashlib
import re
from pathlib import Path

from store.disk import make_dirs, write_atomic
from store.errors import PalimpsestError
from store.failpoints import reach

_NAME = re.compile(r"[0-9a-f]{64}")


class BlobError(PalimpsestError):
    """A blob is missing or damaged."""


class BlobStore:
    """Blobs below `root/ab/abcdef...`. Raises `BlobError`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, sha256: str) -> Path:
        """Where a blob lies (or would lie)."""
        if not _NAME.fullmatch(sha256):
            raise BlobError("find blob", sha256[:80], "that isn't a SHA-256 in lower-case hex")
        return self.root / sha256[:2] / sha256

    def has(self, sha256: str) -> bool:
        return self.path(sha256).is_file()

    def put(self, data: bytes) -> str:
        """Store bytes, on disk when this returns; returns their SHA-256. Putting twice is free, and
        mends a damaged blob."""
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.path(sha256)
        if not (path.is_file() and path.read_bytes() == data):
            make_dirs(path.parent)
            write_atomic(path, data)
        return sha256

    def get(self, sha256: str) -> bytes:
        """The bytes, verified; a missing or damaged blob raises `BlobError`."""
        try:
            data = self.path(sha256).read_bytes()
        except FileNotFoundError as error:
            raise BlobError("read blob", sha256, "it is missing", "restore it from a backup") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise BlobError("read blob", sha256, "its bytes have changed", "restore it from a backup")
        return data

    def unreferenced(self, keep: set[str]) -> list[Path]:
        """Every blob not in `keep`, and what cut-off writes left."""
        return [p for p in sorted(self.root.glob("*/*")) if p.name not in keep and p.is_file()]

    def verified(self, sha256: str) -> Path:
        """Where a blob lies, its bytes checked just now, for one that reads the file itself."""
        self.get(sha256)
        return self.path(sha256)

    def gc(self, keep: set[str]) -> list[str]:
        """Remove what is `unreferenced`; returns the file names."""
        removed = self.unreferenced(keep)
        for path in removed:
            path.unlink()
            reach("gc.blob")
        return [path.name for path in removed]
