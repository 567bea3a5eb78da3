"""How the service is doing, in the few facts that an administrator looks for first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import peewee
from playhouse.pool import MaxConnectionsExceeded

from authsvc import __version__, certificates
from authsvc.certificates import Wanted
from authsvc.storage.database import is_sqlite

if TYPE_CHECKING:
    from authsvc.certificates import CertificateRecord
    from authsvc.policy import Policy

EXPIRING_DAYS = 30
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Overview:
    """The facts. `users` are those that brokers are answered about; `policy_age` is in seconds.

    `expiring` is how many certificates run out within `EXPIRING_DAYS`, `expiring_first` the first few of them; without
    the database, which is when `database_answers` is false, nothing is known of them.
    """

    version: str
    users: int
    database: Literal["SQLite", "PostgreSQL"]
    database_answers: bool
    policy_version: int
    policy_age: float
    expiring: int | None
    expiring_first: tuple[CertificateRecord, ...]


def overview(policy: Policy) -> Overview:
    """Return the facts as they are now; a database that is lost is one of them and no error."""
    expiring, first = _expiring()
    return Overview(
        __version__,
        len(policy.snapshot.users),
        "SQLite" if is_sqlite() else "PostgreSQL",
        expiring is not None,
        policy.snapshot.version,
        policy.age,
        expiring,
        first,
    )


def _expiring() -> tuple[int | None, tuple[CertificateRecord, ...]]:
    try:
        found = certificates.search(Wanted(expiring_within_days=EXPIRING_DAYS), 1, _SHOWN)
    except (peewee.PeeweeException, MaxConnectionsExceeded):
        return None, ()
    return found.total, tuple(found.items)
