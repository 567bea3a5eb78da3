"""The registry's tables."""

from __future__ import annotations

import peewee

from authsvc.storage.fields import JsonField, Model, Numbered, UtcDateTimeField
from authsvc.storage.models import User


class Registration(Model):
    """One stranger by name. `password_hash` and `public_key` are what it proved to hold; both go when it is refused.

    A granted one goes with the user that came of it.
    """

    id = peewee.CharField(32, primary_key=True)
    username = peewee.CharField(64, unique=True)
    user = peewee.ForeignKeyField(User, null=True, on_delete="CASCADE")
    kind = peewee.CharField(16)
    status = peewee.CharField(16, index=True)
    recorded_while_locked = peewee.BooleanField()
    client_ids = JsonField()
    attempts = peewee.IntegerField()
    conflicts = peewee.IntegerField()
    first_seen = UtcDateTimeField()
    last_seen = UtcDateTimeField(index=True)
    password_hash = peewee.TextField(null=True)
    public_key = peewee.TextField(null=True)
    csr_fingerprint = peewee.CharField(64, null=True)
    address = peewee.CharField(64, null=True)
    pairing_code = peewee.CharField(16, null=True)
    context = JsonField(null=True)
    requested_roles = JsonField()
    requested_permissions = JsonField()
    starting_roles = JsonField()
    decided_by = peewee.CharField(64, null=True)
    decided_at = UtcDateTimeField(null=True)
    reason = peewee.TextField(null=True)
    certificate = peewee.TextField(null=True)
    ca_certificate = peewee.TextField(null=True)
    skeleton = peewee.TextField(null=True, index=True)
    starting_permissions = JsonField(null=True)
    held_reason = peewee.CharField(32, null=True)
    conflict_addresses = JsonField(null=True)

    class Meta:
        table_name = "registrations"


class Window(Numbered):
    """One row: until when the registry is unlocked, by the database's clock, and for whom."""

    unlocked_until = UtcDateTimeField(null=True)
    max_registrations = peewee.IntegerField(null=True)
    username_pattern = peewee.CharField(64, null=True)
    roles = JsonField()
    recorded = peewee.IntegerField()

    class Meta:
        table_name = "registry_window"


class Preauthorization(Model):
    """A grant given before its name made contact; good for one."""

    id = peewee.CharField(32, primary_key=True)
    username = peewee.CharField(64, unique=True)
    roles = JsonField()
    permissions = JsonField()
    csr_fingerprint = peewee.CharField(64, null=True)
    expires_at = UtcDateTimeField(null=True)
    created_by = peewee.CharField(64)
    created_at = UtcDateTimeField(index=True)
    secret_digest = peewee.CharField(64, null=True)
    held_reason = peewee.CharField(32, null=True)

    class Meta:
        table_name = "preauthorizations"


class EnrolmentKey(Model):
    """A secret that vouches for so many registrations; known by its digest alone."""

    id = peewee.CharField(32, primary_key=True)
    label = peewee.CharField(200)
    digest = peewee.CharField(64, unique=True)
    uses = peewee.IntegerField()
    used = peewee.IntegerField()
    roles = JsonField()
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
    addresses = JsonField()

    class Meta:
        table_name = "unknown_name_reports"


ALL = (Registration, Window, Preauthorization, EnrolmentKey, UnknownNameReport)
