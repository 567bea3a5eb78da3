"""The tables. Rules live elsewhere; what stands here is what must hold whoever writes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import peewee

from authsvc.snapshot import GrantType
from authsvc.storage.database import database


class UtcDateTimeField(peewee.DateTimeField):
    """An aware UTC time outside, a naive one in the database."""

    def db_value(self, value: datetime | None) -> Any:
        return super().db_value(value and value.astimezone(UTC).replace(tzinfo=None))  # type: ignore[no-untyped-call]

    def python_value(self, value: Any) -> datetime | None:
        naive: datetime | None = super().python_value(value)  # type: ignore[no-untyped-call]
        return naive and naive.replace(tzinfo=UTC)


class GrantTypesField(peewee.TextField):
    """A set of grant types, stored as their sorted names with commas between."""

    def db_value(self, value: frozenset[GrantType]) -> str:
        return ",".join(sorted(value))

    def python_value(self, value: str) -> frozenset[GrantType]:
        return _grant_types(value)


@lru_cache  # the same few sets for everybody
def _grant_types(names: str) -> frozenset[GrantType]:
    return frozenset(map(GrantType, names.split(","))) if names else frozenset()


class JsonField(peewee.TextField):
    """Any JSON value, as text; both databases store it the same way."""

    def db_value(self, value: Any) -> str | None:
        return None if value is None else json.dumps(value, sort_keys=True)

    def python_value(self, value: str | None) -> Any:
        return None if value is None else json.loads(value)


class Model(peewee.Model):
    class Meta:
        database = database
        legacy_table_names = False


class Numbered(Model):
    id = peewee.AutoField()


class User(Numbered):
    username = peewee.CharField(64, unique=True)
    password_hash = peewee.TextField(null=True)
    enabled = peewee.BooleanField()
    grant_types = GrantTypesField()
    created_at = UtcDateTimeField()
    updated_at = UtcDateTimeField()

    class Meta:
        table_name = "users"


class Role(Numbered):
    name = peewee.CharField(64, unique=True)
    description = peewee.TextField()
    built_in = peewee.BooleanField()
    created_at = UtcDateTimeField()
    updated_at = UtcDateTimeField()

    class Meta:
        table_name = "roles"


class UserRole(Model):
    user = peewee.ForeignKeyField(User, on_delete="CASCADE", backref="user_roles")
    role = peewee.ForeignKeyField(Role, on_delete="RESTRICT", backref="user_roles")

    class Meta:
        table_name = "user_roles"
        primary_key = peewee.CompositeKey("user", "role")


class PermissionRow(Numbered):
    """A permission of exactly one user or one role."""

    user = peewee.ForeignKeyField(User, null=True, on_delete="CASCADE", backref="permissions")
    role = peewee.ForeignKeyField(Role, null=True, on_delete="CASCADE", backref="permissions")
    context = peewee.CharField(16)
    operation = peewee.CharField(16)
    resource = peewee.TextField()
    effect = peewee.CharField(16)

    class Meta:
        table_name = "permissions"
        constraints = [peewee.Check("(user_id IS NULL) <> (role_id IS NULL)")]


class Token(Model):
    """An API token: `id` names it in public, `digest` is that of the secret inside it."""

    id = peewee.CharField(32, primary_key=True)
    user = peewee.ForeignKeyField(User, on_delete="CASCADE", backref="tokens")
    digest = peewee.CharField(64, unique=True)
    label = peewee.CharField(200)
    created_at = UtcDateTimeField()
    expires_at = UtcDateTimeField()
    last_used_at = UtcDateTimeField(null=True)

    class Meta:
        table_name = "tokens"


class SigningKeyRow(Numbered):
    kid = peewee.CharField(32, unique=True)
    secret = peewee.CharField(64)
    created_at = UtcDateTimeField()

    class Meta:
        table_name = "signing_keys"


class PolicyVersion(Numbered):
    """One row: how many changes of policy there were. Raised in the transaction of the change it announces."""

    version = peewee.BigIntegerField()

    class Meta:
        table_name = "policy_version"


class PolicyChange(Numbered):
    """What a policy version changed: whose snapshot entry is to be read again."""

    version = peewee.BigIntegerField(index=True)
    kind = peewee.CharField(16)
    name = peewee.CharField(64)

    class Meta:
        table_name = "policy_changes"


class AuditEvent(Numbered):
    """One change: who, how, when, and what it was before and after. The database itself refuses to alter a row."""

    at = UtcDateTimeField(index=True)
    actor = peewee.CharField(64, index=True)
    via = peewee.CharField(16)
    address = peewee.CharField(64, null=True)
    request_id = peewee.CharField(64, null=True)
    action = peewee.CharField(64, index=True)
    target = peewee.CharField(200, index=True)
    before = JsonField(null=True)
    after = JsonField(null=True)

    class Meta:
        table_name = "audit_events"


class Authority(Numbered):
    """A certificate authority as PEM, with its latest revocation list; the key is encrypted if a passphrase is set.

    `chain` leads from its certificate to a root that clients know; empty for a root of our own. `retires_at` is when
    nobody needs to trust it any more. `crl_entries` is a digest of the list's entries, to see whether they changed.
    """

    certificate = peewee.TextField()
    chain = peewee.TextField()
    key = peewee.TextField()
    created_at = UtcDateTimeField()
    retires_at = UtcDateTimeField(null=True)
    crl = peewee.TextField(null=True)
    crl_number = peewee.IntegerField(default=0)
    crl_entries = peewee.CharField(64, default="")
    crl_this_update = UtcDateTimeField(null=True)
    crl_next_update = UtcDateTimeField(null=True)
    crl_policy_version = peewee.BigIntegerField(default=0)

    class Meta:
        table_name = "authorities"


class Certificate(Model):
    """A client certificate of ours; it outlives its user, since a revocation list must still name it.

    `revoked_at` may lie ahead: the old certificate of a renewed pair ends when their overlap does.
    """

    serial = peewee.CharField(40, primary_key=True)
    authority = peewee.ForeignKeyField(Authority, on_delete="RESTRICT", backref="certificates")
    user = peewee.ForeignKeyField(User, null=True, on_delete="SET NULL", backref="certificates")
    username = peewee.CharField(64, index=True)
    fingerprint = peewee.CharField(64, index=True)
    certificate = peewee.TextField()
    not_before = UtcDateTimeField()
    not_after = UtcDateTimeField(index=True)
    created_at = UtcDateTimeField()
    revoked_at = UtcDateTimeField(null=True, index=True)
    reason = peewee.CharField(32, null=True)

    class Meta:
        table_name = "certificates"


class Attempt(Model):
    """How often something was tried since a moment; for throttling that all replicas agree on."""

    key = peewee.CharField(200, primary_key=True)
    since = UtcDateTimeField(index=True)
    count = peewee.IntegerField()

    class Meta:
        table_name = "attempts"


class Sighting(Model):
    """A client id under which a user was lately seen on a broker."""

    username = peewee.CharField(64)
    client_id = peewee.CharField(200)
    seen_at = UtcDateTimeField(index=True)

    class Meta:
        table_name = "sightings"
        primary_key = peewee.CompositeKey("username", "client_id")


class SessionEnding(Numbered):
    """An order to end a user's live sessions: written with the change that calls for it, carried out by one worker."""

    username = peewee.CharField(64)
    cause = peewee.CharField(64)
    requested_at = UtcDateTimeField()
    claimed_at = UtcDateTimeField(null=True, index=True)
    finished_at = UtcDateTimeField(null=True)
    ended = JsonField(null=True)
    failed = JsonField(null=True)

    class Meta:
        table_name = "session_endings"


ALL = (
    User,
    Role,
    UserRole,
    PermissionRow,
    Token,
    SigningKeyRow,
    Authority,
    Certificate,
    Attempt,
    Sighting,
    SessionEnding,
    PolicyVersion,
    PolicyChange,
    AuditEvent,
)
