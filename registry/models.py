"""The tables of the client registry."""

from __future__ import annotations

from typing import Any

import peewee

from authsvc.errors import InvalidInput
from authsvc.policy.permissions import Permission
from authsvc.storage.fields import JsonField, Model, NumberedModel, UnreadableJson, UtcDateTimeField
from authsvc.storage.models import User


def _is_text_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _is_permission_list(value: Any) -> bool:
    try:
        return isinstance(value, list) and all(Permission.from_fields(**words) for words in value)
    except (TypeError, ValueError, AttributeError, InvalidInput):
        return False


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


class Registration(Model):
    """A device that asked for access under a username.

    `password_hash` and `public_key` hold its credentials; both are cleared when the registration is denied or expires.
    A granted registration is deleted with its user. If `window_opened_at` is set, the registration counts towards the
    limit of that unlock window once it is granted. It is null for a registration with an enrolment key.
    """

    id = peewee.CharField(32, primary_key=True)
    username = peewee.CharField(255, unique=True)
    user = peewee.ForeignKeyField(User, null=True, on_delete="CASCADE")
    kind = peewee.CharField(16)
    status = peewee.CharField(16, index=True)
    recorded_while_locked = peewee.BooleanField()
    client_ids = JsonField(accepts=_is_text_list)
    attempts = peewee.IntegerField()
    conflicts = peewee.IntegerField()
    first_seen = UtcDateTimeField()
    last_seen = UtcDateTimeField(index=True)
    password_hash = peewee.TextField(null=True)
    public_key = peewee.TextField(null=True)
    csr_fingerprint = peewee.CharField(64, null=True)
    address = peewee.CharField(64, null=True)
    pairing_code = peewee.CharField(16, null=True)
    context = JsonField(null=True, accepts=_is_object)
    requested_roles = JsonField(accepts=_is_text_list)
    requested_permissions = JsonField(accepts=_is_permission_list)
    starting_roles = JsonField(accepts=_is_text_list)
    decided_by = peewee.CharField(255, null=True)
    decided_at = UtcDateTimeField(null=True)
    reason = peewee.TextField(null=True)
    certificate = peewee.TextField(null=True)
    ca_certificate = peewee.TextField(null=True)
    skeleton = peewee.TextField(null=True, index=True)
    starting_permissions = JsonField(null=True, accepts=_is_permission_list)
    held_reason = peewee.CharField(32, null=True)
    conflict_addresses = JsonField(null=True, accepts=_is_text_list)
    window_opened_at = UtcDateTimeField(null=True, index=True)

    @property
    def damage(self) -> list[str]:
        """The names of the columns whose value cannot be read."""
        return [name for name, value in self.__data__.items() if isinstance(value, UnreadableJson)]

    class Meta:
        table_name = "registrations"


class Window(NumberedModel):
    """One row: start, end and limits of the latest unlock window, in the database's time."""

    opened_at = UtcDateTimeField(null=True)
    unlocked_until = UtcDateTimeField(null=True)
    max_registrations = peewee.IntegerField(null=True)
    username_pattern = peewee.CharField(255, null=True)
    roles = JsonField(accepts=_is_text_list)

    class Meta:
        table_name = "registry_window"


class Preauthorization(Model):
    """A grant for a username before its first contact. It is deleted when it is used."""

    id = peewee.CharField(32, primary_key=True)
    username = peewee.CharField(255, unique=True)
    roles = JsonField(accepts=_is_text_list)
    permissions = JsonField(accepts=_is_permission_list)
    csr_fingerprint = peewee.CharField(64, null=True)
    expires_at = UtcDateTimeField(null=True)
    created_by = peewee.CharField(255)
    created_at = UtcDateTimeField(index=True)
    secret_digest = peewee.CharField(64, null=True)
    held_reason = peewee.CharField(32, null=True)
    skeleton = peewee.TextField(null=True, index=True)

    @property
    def is_damaged(self) -> bool:
        """Whether its roles or permissions cannot be read. A damaged preauthorization is ignored."""
        return isinstance(self.roles, UnreadableJson) or isinstance(self.permissions, UnreadableJson)

    class Meta:
        table_name = "preauthorizations"


class EnrolmentKey(Model):
    """A secret for a limited number of registrations. Only its digest is stored."""

    id = peewee.CharField(32, primary_key=True)
    label = peewee.CharField(200)
    digest = peewee.CharField(64, unique=True)
    uses = peewee.IntegerField()
    used = peewee.IntegerField()
    roles = JsonField(accepts=_is_text_list)
    approval_required = peewee.BooleanField()
    expires_at = UtcDateTimeField(null=True)
    created_by = peewee.CharField(255)
    created_at = UtcDateTimeField()
    revoked_at = UtcDateTimeField(null=True)

    class Meta:
        table_name = "enrolment_keys"


class UnknownNameReport(Model):
    """Unknown usernames that one process saw in the last minute; written only while there are many."""

    source = peewee.CharField(32, primary_key=True)
    at = UtcDateTimeField(index=True)
    attempts = peewee.IntegerField()
    names = peewee.IntegerField()
    name_prefix = peewee.CharField(255, null=True)
    client_id_prefix = peewee.CharField(200, null=True)
    addresses = JsonField(accepts=_is_object)

    class Meta:
        table_name = "unknown_name_reports"


class RefusedName(Model):
    """A username with which devices tried to connect and that cannot register. `name` is at most its beginning."""

    name = peewee.CharField(255, primary_key=True)
    reason = peewee.CharField(200)
    client_id = peewee.CharField(200)
    attempts = peewee.BigIntegerField()
    first_seen = UtcDateTimeField()
    last_seen = UtcDateTimeField(index=True)

    class Meta:
        table_name = "refused_names"


ALL = (Registration, Window, Preauthorization, EnrolmentKey, UnknownNameReport, RefusedName)
