"""Runs a command under the system call filter of a systemd unit, without systemd.

    python -m tests.deploy.sandbox UNIT_FILE... -- COMMAND...

Knows SystemCallFilter= and MemoryDenyWriteExecute= of unit files (later files are drop-ins) and libseccomp,
which systemd itself uses. Doesn't know mounts, devices or the network: those take a running systemd.
"""

import ctypes
import ctypes.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

_ALLOW, _EPERM = 0x7FFF0000, 0x00050001  # SCMP_ACT_ALLOW, SCMP_ACT_ERRNO(EPERM)
_NO_NEW_PRIVS, _MASKED_EQUAL = 3, 7  # SCMP_FLTATR_CTL_NNP, SCMP_CMP_MASKED_EQ
_WRITE, _EXECUTE, _SHM_EXEC = 2, 4, 0o100000
# What MemoryDenyWriteExecute= refuses: call, argument, bits (systemd.exec(5)).
_WRITE_EXECUTE = (
    ("mmap", 2, _WRITE | _EXECUTE),
    ("mprotect", 2, _EXECUTE),
    ("pkey_mprotect", 2, _EXECUTE),
    ("shmat", 2, _SHM_EXEC),
)


class _Compare(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("mask", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
    )


def missing() -> str:
    """Why this can't be done here; empty when it can."""
    if shutil.which("systemd-analyze") is None:
        return "systemd-analyze isn't installed"
    return "" if ctypes.util.find_library("seccomp") else "libseccomp isn't installed"


def values(units: Iterable[Path], key: str) -> list[str]:
    """What `key` is set to, in the order that systemd reads it."""
    lines = [line.strip() for unit in units for line in unit.read_text("utf-8").splitlines()]
    return [line.partition("=")[2] for line in lines if line.startswith(f"{key}=")]


def allowed_calls(filters: Iterable[str]) -> frozenset[str]:
    """Names of system calls that a list of SystemCallFilter= values lets through; the first one allows."""
    allowed: frozenset[str] = frozenset()
    for each in filters:
        named = frozenset().union(*map(_expand, each.removeprefix("~").split()))
        allowed = allowed - named if each.startswith("~") else allowed | named
    return allowed


@cache
def _expand(name: str) -> frozenset[str]:
    if not name.startswith("@"):
        return frozenset({name})
    command = ["systemd-analyze", "syscall-filter", name]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    words = [line.strip() for line in text.splitlines()[1:]]
    return frozenset().union(*(_expand(word) for word in words if word and not word.startswith("#")))


def confine(calls: Iterable[str], *, deny_write_execute: bool) -> None:
    """Refuse this process and its children every other call from now on, as systemd would."""
    library = ctypes.CDLL(ctypes.util.find_library("seccomp"))
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Compare),
    ]
    library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_load.argtypes = [ctypes.c_void_p]

    def load(default: int, rules: Iterable[tuple[int, str, list[_Compare]]]) -> None:
        made = library.seccomp_init(default)
        library.seccomp_attr_set(made, _NO_NEW_PRIVS, 1)
        for action, name, compares in rules:
            number = library.seccomp_syscall_resolve_name(name.encode())
            if number >= 0:  # names of other architectures have no number here
                array = (_Compare * len(compares))(*compares) if compares else None
                _check(library.seccomp_rule_add_array(made, action, number, len(compares), array), name)
        _check(library.seccomp_load(made), "the filter")

    if deny_write_execute:  # first: the other filter may refuse to load one more
        load(
            _ALLOW,
            [(_EPERM, name, [_Compare(at, _MASKED_EQUAL, b, b)]) for name, at, b in _WRITE_EXECUTE],
        )
    load(_EPERM, [(_ALLOW, name, []) for name in sorted(calls)])


def _check(code: int, what: str) -> None:
    if code:
        raise OSError(-code, f"{os.strerror(-code)}: {what}")


def main(arguments: list[str]) -> None:
    at = arguments.index("--")
    units, command = [Path(each) for each in arguments[:at]], arguments[at + 1 :]
    deny = values(units, "MemoryDenyWriteExecute")[-1:] == ["yes"]
    confine(allowed_calls(values(units, "SystemCallFilter")), deny_write_execute=deny)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
