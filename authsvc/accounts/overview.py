"""How the service is doing, in the few facts that an administrator looks for first."""

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
    """The facts. `users` are those that brokers are answered about; `policy_age` is in seconds.

    `administrators_on_broker` is how many users may change something in this service and log in to the broker;
    `expiring` is how many certificates run out within `EXPIRING_DAYS`, `expiring_first` the first few of them; without
    the database, which is when `database_answers` is false, nothing is known of them.
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
    """Return the facts as they are now; a database that is lost is one of them and no error."""
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
        administrators = users.search("", 1, 1, administrators_on_broker=True)
        found = certificates.search(CertificateFilter(expiring_within_days=EXPIRING_DAYS), 1, _SHOWN)
    except DATABASE_ERRORS:
        return None, None, ()
    return administrators.total, found.total, tuple(found.items)
