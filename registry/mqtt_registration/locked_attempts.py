"""Which unknown names are recorded while the registry is locked: a bounded list, whatever comes.

While the list has room every name is recorded. Once it is full, the names of a flood are counted in memory and written
nowhere, and a name that comes back takes the place of one that did not.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from registry import records
from registry.limits import TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from registry.mqtt_registration.attempted_names import AttemptedNames
    from registry.mqtt_registration.contact_queue import Contact

# A full list changes slowly: with 200 places, a device that retries within 3 minutes is never the longest unseen one.
_RETURNING_PER_SECOND, _RETURNING_BURST = 1.0, 10
_NEW_PER_SECOND, _NEW_BURST = 0.1, 3


class LockedAttempts:
    """Chooses among unknown names, and counts the attempts of the others."""

    def __init__(self, most: int, attempted: AttemptedNames, clock: Callable[[], float] = monotonic) -> None:
        self._most = most
        self._attempted = attempted
        self._returning = TokenBucket(_RETURNING_PER_SECOND, _RETURNING_BURST, clock)
        self._new = TokenBucket(_NEW_PER_SECOND, _NEW_BURST, clock)

    def choose(self, contacts: Iterable[Contact]) -> list[Contact]:
        """Return the contacts to record now, those with the most attempts first; count the others in memory.

        Reads the database at most twice, and writes nothing.
        """
        arrived = list(contacts)
        if not arrived:
            return []
        for contact in arrived:
            contact.earlier += self._attempted.take_unrecorded(contact.username)
        free = self._most - records.count_pending_while_locked()
        replaceable = records.count_pending_while_locked(never_came_back=True) if free < len(arrived) else 0
        chosen = []
        for contact in sorted(arrived, key=lambda one: one.total, reverse=True):
            came_back = contact.total > 1
            if free > 0:
                free -= 1
            elif self._returning.take() if came_back else replaceable > 0 and self._new.take():
                replaceable -= 1
            else:
                self._attempted.count_unrecorded(contact.username, contact.total)
                continue
            chosen.append(contact)
        return chosen
