"""Waiting out what passes: a full disk, a ledger that another process holds.

Knows which troubles pass and that rows and disk must be put in order after one. Doesn't know what the daemon
does otherwise; while a trouble lasts it writes nothing and only looks whether it is over.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from daemon import capacity, waits
from daemon.house import House
from daemon.recovery import is_half_done, recover
from daemon.report import record_outcomes
from store.errors import PalimpsestError
from store.trouble import Trouble, trouble_of


class Patience:
    """`unsettled`: rows and disk may not fit each other, as after any start; nothing else may be done."""

    def __init__(self) -> None:
        self.trouble: Trouble | None = None
        self.unsettled = True
        self._recovered = False

    @contextmanager
    def enduring(self, house: House) -> Iterator[None]:
        """Take note of a trouble that passes; anything else goes on to end the process."""
        try:
            yield
        except Exception as error:
            found = trouble_of(error)
            if found is None or not found.passes:
                raise
            self.unsettled = True
            house.room.ran_out |= found is Trouble.FULL
            if found is not self.trouble:
                self.trouble = found
                with suppress(OSError):  # the log may be on the same disk
                    house.log.error("daemon.waits", cause=str(found), error=str(error))

    def settle(self, house: House) -> bool:
        """Put rows and disk in order once there is no trouble any more; True when that is done."""
        if house.room.ran_out and not house.room.look():
            return False
        house.ledger.try_to_write()
        if not self._recovered:
            recover(house)
        elif is_half_done(house):
            recover(house, passed=f"it was cut off: {self.trouble}")
        self._recovered = True
        record_outcomes(house)
        waits.note(house)
        capacity.note(house)
        self.unsettled = False
        if self.trouble is not None:
            house.log.info("daemon.goes_on", cause=str(self.trouble))
            self.trouble = None
        return True


def explained(error: Exception, state: str) -> Exception:
    """The machine's own errors as an operator's; the others speak for themselves, or are bugs."""
    if isinstance(error, PalimpsestError) or (found := trouble_of(error)) is None:
        return error
    hint = "check the disk and the kernel's log, then start again: the next start recovers"
    return PalimpsestError("run daemon", state, f"{found}: {error}", hint)
