"""Users, roles, permissions, tokens, signing keys, the policy version and the audit trail."""

import peewee as pw

APPEND_ONLY_SQLITE = """
CREATE TRIGGER audit_events_keep_{event} BEFORE {event} ON audit_events
BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END
"""

APPEND_ONLY_POSTGRESQL = """
CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'the audit trail is append-only'; END $$;
CREATE TRIGGER audit_events_keep BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events
FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change()
"""


def up(migrator, db):
    class User(db.Model):
        username = pw.CharField(64, unique=True)
        password_hash = pw.TextField(null=True)
        enabled = pw.BooleanField()
        grant_types = pw.TextField()
        created_at = pw.DateTimeField()
        updated_at = pw.DateTimeField()

        class Meta:
            table_name = "users"

    class Role(db.Model):
        name = pw.CharField(64, unique=True)
        description = pw.TextField()
        built_in = pw.BooleanField()
        created_at = pw.DateTimeField()
        updated_at = pw.DateTimeField()

        class Meta:
            table_name = "roles"

    class UserRole(db.Model):
        user = pw.ForeignKeyField(User, on_delete="CASCADE")
        role = pw.ForeignKeyField(Role, on_delete="RESTRICT")

        class Meta:
            table_name = "user_roles"
            primary_key = pw.CompositeKey("user", "role")

    class PermissionRow(db.Model):
        user = pw.ForeignKeyField(User, null=True, on_delete="CASCADE")
        role = pw.ForeignKeyField(Role, null=True, on_delete="CASCADE")
        context = pw.CharField(16)
        operation = pw.CharField(16)
        resource = pw.TextField()
        effect = pw.CharField(16)

        class Meta:
            table_name = "permissions"
            constraints = [pw.Check("(user_id IS NULL) <> (role_id IS NULL)")]

    class Token(db.Model):
        id = pw.CharField(32, primary_key=True)
        user = pw.ForeignKeyField(User, on_delete="CASCADE")
        digest = pw.CharField(64, unique=True)
        label = pw.CharField(200)
        created_at = pw.DateTimeField()
        expires_at = pw.DateTimeField()
        last_used_at = pw.DateTimeField(null=True)

        class Meta:
            table_name = "tokens"

    class SigningKeyRow(db.Model):
        kid = pw.CharField(32, unique=True)
        secret = pw.CharField(64)
        created_at = pw.DateTimeField()

        class Meta:
            table_name = "signing_keys"

    class PolicyVersion(db.Model):
        version = pw.BigIntegerField()

        class Meta:
            table_name = "policy_version"

    class PolicyChange(db.Model):
        version = pw.BigIntegerField(index=True)
        kind = pw.CharField(16)
        name = pw.CharField(64)

        class Meta:
            table_name = "policy_changes"

    class AuditEvent(db.Model):
        at = pw.DateTimeField(index=True)
        actor = pw.CharField(64, index=True)
        via = pw.CharField(16)
        address = pw.CharField(64, null=True)
        request_id = pw.CharField(64, null=True)
        action = pw.CharField(64, index=True)
        target = pw.CharField(200, index=True)
        before = pw.TextField(null=True)
        after = pw.TextField(null=True)

        class Meta:
            table_name = "audit_events"

    db.create_tables(
        [User, Role, UserRole, PermissionRow, Token, SigningKeyRow, PolicyVersion, PolicyChange, AuditEvent],
        safe=False,
    )
    PolicyVersion.create(version=1)
    _make_append_only(db)


def _make_append_only(db):
    if isinstance(db, pw.SqliteDatabase):
        for event in ("update", "delete"):
            db.execute_sql(APPEND_ONLY_SQLITE.format(event=event))
    else:
        db.execute_sql(APPEND_ONLY_POSTGRESQL)
