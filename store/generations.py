"""Generations on disk: complete directories that appear by one rename and are served by one symlink.

Knows the layout `base/ gen/000042/ current previous .staging/ quarantine/`, manifests and fsync.
Doesn't know the ledger, what is in the weights, or which generation should be served.
An fsync that fails raises `OSError` and is fatal: the caller must not go on.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"


def weights_sha256(directory: Path) -> str:
    """SHA-256 over the sorted `NAME SHA256` lines of the top level's `*.safetensors` files."""
    raise NotImplementedError


class ModelStore:
    """One model's directory. Raises `GenerationError`. Generation 0 is `base/`."""

    def __init__(self, root: Path) -> None:
        """`root` is `models/NAME`; nothing is created until it is needed."""
        self.root = root
        self.base_dir = root / "base"

    def gen_dir(self, number: int) -> Path:
        """Where a generation lies (or would lie)."""
        raise NotImplementedError

    @contextmanager
    def staging(self, token: str) -> Iterator[Path]:
        """An empty directory for a generation to be; gone at the end unless committed."""
        yield self.root
        raise NotImplementedError

    def seal_base(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Write the manifest of `base/` after it was filled; returns it."""
        raise NotImplementedError

    def commit(self, token_dir: Path, number: int, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Turn a staged directory into `gen/NUMBER`: hash files, write the manifest last, fsync
        all, rename. Returns the manifest: `fields` and number, weights_sha256, files {name:
        {sha256, size}}. Files hard-linked from `base/` aren't read again."""
        raise NotImplementedError

    def promote(self, number: int) -> None:
        """Point `current` at a committed generation, atomically; `previous` at what it was."""
        raise NotImplementedError

    def current(self) -> Path:
        """The resolved directory that is served. Raises when nothing is."""
        raise NotImplementedError

    def current_number(self) -> int:
        raise NotImplementedError

    def previous_number(self) -> int | None:
        raise NotImplementedError

    def manifest(self, number: int) -> dict[str, Any]:
        raise NotImplementedError

    def verify(self, number: int) -> list[str]:
        """What differs between a directory and its manifest; reads every byte."""
        raise NotImplementedError

    def numbers(self) -> list[int]:
        """Committed generations, ascending, 0 first when the base is sealed."""
        raise NotImplementedError

    def quarantine(self, number: int, reason: str) -> Path:
        """Move a generation aside; refuses the served one. Returns where it went."""
        raise NotImplementedError

    def delete(self, number: int) -> None:
        """Remove a generation; refuses the base and the served one."""
        raise NotImplementedError

    def sweep_staging(self) -> list[str]:
        """Remove what crashed builds left; returns the names."""
        raise NotImplementedError

    def model_bytes(self) -> int:
        """Size of the base in bytes."""
        raise NotImplementedError

    def disk_needed(self) -> int:
        """Free bytes wanted before a build: two models."""
        raise NotImplementedError

    def has_room(self, needed: int | None = None) -> bool:
        """Whether the file system has `needed` (default `disk_needed()`) bytes free."""
        raise NotImplementedError
