"""What the administrator's page shows of the past: lately denied requests, and decisions over time."""

import peewee as pw


def up(migrator, db):
    class User(db.Model):
        class Meta:
            table_name = "users"

    class Denial(db.Model):
        digest = pw.CharField(32, primary_key=True)
        user = pw.ForeignKeyField(User, on_delete="CASCADE")
        client_id = pw.CharField(200)
        topic = pw.TextField()
        whole = pw.BooleanField()
        access = pw.SmallIntegerField()
        reason = pw.CharField(32)
        count = pw.BigIntegerField()
        first_seen = pw.DateTimeField()
        last_seen = pw.DateTimeField(index=True)

        class Meta:
            table_name = "denials"

    class HistoryBucket(db.Model):
        at = pw.DateTimeField(primary_key=True)
        logins = pw.BigIntegerField()
        denied_logins = pw.BigIntegerField()
        accesses = pw.BigIntegerField()
        denials = pw.BigIntegerField()

        class Meta:
            table_name = "history"

    db.create_tables([Denial, HistoryBucket], safe=False)
