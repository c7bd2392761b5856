"""What a running daemon tells other processes of itself: small JSON files in run/, written whole.

Knows where they lie. Doesn't know what they say, nor who reads them (`daemon.status`).
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from daemon.layout import Layout

DAEMON, PROGRESS = "daemon.json", "progress.json"


def write(layout: Layout, name: str, value: Mapping[str, Any]) -> None:
    staged = layout.run / f".{name}.tmp"
    staged.write_text(json.dumps(value))
    staged.rename(layout.run / name)


def forget(layout: Layout, *names: str) -> None:
    """Remove them; nothing may hide why the daemon ends."""
    with suppress(OSError):
        for name in names:
            (layout.run / name).unlink(missing_ok=True)
