"""Which rows of a file its sources may state: those that they may not become errors of the file.

Knows the configuration's rules (`policies.sources`) and parsed rows. Doesn't know the ledger; what
waits for approval or for its source's rate is admitted (`daemon.waits`).
"""

from dataclasses import replace

from daemon.config import Config
from policies.sources import Owner, Policies, denied, lowered, policies_from, unlisted
from store.errors import FactFileError
from store.factfile import ParsedFile
from store.facts import DiffRow, FactUpdate, RowClass


def admit(config: Config, parsed: ParsedFile, owner: Owner) -> ParsedFile:
    """The file with every row that `owner` may not state among its errors, the others with a priority that
    their source may have."""
    policies = policies_from(config.sources)
    reasons = [denied(policies, update, owner) for update in parsed.updates]
    kept = tuple(
        lowered(policies, update)
        for update, reason in zip(parsed.updates, reasons, strict=True)
        if not reason
    )
    refused = [
        _error(parsed.name, update, reason, policies)
        for update, reason in zip(parsed.updates, reasons, strict=True)
        if reason
    ]
    errors = sorted([*parsed.errors, *refused], key=lambda error: (error.line, error.column))
    return replace(parsed, updates=kept, errors=tuple(errors))


def admit_gone(config: Config, rows: list[DiffRow]) -> list[DiffRow]:
    """Rows that a snapshot retracts by leaving them out must be on its source's lists too."""
    policies = policies_from(config.sources)
    return [
        replace(row, row_class=RowClass.INVALID, reason=reason)
        if row.update.line == 0 and (reason := unlisted(policies, row.update.source, row.update.key))
        else row
        for row in rows
    ]


def _error(name: str, update: FactUpdate, reason: str, policies: Policies) -> FactFileError:
    hint = f"see [sources.{policies.of(update.source).name}] in the configuration"
    cause = f"line {update.line}, column 1: {reason}"
    return FactFileError("take fact file", name, cause, hint, code="denied", line=update.line)
