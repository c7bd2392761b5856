"""Where everything of one state directory lives.

Knows paths. Doesn't know what is inside them.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything of one state directory lives."""

    state: Path
    model_name: str

    @property
    def inbox(self) -> Path:
        return self.state / "inbox"

    @property
    def processing(self) -> Path:
        return self.state / "processing"

    @property
    def done(self) -> Path:
        return self.state / "done"

    @property
    def failed(self) -> Path:
        return self.state / "failed"

    @property
    def ledger(self) -> Path:
        return self.state / "ledger.sqlite"

    @property
    def blobs(self) -> Path:
        return self.state / "blobs"

    @property
    def model(self) -> Path:
        return self.state / "models" / self.model_name

    @property
    def base(self) -> Path:
        return self.model / "base"

    @property
    def backups(self) -> Path:
        return self.state / "backups"

    @property
    def cache(self) -> Path:
        return self.state / "cache" / self.model_name

    @property
    def relations(self) -> Path:
        return self.state / "relations"

    @property
    def run(self) -> Path:
        return self.state / "run"

    @property
    def alive(self) -> Path:
        """Touched while the daemon is well."""
        return self.run / "alive"

    def folders(self) -> tuple[Path, ...]:
        return (
            self.inbox,
            self.processing,
            self.done,
            self.failed,
            self.blobs,
            self.model,
            self.backups,
            self.cache,
            self.relations,
            self.run,
        )

    def create(self) -> None:
        """Make every folder that is missing, readable by the owner's group at most."""
        for folder in self.folders():
            folder.mkdir(parents=True, exist_ok=True, mode=0o750)
