"""TOML text as plain tables; whatever is wrong with it is one ValueError that says what.

Knows what Python's parser lets through besides its own error. Doesn't know any key.
"""

import tomllib
from typing import Any


def read_toml(text: str) -> dict[str, Any]:
    """The tables of a text, with or without a byte order mark. Raises `ValueError`."""
    try:
        return tomllib.loads(text.removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise ValueError("values are nested too deeply") from None
    except ValueError:  # the interpreter's limit on digits
        raise ValueError("a number with thousands of digits") from None
