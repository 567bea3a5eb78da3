"""Usernames of up to 255 characters, and the names that cannot register."""

import peewee as pw

COLUMNS = {
    "users": ["username"],
    "policy_changes": ["name"],
    "audit_events": ["actor"],
    "certificates": ["username"],
    "sightings": ["username"],
    "session_endings": ["username"],
    "live_clients": ["username"],
    "registrations": ["username", "decided_by"],
    "registry_window": ["username_pattern"],
    "preauthorizations": ["username", "created_by"],
    "enrolment_keys": ["created_by"],
    "unknown_name_reports": ["name_prefix"],
}
# These hold a username and a word before it.
LONGER = {"audit_events": "target", "attempts": "key"}


def up(migrator, db):
    if not isinstance(db, pw.SqliteDatabase):  # SQLite knows no lengths
        for table, columns in COLUMNS.items():
            for column in columns:
                db.execute_sql(f"ALTER TABLE {table} ALTER COLUMN {column} TYPE VARCHAR(255)")
        for table, column in LONGER.items():
            db.execute_sql(f"ALTER TABLE {table} ALTER COLUMN {column} TYPE VARCHAR(300)")

    class RefusedName(db.Model):
        name = pw.CharField(255, primary_key=True)
        reason = pw.CharField(200)
        client_id = pw.CharField(200)
        attempts = pw.BigIntegerField()
        first_seen = pw.DateTimeField()
        last_seen = pw.DateTimeField(index=True)

        class Meta:
            table_name = "refused_names"

    db.create_tables([RefusedName], safe=False)
