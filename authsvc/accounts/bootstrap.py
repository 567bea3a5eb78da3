"""The first start: data directory, database, certificate authority, signing key, roles and administrator."""

from __future__ import annotations

import shlex
import stat
from typing import TYPE_CHECKING

from authsvc.accounts import last_admin, roles, signing_keys, users
from authsvc.accounts.sign_in import second_factor
from authsvc.credentials.hashing import HashingPool
from authsvc.credentials.passwords import PasswordHasher, generate
from authsvc.errors import NotFound, SettingsError
from authsvc.notifications import signing_secrets
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
    """Create the data directory and the SQLite file if they are missing, and connect to the database.

    `SettingsError` if other accounts of this machine can read or change one of them.
    """
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    _must_be_private(settings.data_dir, "700")
    create_file(settings.database_url)
    check_modes(settings)
    connect_to(settings.database_url)


def open_existing_database(settings: Settings) -> None:
    """Connect to a database that exists; `NotFound` if there is no SQLite file. Creates nothing.

    `SettingsError` if other accounts of this machine can read or change the data directory or the SQLite file.
    """
    check_modes(settings)
    file = sqlite_file(settings.database_url)
    if file and not file.exists():
        raise NotFound(
            f"there is no database {file.name} in {file.parent}; "
            "set AUTHSVC_DATA_DIR to the directory of your service, or create a new database there with: authsvc init",
            "no-database",
        )
    connect_to(settings.database_url)


def migrate(settings: Settings) -> list[str]:
    """Apply the pending migrations and return their names."""
    return schema.migrate(settings.data_dir / "migrate.lock")


def prepare(settings: Settings) -> str | None:
    """Prepare the database and return the administrator's password if this call generated it.

    The first call creates the roles, a signing key and the administrator. A generated password is stored only as a
    hash, so the caller must show it. A later call repairs damaged built-in roles.
    """
    open_database(settings)
    migrate(settings)
    generated = None if settings.admin_password else generate(settings.password_policy)
    hasher = PasswordHasher(settings.password_policy, settings.bcrypt_cost, HashingPool(1, 1))
    with policy_change():
        authorities.ensure(SERVICE, settings.ca_key_passphrase)
        signing_secrets.encrypt_stored(settings.ca_key_passphrase)
        second_factor.encrypt_stored(settings.ca_key_passphrase)
        if signing_keys.exist():
            roles.repair_built_in(SERVICE)
            return None
        signing_keys.rotate(SERVICE)
        roles.insert_built_in()
        wanted = users.UserChanges(
            password=settings.admin_password or generated,
            # Without a grant type no broker accepts, sees or lets clients guess the administrator's password.
            grant_types=frozenset(),
            roles=(last_admin.ROLE,),
        )
        users.create(SERVICE, ADMINISTRATOR, wanted, hasher)
    return generated


def check_modes(settings: Settings) -> None:
    """Raise `SettingsError` if other accounts of this machine can read or change the data directory or SQLite file."""
    file = sqlite_file(settings.database_url)
    for path, wanted in ((settings.data_dir, "700"), (file, "600")):
        if path and path.exists():
            _must_be_private(path, wanted)


def _must_be_private(path: Path, wanted: str) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SettingsError(
            f"{path} is open to other accounts of this machine (mode {mode:04o}); "
            f"close it with: chmod {wanted} {shlex.quote(str(path))}"
        )
