"""Which unknown names are recorded while the registry is locked: a bounded list, whatever comes.

While the list has room every name is recorded. Once it is full, the names of a flood are counted in memory and written
nowhere, and a name that comes back takes the place of one that did not.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from time import monotonic
from typing import TYPE_CHECKING

from registry import records
from registry.limits import TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from registry.contact_queue import Contact

MAX_COUNTED = 20_000
# A full list changes slowly: with 200 places, a device that retries within 3 minutes is never the longest unseen one.
_RETURNING_PER_SECOND, _RETURNING_BURST = 1.0, 10
_NEW_PER_SECOND, _NEW_BURST = 0.1, 3


class LockedAttempts:
    """Chooses among unknown names, and remembers how often the others were seen."""

    def __init__(self, most: int, clock: Callable[[], float] = monotonic) -> None:
        self._most = most
        self._counted: OrderedDict[bytes, int] = OrderedDict()
        self._returning = TokenBucket(_RETURNING_PER_SECOND, _RETURNING_BURST, clock)
        self._new = TokenBucket(_NEW_PER_SECOND, _NEW_BURST, clock)

    @property
    def counted(self) -> int:
        """How many names are counted and not recorded."""
        return len(self._counted)

    def choose(self, contacts: Iterable[Contact]) -> list[Contact]:
        """Return the contacts to record now, those with the most attempts first; count the others in memory.

        Reads the database at most twice, and writes nothing.
        """
        arrived = list(contacts)
        if not arrived:
            return []
        for contact in arrived:
            contact.earlier += self._counted.pop(_digest(contact.username), 0)
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
                self._count(contact)
                continue
            chosen.append(contact)
        return chosen

    def _count(self, contact: Contact) -> None:
        self._counted[_digest(contact.username)] = contact.total
        if len(self._counted) > MAX_COUNTED:
            self._counted.popitem(last=False)


def _digest(username: str) -> bytes:
    return hashlib.blake2b(username.encode(), digest_size=8).digest()
