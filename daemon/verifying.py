"""Reading every byte of a state directory and naming what isn't as it was written.

Knows what is compared with what. Doesn't mend anything, and needs no lock: it reads beside a daemon.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from daemon.backups import every
from daemon.config import Config
from store.blobs import BlobStore
from store.disk import sha256_file
from store.errors import PalimpsestError
from store.generations import ModelStore
from store.ledger import Ledger
from store.manifest import differences

OnStage = Callable[[str], None]
Check = tuple[str, Callable[[], Iterator["Fault"]]]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that isn't as it was written, and what to do."""

    where: str
    cause: str
    hint: str


def verify(config: Config, on_stage: OnStage = lambda _stage: None) -> list[Fault]:
    """Every fault, the most basic ones first: ledger, base, generations, links, blobs, files, backups."""
    with Ledger.open_readonly(config.layout.ledger) as ledger:
        checks = _checks(config, ledger)
        faults: list[Fault] = []
        for i, (name, check) in enumerate(checks):
            on_stage(f"{name}: {i}/{len(checks)}")
            faults += check()
    return faults


def _checks(config: Config, ledger: Ledger) -> list[Check]:
    models, blobs = ModelStore(config.layout.model), BlobStore(config.layout.blobs)
    checks: list[Check] = [("ledger", partial(_ledger, ledger))]
    checks += [(f"generation {n}", partial(_generation, models, ledger, n)) for n in models.numbers()]
    checks += [("links", partial(_links, models, ledger))]
    checks += [(f"blob {b[:12]}", partial(_blob, blobs, b)) for b in sorted(ledger.referenced_blobs())]
    checks += [("fact files", partial(_files, config.layout.done))]
    checks += [(f"backup {p.name}", partial(_backup, p)) for p in every(config.layout.backups)]
    return checks


def _ledger(ledger: Ledger) -> Iterator[Fault]:
    for cause in ledger.integrity():
        yield Fault("ledger", cause, "stop the daemon, then `palimpsest restore --replace BACKUP`")


def _generation(models: ModelStore, ledger: Ledger, number: int) -> Iterator[Fault]:
    where = "base" if number == 0 else f"generation {number}"
    if number == 0:
        hint = "stop the daemon, then `palimpsest restore --replace BACKUP`, which fetches the base again"
    else:
        hint = f"`palimpsest rollback --to {number}` writes it again; the live one: restart the daemon"
    try:
        causes = models.verify(number)
    except FileNotFoundError:
        if number in models.numbers():
            raise
        return  # a daemon tidied it away meanwhile
    for cause in causes:
        yield Fault(where, cause, hint)
    try:
        manifest, row = models.manifest(number), ledger.generation(number)
    except PalimpsestError as error:
        yield Fault(where, error.cause, hint)
        return
    if row.weights_sha256 and manifest.get("weights_sha256") != row.weights_sha256:
        yield Fault(where, "its manifest names other weights than the ledger", hint)


def _links(models: ModelStore, ledger: Ledger) -> Iterator[Fault]:
    live, hint = ledger.live_generation(), "restart the daemon: recovery sets it right"
    try:
        served = models.current_number()
        models.previous_number()
    except PalimpsestError as error:
        yield Fault("current", error.cause, hint)
        return
    if live is not None and served != live.number:
        yield Fault("current", f"it shows generation {served}, the ledger says {live.number}", hint)


def _blob(blobs: BlobStore, sha256: str) -> Iterator[Fault]:
    try:
        blobs.get(sha256)
    except PalimpsestError as error:
        yield Fault(
            f"blob {sha256[:12]}", error.cause, "stop the daemon, then copy it from a backup's blobs/"
        )


def _files(done: Path) -> Iterator[Fault]:
    """Accepted fact files still are what the daemon took in."""
    for report in sorted(done.glob("*/*.result.json")):
        path = report.with_name(report.name.removesuffix(".result.json"))
        try:
            wanted = json.loads(report.read_text("utf-8"))["sha256"]
            same = not path.exists() or sha256_file(path) == wanted  # who archives files may move them
        except (OSError, ValueError, KeyError, TypeError) as error:
            yield Fault(f"done/{report.parent.name}/{report.name}", f"it can't be read: {error}", "")
            continue
        if not same:
            hint = "the ledger holds what it said; take the file from your own source"
            yield Fault(f"done/{path.parent.name}/{path.name}", "its bytes have changed", hint)


def _backup(path: Path) -> Iterator[Fault]:
    for cause in differences(path):
        yield Fault(f"backup {path.name}", cause, "don't restore it; `palimpsest backup` makes another one")
