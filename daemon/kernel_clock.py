"""Whether something keeps the machine's clock right, as the kernel knows it.

Knows adjtimex(2). Doesn't know which time service runs, and sets nothing.
"""

import ctypes

_STA_UNSYNC = 0x0040


class _Timex(ctypes.Structure):
    """The fields of `struct timex` up to its status, then room for the rest of it."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )


def is_synchronised() -> bool | None:
    """False when no time service has set the clock lately; None when the kernel doesn't say."""
    asked = _Timex(modes=0)  # 0: only read
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.byref(asked))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else not asked.status & _STA_UNSYNC
