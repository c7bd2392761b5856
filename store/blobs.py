"""Content-addressed bytes: written once, named by their SHA-256, checked on every read.

Knows files and fsync. Doesn't know what the bytes mean or who refers to them.
"""

from pathlib import Path


class BlobStore:
    """Blobs below `root/ab/abcdef...`. Raises `BlobError`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, sha256: str) -> Path:
        """Where a blob lies (or would lie)."""
        raise NotImplementedError

    def has(self, sha256: str) -> bool:
        raise NotImplementedError

    def put(self, data: bytes) -> str:
        """Store bytes, on disk when this returns; returns their SHA-256. Putting twice is free."""
        raise NotImplementedError

    def get(self, sha256: str) -> bytes:
        """The bytes, verified; a missing or damaged blob raises `BlobError`."""
        raise NotImplementedError

    def gc(self, keep: set[str]) -> list[str]:
        """Remove every blob not in `keep`; returns what was removed."""
        raise NotImplementedError
