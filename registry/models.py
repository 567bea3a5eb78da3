"""The registry's tables."""

from __future__ import annotations

from typing import Any

import peewee

from authsvc.errors import InvalidInput
from authsvc.policy.permissions import Permission
from authsvc.storage.fields import JsonField, Model, NumberedModel, UnreadableJson, UtcDateTimeField
from authsvc.storage.models import User


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _permissions(value: Any) -> bool:
    try:
        return isinstance(value, list) and all(Permission.from_fields(**words) for words in value)
    except (TypeError, ValueError, AttributeError, InvalidInput):
        return False


def _mapping(value: Any) -> bool:
    return isinstance(value, dict)


class Registration(Model):
    """One stranger by name. `password_hash` and `public_key` are what it proved to hold; both go when it is refused.

    A granted one goes with the user that came of it. `window_opened_at` says in which unlock window it takes a place
    once it is granted; null for none, as with an enrolment key.
    """

    id = peewee.CharField(32, primary_key=True)
    username = peewee.CharField(64, unique=True)
    user = peewee.ForeignKeyField(User, null=True, on_delete="CASCADE")
    kind = peewee.CharField(16)
    status = peewee.CharField(16, index=True)
    recorded_while_locked = peewee.BooleanField()
    client_ids = JsonField(accepts=_texts)
    attempts = peewee.IntegerField()
    conflicts = peewee.IntegerField()
    first_seen = UtcDateTimeField()
    last_seen = UtcDateTimeField(index=True)
    password_hash = peewee.TextField(null=True)
    public_key = peewee.TextField(null=True)
    csr_fingerprint = peewee.CharField(64, null=True)
    address = peewee.CharField(64, null=True)
    pairing_code = peewee.CharField(16, null=True)
    context = JsonField(null=True, accepts=_mapping)
    requested_roles = JsonField(accepts=_texts)
    requested_permissions = JsonField(accepts=_permissions)
    starting_roles = JsonField(accepts=_texts)
    decided_by = peewee.CharField(64, null=True)
    decided_at = UtcDateTimeField(null=True)
    reason = peewee.TextField(null=True)
    certificate = peewee.TextField(null=True)
    ca_certificate = peewee.TextField(null=True)
    skeleton = peewee.TextField(null=True, index=True)
    starting_permissions = JsonField(null=True, accepts=_permissions)
    held_reason = peewee.CharField(32, null=True)
    conflict_addresses = JsonField(null=True, accepts=_texts)
    window_opened_at = UtcDateTimeField(null=True, index=True)

    @property
    def damage(self) -> list[str]:
        """The columns that hold what cannot be read."""
        return [name for name, value in self.__data__.items() if isinstance(value, UnreadableJson)]

    class Meta:
        table_name = "registrations"


class Window(NumberedModel):
    """One row: when the registry was last unlocked and until when, by the database's clock, and for whom."""

    opened_at = UtcDateTimeField(null=True)
    unlocked_until = UtcDateTimeField(null=True)
    max_registrations = peewee.IntegerField(null=True)
    username_pattern = peewee.CharField(64, null=True)
    roles = JsonField(accepts=_texts)

    class Meta:
        table_name = "registry_window"


class Preauthorization(Model):
    """A grant given before its name made contact; good for one."""

    id = peewee.CharField(32, primary_key=True)
    username = peewee.CharField(64, unique=True)
    roles = JsonField(accepts=_texts)
    permissions = JsonField(accepts=_permissions)
    csr_fingerprint = peewee.CharField(64, null=True)
    expires_at = UtcDateTimeField(null=True)
    created_by = peewee.CharField(64)
    created_at = UtcDateTimeField(index=True)
    secret_digest = peewee.CharField(64, null=True)
    held_reason = peewee.CharField(32, null=True)
    skeleton = peewee.TextField(null=True, index=True)

    @property
    def is_damaged(self) -> bool:
        """Whether its roles or permissions cannot be read; it lets nobody in then."""
        return isinstance(self.roles, UnreadableJson) or isinstance(self.permissions, UnreadableJson)

    class Meta:
        table_name = "preauthorizations"


class EnrolmentKey(Model):
    """A secret that vouches for so many registrations; known by its digest alone."""

    id = peewee.CharField(32, primary_key=True)
    label = peewee.CharField(200)
    digest = peewee.CharField(64, unique=True)
    uses = peewee.IntegerField()
    used = peewee.IntegerField()
    roles = JsonField(accepts=_texts)
    approval_required = peewee.BooleanField()
    expires_at = UtcDateTimeField(null=True)
    created_by = peewee.CharField(64)
    created_at = UtcDateTimeField()
    revoked_at = UtcDateTimeField(null=True)

    class Meta:
        table_name = "enrolment_keys"


class UnknownNameReport(Model):
    """What one process counted of unknown usernames in the last minute; written only while there are many."""

    source = peewee.CharField(32, primary_key=True)
    at = UtcDateTimeField(index=True)
    attempts = peewee.IntegerField()
    names = peewee.IntegerField()
    name_prefix = peewee.CharField(64, null=True)
    client_id_prefix = peewee.CharField(200, null=True)
    addresses = JsonField(accepts=_mapping)

    class Meta:
        table_name = "unknown_name_reports"


ALL = (Registration, Window, Preauthorization, EnrolmentKey, UnknownNameReport)
