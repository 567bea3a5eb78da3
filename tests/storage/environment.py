"""Functions that tests of storage and use cases share."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from authsvc.accounts import roles, users
from authsvc.activity import audit
from authsvc.storage.changes import Versions, current_version, current_versions
from authsvc.storage.database import database, is_sqlite, session
from authsvc.storage.models import ALL, AuditEvent
from authsvc.storage.policy_cache import PolicyCache
from registry import models as registry_models
from tests.actors import ALICE, BOBS_PASSWORD, HASHER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from authsvc.accounts.users import UserChanges, UserRecord
    from authsvc.policy.permissions import Permission
    from authsvc.policy.snapshot import UserPolicy
    from authsvc.settings import Settings


def create_bob(**wanted: Any) -> UserRecord:
    """Create bob with a password and these fields."""
    return create_user("bob", **wanted)


def create_user(username: str, **wanted: Any) -> UserRecord:
    """Create a user with bob's password and these fields."""
    changes: UserChanges = {"password": BOBS_PASSWORD, **wanted}  # type: ignore[typeddict-item]
    return users.create(ALICE, username, changes, HASHER)


def create_role(name: str, *permissions: Permission, description: str = "") -> roles.RoleRecord:
    return roles.create(ALICE, name, description, permissions)


def change_user(username: str, **changes: Any) -> UserRecord:
    """Change a user as alice."""
    return users.change(ALICE, username, changes, HASHER)  # type: ignore[arg-type]


def loaded_policy() -> PolicyCache:
    """Return the policy cache of a worker that has just started."""
    policy = PolicyCache()
    policy.catch_up()
    return policy


def policy_of(username: str) -> UserPolicy:
    """Return a user's policy as a worker that has just started reads it."""
    return loaded_policy().snapshot.users[username]


def all_rows() -> dict[str, list[Any]]:
    """Return every row of every table, for comparison."""
    with session():
        return {model.__name__: sorted(model.select().tuples(), key=repr) for model in (*ALL, *registry_models.ALL)}


def versions() -> Versions:
    """Return the policy version and the token version."""
    with session():
        return current_versions()


def version() -> int:
    """Return the policy version."""
    with session():
        return current_version()


def events() -> list[audit.Event]:
    """Return the audit trail, oldest first."""
    with session():
        count = AuditEvent.select().count()
    return audit.events(1, count + 1, audit.AuditFilter()).items[::-1]


def execute(statement: str, *parameters: Any) -> None:
    """Run an SQL statement."""
    with session():
        database.execute_sql(statement, parameters)


@contextmanager
def database_gone(settings: Settings) -> Iterator[None]:
    """Make the database unreachable: move the SQLite file, or rename the database on the server."""
    if is_sqlite():
        file = Path(settings.database_url.removeprefix("sqlite:///"))
        away = file.rename(file.with_suffix(".away"))
        yield
        assert not file.exists()
        away.rename(file)
        return
    name = settings.database_url.partition("?")[0].rpartition("/")[2]
    with psycopg.connect(settings.database_url, dbname="postgres", autocommit=True) as server:
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        server.execute(f"ALTER DATABASE {name} RENAME TO {name}_away")
        yield
        server.execute(f"ALTER DATABASE {name}_away RENAME TO {name}")
