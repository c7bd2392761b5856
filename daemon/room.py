"""Room on the disk: whether it ran out, whether there is some again, and whether a generation fits.

Knows how room is tried: by taking some, as quotas and inodes run out before the bytes that a file system
reports. Doesn't know what was being written when it ran out.
"""

import os
from contextlib import suppress
from pathlib import Path

from store.errors import GenerationError
from store.generations import ModelStore
from store.trouble import Trouble, trouble_of

LEAST, MOST = 1 << 20, 1 << 30  # bytes that are tried


class Room:
    """One state directory's. `ran_out`: a write found none, and none was found since."""

    def __init__(self, folder: Path, models: ModelStore) -> None:
        self._probe = folder / ".room.tmp"
        self._models = models
        self.ran_out = False

    @property
    def lacking(self) -> bool:
        """Whether edits wait for room."""
        return self.ran_out or not self._models.has_room()

    def look(self) -> bool:
        """Try whether there is room for a generation. Less wouldn't do: the next edit would find out
        after minutes of work. Raises OSError for any trouble but a full disk."""
        if not self._models.has_room():
            return False
        try:
            with self._probe.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, min(max(self._models.disk_needed(), LEAST), MOST))
            self.ran_out = False
        except OSError as error:
            if trouble_of(error) is not Trouble.FULL:
                raise
            self.ran_out = True
        finally:
            with suppress(FileNotFoundError):
                self._probe.unlink()
        return not self.ran_out

    def require(self, operation: str) -> None:
        """Raises GenerationError unless a generation can be built."""
        if not self._models.has_room():
            wanted = self._models.disk_needed() / 1e9
            raise GenerationError(
                operation,
                str(self._models.root),
                f"the disk has no room for two more models ({wanted:.2f} GB)",
                "make room, or let `palimpsest gc` do it",
            )
