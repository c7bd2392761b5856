"""Errors for operators: what was being done, to what, why it failed, and what to do next.

Knows the exit codes of the command line. Doesn't know who prints an error or where.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_PLAN_HAS_CHANGES = 2
EXIT_USAGE = 64
EXIT_DATA = 65
EXIT_UNREACHABLE = 69
EXIT_LOCKED = 75
EXIT_CONFIG = 78
EXIT_INTERRUPTED = 130

EXIT_CODES: Mapping[int, str] = {
    EXIT_OK: "done",
    EXIT_FAILED: "failed; the message says what, why and what to do",
    EXIT_PLAN_HAS_CHANGES: "`plan`, `diff` or `--dry-run`: there are changes",
    EXIT_USAGE: "the command makes no sense",
    EXIT_DATA: "a fact file is bad",
    EXIT_UNREACHABLE: "something outside didn't answer",
    EXIT_LOCKED: "another process holds the state directory",
    EXIT_CONFIG: "the configuration is bad",
    EXIT_INTERRUPTED: "interrupted (Ctrl-C)",
}


@dataclass(slots=True)
class PalimpsestError(Exception):
    """Base of every error that an operator is meant to read.

    `operation` is what was being done ("parse fact file"), `subject` what it was done to (a path,
    an edit, a generation), `cause` why it failed, `hint` what to do about it.
    """

    operation: str
    subject: str
    cause: str
    hint: str = ""
    exit_code: ClassVar[int] = EXIT_FAILED

    def __str__(self) -> str:
        text = f"{self.operation}: {self.subject}: {self.cause}"
        return f"{text} ({self.hint})" if self.hint else text

    def as_dict(self) -> dict[str, str | int]:
        return asdict(self)


@dataclass(slots=True)
class FactFileError(PalimpsestError):
    """A fact file, or one row of it, can't be accepted; `line` and `column` count from 1."""

    code: str = "invalid"
    line: int = 1
    column: int = 1
    excerpt: str = ""
    exit_code: ClassVar[int] = EXIT_DATA


class ConfigError(PalimpsestError):
    """The configuration can't be used; `cause` lists every fault found."""

    exit_code: ClassVar[int] = EXIT_CONFIG


class LedgerError(PalimpsestError):
    """The ledger can't be read, written or migrated."""


class LockedError(PalimpsestError):
    """Another process holds the state directory."""

    exit_code: ClassVar[int] = EXIT_LOCKED


class GenerationError(PalimpsestError):
    """A generation on disk is missing, incomplete or doesn't match its manifest."""


class UsageError(PalimpsestError):
    """A command was asked for something that makes no sense here."""

    exit_code: ClassVar[int] = EXIT_USAGE


class UnreachableError(PalimpsestError):
    """Something outside this process (daemon, package index) didn't answer."""

    exit_code: ClassVar[int] = EXIT_UNREACHABLE
