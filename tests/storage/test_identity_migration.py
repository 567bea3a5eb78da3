"""The migration for users of providers keeps the roles that users have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from authsvc.accounts import bootstrap
from authsvc.storage.database import session
from authsvc.storage.models import UserRole
from tests.storage.environment import execute
from tests.storage.test_approval_migration import migrate_to_before

if TYPE_CHECKING:
    from authsvc.settings import Settings

_NOW = "'2026-11-20 08:00:00', '2026-11-20 08:00:00'"


def test_users_of_earlier_versions_keep_their_roles_as_given_here(settings: Settings) -> None:
    migrate_to_before("0024", settings)
    execute(
        "INSERT INTO users (username, enabled, grant_types, created_at, updated_at) "
        f"VALUES ('alice', TRUE, '', {_NOW}), ('bob', TRUE, '', {_NOW})"
    )
    execute(
        "INSERT INTO roles (name, description, built_in, created_at, updated_at) "
        f"VALUES ('machine', '', FALSE, {_NOW}), ('viewer', '', FALSE, {_NOW})"
    )
    execute(
        "INSERT INTO user_roles (user_id, role_id) SELECT users.id, roles.id FROM users, roles "
        "WHERE username = 'alice' OR name = 'viewer'"
    )
    assert bootstrap.migrate(settings)[0] == "0024_identities"
    with session():
        found = {(row.user.username, row.role.name, row.from_groups) for row in UserRole.select()}
    assert found == {("alice", "machine", False), ("alice", "viewer", False), ("bob", "viewer", False)}
