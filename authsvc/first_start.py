"""The first start: everything a service needs before it can answer, made once and found again afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from authsvc import administrators, authorities, roles, signing_keys, users
from authsvc.actors import SERVICE
from authsvc.hashing import HashingPool
from authsvc.passwords import PasswordHasher, generate
from authsvc.storage import schema
from authsvc.storage.changes import policy_change
from authsvc.storage.database import connect_to, create_file

if TYPE_CHECKING:
    from authsvc.settings import Settings

ADMINISTRATOR = "admin"


def open_database(settings: Settings) -> None:
    """Make the data directory and the database file if they are missing, and point the service at them."""
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    create_file(settings.database_url)
    connect_to(settings.database_url)


def migrate(settings: Settings) -> list[str]:
    """Bring the database up to this version; return the names of the migrations that were applied."""
    return schema.migrate(settings.data_dir / "migrate.lock")


def prepare(settings: Settings) -> str | None:
    """Bring the database up to date and, the first time, make roles, a signing key and the administrator.

    Returns the administrator's password if it was generated now: it is told once and stored only as a hash.
    """
    open_database(settings)
    migrate(settings)
    generated = None if settings.admin_password else generate(settings.password_policy)
    hasher = PasswordHasher(settings.password_policy, settings.bcrypt_cost, HashingPool(1, 1))
    with policy_change():
        authorities.ensure(SERVICE, settings.ca_key_passphrase)
        if signing_keys.exist():
            roles.repair_built_in(SERVICE)
            return None
        signing_keys.rotate(SERVICE)
        roles.insert_built_in()
        wanted = users.UserChanges(
            password=settings.admin_password or generated,
            # No broker sees the administrator's password, and nobody can guess it there.
            grant_types=frozenset(),
            roles=(administrators.ROLE,),
        )
        users.create(SERVICE, ADMINISTRATOR, wanted, hasher)
    return generated
