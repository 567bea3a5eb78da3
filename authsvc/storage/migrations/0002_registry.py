"""The client registry, the certificate authority, and what is known of clients' attempts and sessions."""

import peewee as pw


def up(migrator, db):
    class User(db.Model):
        class Meta:
            table_name = "users"

    class Registration(db.Model):
        id = pw.CharField(32, primary_key=True)
        username = pw.CharField(64, unique=True)
        user = pw.ForeignKeyField(User, null=True, on_delete="CASCADE")
        kind = pw.CharField(16)
        status = pw.CharField(16, index=True)
        recorded_while_locked = pw.BooleanField()
        client_ids = pw.TextField()
        attempts = pw.IntegerField()
        conflicts = pw.IntegerField()
        first_seen = pw.DateTimeField()
        last_seen = pw.DateTimeField(index=True)
        password_hash = pw.TextField(null=True)
        public_key = pw.TextField(null=True)
        csr_fingerprint = pw.CharField(64, null=True)
        pairing_code = pw.CharField(16, null=True)
        context = pw.TextField(null=True)
        requested_roles = pw.TextField()
        requested_permissions = pw.TextField()
        starting_roles = pw.TextField()
        decided_by = pw.CharField(64, null=True)
        decided_at = pw.DateTimeField(null=True)
        reason = pw.TextField(null=True)
        certificate = pw.TextField(null=True)
        ca_certificate = pw.TextField(null=True)

        class Meta:
            table_name = "registrations"

    class Window(db.Model):
        unlocked_until = pw.DateTimeField(null=True)
        max_registrations = pw.IntegerField(null=True)
        username_pattern = pw.CharField(64, null=True)
        roles = pw.TextField()
        recorded = pw.IntegerField()

        class Meta:
            table_name = "registry_window"

    class Preauthorization(db.Model):
        id = pw.CharField(32, primary_key=True)
        username = pw.CharField(64, unique=True)
        roles = pw.TextField()
        permissions = pw.TextField()
        csr_fingerprint = pw.CharField(64, null=True)
        expires_at = pw.DateTimeField(null=True)
        created_by = pw.CharField(64)
        created_at = pw.DateTimeField()

        class Meta:
            table_name = "preauthorizations"

    class EnrolmentKey(db.Model):
        id = pw.CharField(32, primary_key=True)
        label = pw.CharField(200)
        digest = pw.CharField(64, unique=True)
        uses = pw.IntegerField()
        used = pw.IntegerField()
        roles = pw.TextField()
        approval_required = pw.BooleanField()
        expires_at = pw.DateTimeField(null=True)
        created_by = pw.CharField(64)
        created_at = pw.DateTimeField()
        revoked_at = pw.DateTimeField(null=True)

        class Meta:
            table_name = "enrolment_keys"

    class Authority(db.Model):
        certificate = pw.TextField()
        chain = pw.TextField()
        key = pw.TextField()
        created_at = pw.DateTimeField()
        retires_at = pw.DateTimeField(null=True)
        crl = pw.TextField(null=True)
        crl_number = pw.IntegerField()
        crl_entries = pw.CharField(64)
        crl_this_update = pw.DateTimeField(null=True)
        crl_next_update = pw.DateTimeField(null=True)
        crl_policy_version = pw.BigIntegerField()

        class Meta:
            table_name = "authorities"

    class Certificate(db.Model):
        serial = pw.CharField(40, primary_key=True)
        authority = pw.ForeignKeyField(Authority, on_delete="RESTRICT")
        user = pw.ForeignKeyField(User, null=True, on_delete="SET NULL")
        username = pw.CharField(64, index=True)
        fingerprint = pw.CharField(64, index=True)
        certificate = pw.TextField()
        not_before = pw.DateTimeField()
        not_after = pw.DateTimeField(index=True)
        created_at = pw.DateTimeField()
        revoked_at = pw.DateTimeField(null=True, index=True)
        reason = pw.CharField(32, null=True)

        class Meta:
            table_name = "certificates"

    class Attempt(db.Model):
        key = pw.CharField(200, primary_key=True)
        since = pw.DateTimeField(index=True)
        count = pw.IntegerField()

        class Meta:
            table_name = "attempts"

    class Sighting(db.Model):
        username = pw.CharField(64)
        client_id = pw.CharField(200)
        seen_at = pw.DateTimeField(index=True)

        class Meta:
            table_name = "sightings"
            primary_key = pw.CompositeKey("username", "client_id")

    class SessionEnding(db.Model):
        username = pw.CharField(64)
        cause = pw.CharField(64)
        requested_at = pw.DateTimeField()
        claimed_at = pw.DateTimeField(null=True, index=True)
        finished_at = pw.DateTimeField(null=True)
        ended = pw.TextField(null=True)
        failed = pw.TextField(null=True)

        class Meta:
            table_name = "session_endings"

    tables = [Registration, Window, Preauthorization, EnrolmentKey, Authority, Certificate, Attempt]
    db.create_tables([*tables, Sighting, SessionEnding], safe=False)
    Window.create(unlocked_until=None, max_registrations=None, username_pattern=None, roles="[]", recorded=0)
