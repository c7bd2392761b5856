"""One JSON line per event on stderr, with fact text left out unless it was asked for.

Knows which keys hold fact text. Doesn't know what happened: callers name events in dotted form
("edit.live") and hand over plain values.
"""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import replace
from typing import Any, Protocol, TextIO, cast

import structlog

from daemon.config import LogSettings

REDACTED = "[redacted]"
# `reason` sentences of the diff and of the ledger quote objects; `judgement` sentences hold numbers only.
# `file` and `report` name fact files, which people call by what is in them; `sha256` tells them apart.
FACT_TEXT = frozenset({
    "subject", "object", "old", "new", "before", "after", "prompt", "answer", "excerpt", "reason", "fact",
    "file", "report",
})  # fmt: skip


class Log(Protocol):
    """What the daemon needs of a logger; structlog's filtering logger is one."""

    def debug(self, event: str, **values: Any) -> Any: ...
    def info(self, event: str, **values: Any) -> Any: ...
    def warning(self, event: str, **values: Any) -> Any: ...
    def error(self, event: str, **values: Any) -> Any: ...
    def exception(self, event: str, **values: Any) -> Any: ...


def make_log(settings: LogSettings, stream: TextIO | None = None) -> Log:
    """A logger that writes to `stream` (stderr when None); no global state is touched."""
    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.dict_tracebacks,
    ]
    if not settings.fact_text:
        processors.append(_redact)
    processors.append(structlog.processors.JSONRenderer())
    return cast(
        Log,
        structlog.wrap_logger(
            structlog.WriteLogger(stream or sys.stderr),
            processors=processors,
            wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.level.upper())),
        ),
    )


def quiet_log(settings: LogSettings) -> Log:
    """For commands, whose own output is what people read: warnings and worse only."""
    return make_log(replace(settings, level="error" if settings.level == "error" else "warning"))


def _redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace fact text; drop what tracebacks may quote of it: messages and local variables."""
    for key in FACT_TEXT & event.keys():
        if event[key] is not None:
            event[key] = REDACTED
    if "exception" in event:
        event["exception"] = [_without_values(trace) for trace in event["exception"]]
    return event


def _without_values(trace: Mapping[str, Any]) -> dict[str, Any]:
    frames = [{key: frame[key] for key in ("filename", "lineno", "name")} for frame in trace["frames"]]
    return {"type": trace["exc_type"], "frames": frames}
