"""A version of their own for new API tokens, and the addresses from which names have signed in."""

import peewee as pw


def up(migrator, db):
    # Plain SQL: on SQLite the migrator rebuilds a table for a NOT NULL column, which deletes all rows that refer to it.
    integer = "INTEGER" if isinstance(db, pw.SqliteDatabase) else "BIGINT"
    db.execute_sql(f"ALTER TABLE policy_version ADD COLUMN token_version {integer} NOT NULL DEFAULT 0")
    db.execute_sql(f"ALTER TABLE tokens ADD COLUMN version {integer} NOT NULL DEFAULT 0")
    migrator.migrate(migrator.add_index("tokens", ("version",)))

    class SignInAddress(db.Model):
        name = pw.CharField(64)
        network = pw.CharField(64)
        last_seen = pw.DateTimeField(index=True)

        class Meta:
            table_name = "sign_in_addresses"
            primary_key = pw.CompositeKey("name", "network")

    db.create_tables([SignInAddress], safe=False)
