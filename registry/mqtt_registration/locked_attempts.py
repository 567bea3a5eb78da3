"""Selects the unknown usernames to record while the registry is locked.

While the list of registrations has room, every name is recorded. Once it is full, names with a single attempt are
counted in memory only, and a name with several attempts replaces one with a single attempt.
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

# At these rates it takes about 3 minutes to replace a full list of 200. So a device that retries within 3 minutes never
# has the oldest last contact.
_RETURNING_PER_SECOND, _RETURNING_BURST = 1.0, 10
_NEW_PER_SECOND, _NEW_BURST = 0.1, 3


class LockedAttempts:
    """Selects up to `limit` names, and counts the attempts of the others in `attempted`."""

    def __init__(self, limit: int, attempted: AttemptedNames, clock: Callable[[], float] = monotonic) -> None:
        self._limit = limit
        self._attempted = attempted
        self._returning = TokenBucket(_RETURNING_PER_SECOND, _RETURNING_BURST, clock)
        self._new = TokenBucket(_NEW_PER_SECOND, _NEW_BURST, clock)

    def choose(self, contacts: Iterable[Contact]) -> list[Contact]:
        """Return the contacts to record now, most attempts first; count the others in memory.

        Reads the database at most twice, and does not write.
        """
        arrived = list(contacts)
        if not arrived:
            return []
        for contact in arrived:
            contact.earlier_attempts += self._attempted.pop_unrecorded(contact.username)
        free = self._limit - records.count_pending_while_locked()
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
