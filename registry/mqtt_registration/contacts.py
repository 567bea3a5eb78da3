"""Counts further contact of recorded registrations in memory and writes it at a limited rate."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from authsvc.addresses import normalize_address
from authsvc.storage.database import DATABASE_ERRORS, transaction
from registry import records
from registry.limits import TokenBucket
from registry.models import Registration

if TYPE_CHECKING:
    from collections.abc import Callable

WRITES_PER_SECOND = 20
BURST = 200
MAX_UNWRITTEN = 5000


@dataclass(slots=True)
class _Unwritten:
    attempts: int = 0
    conflicts: int = 0
    client_ids: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()

    def add(self, other: _Unwritten) -> None:
        self.attempts += other.attempts
        self.conflicts += other.conflicts
        self.client_ids = tuple(records.bounded_client_ids((*self.client_ids, *other.client_ids)))
        self.addresses = tuple(records.bounded_addresses((*self.addresses, *other.addresses)))


class ContactWriter:
    """Adds attempts and conflicts to registrations: at once within the write rate, otherwise at a later `flush`.

    The first conflict of a registration is always written at once, so that no administrator grants it unaware.
    If the database fails, the error is raised and the contact is kept for a later `flush`.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._bucket = TokenBucket(WRITES_PER_SECOND, BURST, clock)
        self._unwritten: OrderedDict[str, _Unwritten] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def unwritten(self) -> int:
        """The number of registrations with unwritten contact."""
        return len(self._unwritten)

    def add(
        self,
        row: Registration,
        attempts: int,
        conflicts: int,
        client_ids: tuple[str, ...] = (),
        address: str | None = None,
    ) -> None:
        """Count contact of a registration and write it if the rate allows. `address` is stored for conflicts only."""
        conflict_address = normalize_address(address) if conflicts else None
        is_first_conflict = conflicts > 0 and row.conflicts == 0
        addresses = (conflict_address,) if conflict_address else ()
        with self._lock:
            self._keep(row.id, _Unwritten(attempts, conflicts, client_ids, addresses))
            is_due = self._bucket.take() or is_first_conflict
            due = self._unwritten.pop(row.id, None) if is_due else None
        if due:
            self._write(row.id, due)

    def flush(self) -> None:
        """Write unwritten contact, oldest first, as far as the rate allows."""
        while True:
            with self._lock:
                if not self._unwritten or not self._bucket.take():
                    return
                registration_id, due = self._unwritten.popitem(last=False)
            self._write(registration_id, due)

    def _keep(self, registration_id: str, contact: _Unwritten) -> None:
        self._unwritten.setdefault(registration_id, _Unwritten()).add(contact)
        if len(self._unwritten) > MAX_UNWRITTEN:
            self._unwritten.popitem(last=False)

    def _write(self, registration_id: str, due: _Unwritten) -> None:
        try:
            with transaction():
                row = Registration.get_or_none(Registration.id == registration_id)
                if row:
                    records.count_contact(row, due.attempts, due.conflicts, due.client_ids, due.addresses)
        except DATABASE_ERRORS:
            with self._lock:
                self._keep(registration_id, due)
            raise
