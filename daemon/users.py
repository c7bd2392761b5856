"""Users as the kernel knows them: for the audit, and for who may have written a file.

Knows ids, names and mode bits. Doesn't know what anybody may do.
"""

import os
import pwd

from policies.sources import Owner

_OTHERS_WRITE = 0o022  # with an access control list, the group's bit is the list's mask


def name_of(uid: int) -> str:
    """Empty for an id without a name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def actor(uid: int | None = None) -> str:
    """`UID:NAME` of a user, this process's own when None. Never from the environment, which anybody sets."""
    number = os.geteuid() if uid is None else uid
    name = name_of(number)
    return f"{number}:{name}" if name else str(number)


def owner_of(found: os.stat_result) -> Owner:
    """Who wrote an open file. Another name of it elsewhere may be how somebody else put it here."""
    alone = not found.st_mode & _OTHERS_WRITE and found.st_nlink == 1
    return Owner(found.st_uid, name_of(found.st_uid), alone)


def ourselves() -> Owner:
    """Whose file it would be that this process wrote."""
    return Owner(os.geteuid(), name_of(os.geteuid()), alone=True)
