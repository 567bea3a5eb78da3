"""The state of the service for the first page: users, database, policy and expiring certificates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from authsvc import __version__
from authsvc.accounts import users
from authsvc.pki import certificates
from authsvc.pki.certificates import CertificateFilter
from authsvc.storage.database import DATABASE_ERRORS, is_sqlite

if TYPE_CHECKING:
    from authsvc.pki.certificates import CertificateRecord
    from authsvc.storage.policy_cache import PolicyCache

EXPIRING_DAYS = 30
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Overview:
    """The state of the service. `users` counts the users of the policy snapshot; `policy_age` is in seconds.

    `administrators_on_broker` counts the users that may change something in this service and log in to the broker.
    `expiring` counts the certificates that expire within `EXPIRING_DAYS`; `expiring_first` has the first 5. If the
    database does not answer, the counts are None.
    """

    version: str
    users: int
    database: Literal["SQLite", "PostgreSQL"]
    database_answers: bool
    policy_version: int
    policy_age: float
    administrators_on_broker: int | None
    expiring: int | None
    expiring_first: tuple[CertificateRecord, ...]


def overview(policy: PolicyCache) -> Overview:
    """Return the current state; an unreachable database is part of it and no error."""
    administrators, expiring, first = _stored()
    return Overview(
        __version__,
        len(policy.snapshot.users),
        "SQLite" if is_sqlite() else "PostgreSQL",
        expiring is not None,
        policy.snapshot.version,
        policy.age,
        administrators,
        expiring,
        first,
    )


def _stored() -> tuple[int | None, int | None, tuple[CertificateRecord, ...]]:
    try:
        administrators = users.search(users.UserFilter(administrators_on_broker=True), 1, 1)
        found = certificates.search(CertificateFilter(expiring_within_days=EXPIRING_DAYS), 1, _SHOWN)
    except DATABASE_ERRORS:
        return None, None, ()
    return administrators.total, found.total, tuple(found.items)
