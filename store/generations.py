"""Generations on disk: complete directories that appear by one rename and are served by one symlink.

Knows the layout `base/ gen/000042/ current previous .staging/ quarantine/` and what may be moved or
removed. Doesn't know the ledger, what is in the weights, or which generation should be served.
An fsync that fails raises `OSError` and is fatal: the caller must not go on.

    staging -> files -> commit: hash, manifest last, fsync all, rename -> promote: swap the symlink

A crash before the rename leaves only `.staging/`; after it, a whole generation that isn't served.
"""

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from store.disk import fsync_dir, make_dirs, write_atomic
from store.errors import GenerationError
from store.failpoints import reach
from store.manifest import MANIFEST, differences, read_manifest, seal, weights_sha256

__all__ = ["MANIFEST", "ModelStore", "weights_sha256"]

_NUMBER = re.compile(r"\d{6,}")


class ModelStore:
    """One model's directory. Raises `GenerationError`. Generation 0 is `base/`."""

    def __init__(self, root: Path) -> None:
        """`root` is `models/NAME`; nothing is created until it is needed."""
        self.root = root
        self.base_dir = root / "base"
        self._generations = root / "gen"
        self._staging = root / ".staging"
        self._quarantine = root / "quarantine"

    def gen_dir(self, number: int) -> Path:
        """Where a generation lies (or would lie)."""
        if number < 0:
            raise _error("find generation", number, "numbers count from 0")
        return self._generations / f"{number:06d}" if number else self.base_dir

    @contextmanager
    def staging(self, token: str) -> Iterator[Path]:
        """An empty directory for a generation to be; gone at the end unless committed."""
        if not re.fullmatch(r"[A-Za-z0-9_-]+", token):
            raise GenerationError("stage generation", token[:80], "a token has letters, digits, - and _ only")
        directory = self._staging / token
        make_dirs(self._staging)
        directory.mkdir()
        try:
            reach("stage.made")
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def seal_base(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Write the manifest of `base/` after it was filled; returns it."""
        manifest = seal(self.base_dir, {**fields, "number": 0})
        fsync_dir(self.root)
        return manifest

    def commit(self, token_dir: Path, number: int, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Turn a staged directory into `gen/NUMBER`: hash files, write the manifest last, fsync
        all, rename. Returns the manifest: `fields` and number, weights_sha256, files {name:
        {sha256, size}}. Files hard-linked from `base/` aren't read again."""
        target = self.gen_dir(number)
        if target.exists():
            raise _error("commit generation", number, "its directory exists", "take a new number")
        manifest = seal(token_dir, {**fields, "number": number}, like=self.base_dir)
        make_dirs(self._generations)
        reach("stage.sealed")
        token_dir.rename(target)
        reach("stage.renamed")
        fsync_dir(self._generations)
        fsync_dir(self._staging)
        return manifest

    def promote(self, number: int) -> None:
        """Point `current` at a committed generation, atomically; `previous` at what it was. Nothing
        happens when it is served already."""
        self.manifest(number)
        served = self._linked("current")
        if served == number:
            return
        if served is not None:
            self._link("previous", served)
            reach("promote.previous")
        self._link("current", number)

    def current(self) -> Path:
        """The resolved directory that is served. Raises when nothing is."""
        return self.gen_dir(self.current_number()).resolve()

    def current_number(self) -> int:
        """The number that `current` shows; raises when it shows nothing that is there."""
        number = self._linked("current")
        if number is None:
            hint = "run `palimpsest init` first"
            raise GenerationError("find served generation", str(self.root), "nothing is served", hint)
        if not self.gen_dir(number).is_dir():
            raise _error("find served generation", number, "its directory is missing", "restart the daemon")
        return number

    def previous_number(self) -> int | None:
        """What was served before, None when nothing was."""
        return self._linked("previous")

    def manifest(self, number: int) -> dict[str, Any]:
        """The manifest as it was written."""
        return read_manifest(self.gen_dir(number))

    def verify(self, number: int) -> list[str]:
        """What differs between a directory and its manifest; reads every byte."""
        return differences(self.gen_dir(number))

    def numbers(self) -> list[int]:
        """Committed generations, ascending, 0 first when the base is sealed."""
        names = [path.name for path in self._generations.glob("*") if _NUMBER.fullmatch(path.name)]
        base = [0] if (self.base_dir / MANIFEST).exists() else []
        return base + sorted(map(int, names))

    def quarantine(self, number: int, reason: str) -> Path:
        """Move a generation aside; refuses the base and the served one. Returns where it went."""
        directory = self._removable("quarantine generation", number)
        make_dirs(self._quarantine)
        target, copies = self._quarantine / directory.name, 1
        while target.exists():
            copies += 1
            target = self._quarantine / f"{directory.name}-{copies}"
        directory.rename(target)
        reach("quarantine.moved")
        write_atomic(target / "quarantined.txt", f"{reason}\n".encode())
        fsync_dir(self._quarantine)
        fsync_dir(self._generations)
        return target

    def delete(self, number: int) -> None:
        """Remove a generation; refuses the base and the served one. It leaves `gen/` in one step,
        so that no half of it can be taken for a generation."""
        directory = self._removable("delete generation", number)
        make_dirs(self._staging)
        doomed = self._staging / f"deleted-{directory.name}"
        shutil.rmtree(doomed, ignore_errors=True)
        directory.rename(doomed)
        fsync_dir(self._generations)
        reach("gc.moved")
        shutil.rmtree(doomed)

    def sweep_staging(self) -> list[str]:
        """Remove what crashed builds left; returns the names."""
        left = sorted(self._staging.glob("*"))
        for path in left:
            shutil.rmtree(path)
        for path in self.root.glob(".link-*"):
            path.unlink()
        return [path.name for path in left]

    def model_bytes(self) -> int:
        """Size of the base in bytes."""
        return sum(path.stat().st_size for path in self.base_dir.rglob("*") if path.is_file())

    def disk_needed(self) -> int:
        """Free bytes wanted before a build: two models."""
        return 2 * self.model_bytes()

    def has_room(self, needed: int | None = None) -> bool:
        """Whether the file system has `needed` (default `disk_needed()`) bytes free."""
        wanted = self.disk_needed() if needed is None else needed
        return shutil.disk_usage(self.root).free >= wanted

    def _removable(self, operation: str, number: int) -> Path:
        if number == 0:
            raise _error(operation, number, "the base is never removed")
        if number == self._linked("current"):
            raise _error(operation, number, "it is served", "promote another one first")
        directory = self.gen_dir(number)
        if not directory.is_dir():
            raise _error(operation, number, "there is no such directory")
        return directory

    def _linked(self, name: str) -> int | None:
        """The number that a symlink of the layout names."""
        try:
            target = (self.root / name).readlink()
        except FileNotFoundError:
            return None
        if str(target) == "base":
            return 0
        if target.parent == Path("gen") and _NUMBER.fullmatch(target.name):
            return int(target.name)
        cause = f"{name} points at {target}, which isn't a generation"
        raise GenerationError("read symlink", str(self.root / name), cause, "promote a generation")

    def _link(self, name: str, number: int) -> None:
        temporary = self.root / f".link-{name}-{os.getpid()}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(self.gen_dir(number).relative_to(self.root))
        reach("link.made")
        temporary.replace(self.root / name)
        fsync_dir(self.root)


def _error(operation: str, number: int, cause: str, hint: str = "") -> GenerationError:
    return GenerationError(operation, f"generation {number}", cause, hint)
