"""The first start: everything a service needs before it can answer, made once and found again afterwards."""

from __future__ import annotations

import shlex
import stat
from typing import TYPE_CHECKING

from authsvc.accounts import last_admin, roles, signing_keys, users
from authsvc.credentials.hashing import HashingPool
from authsvc.credentials.passwords import PasswordHasher, generate
from authsvc.errors import SettingsError
from authsvc.pki import authorities
from authsvc.policy.actors import SERVICE
from authsvc.storage import schema
from authsvc.storage.changes import policy_change
from authsvc.storage.database import connect_to, create_file, sqlite_file

if TYPE_CHECKING:
    from pathlib import Path

    from authsvc.settings import Settings

ADMINISTRATOR = "admin"


def open_database(settings: Settings) -> None:
    """Make the data directory and the database file if they are missing, and point the service at them.

    `SettingsError` if other accounts of this machine could read or change one of them.
    """
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    _must_be_private(settings.data_dir, "700")
    create_file(settings.database_url)
    file = sqlite_file(settings.database_url)
    if file:
        _must_be_private(file, "600")
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
            roles=(last_admin.ROLE,),
        )
        users.create(SERVICE, ADMINISTRATOR, wanted, hasher)
    return generated


def _must_be_private(path: Path, wanted: str) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SettingsError(
            f"{path} is open to other accounts of this machine (mode {mode:04o}); "
            f"close it with: chmod {wanted} {shlex.quote(str(path))}"
        )
