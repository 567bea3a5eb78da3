"""Second factors with their recovery codes, and how each browser session began."""

import peewee as pw


def up(migrator, db):
    class User(db.Model):
        class Meta:
            table_name = "users"

    class SecondFactor(db.Model):
        user = pw.ForeignKeyField(User, primary_key=True, on_delete="CASCADE")
        secret = pw.TextField()
        created_at = pw.DateTimeField()
        confirmed_at = pw.DateTimeField(null=True)
        last_step = pw.BigIntegerField()
        wrong_codes = pw.IntegerField()
        wrong_at = pw.DateTimeField(null=True)

        class Meta:
            table_name = "second_factors"

    class RecoveryCode(db.Model):
        user = pw.ForeignKeyField(User, on_delete="CASCADE")
        salt = pw.CharField(32)
        digest = pw.CharField(64)

        class Meta:
            table_name = "recovery_codes"

    db.create_tables([SecondFactor, RecoveryCode], safe=False)
    # Plain SQL: on SQLite the migrator rebuilds a table for a NOT NULL column.
    db.execute_sql("ALTER TABLE browser_sessions ADD COLUMN signed_in_by VARCHAR(16) NOT NULL DEFAULT 'password'")
    db.execute_sql("UPDATE browser_sessions SET signed_in_by = 'token' WHERE token_id IS NOT NULL")
