"""Orders to end MQTT sessions: one open order for each user, claimed for a time, and tried again until it is done."""

import peewee as pw


def up(migrator, db):
    class Earlier(db.Model):
        username = pw.CharField(64)
        cause = pw.CharField(64)
        requested_at = pw.DateTimeField()
        finished_at = pw.DateTimeField(null=True)

        class Meta:
            table_name = "session_endings"

    # What was done is in the audit trail; what is still to be done is carried over.
    waiting = {row.username: row for row in Earlier.select().where(Earlier.finished_at.is_null()).order_by(Earlier.id)}
    db.drop_tables([Earlier])

    class SessionEnding(db.Model):
        username = pw.CharField(64)
        cause = pw.CharField(64)
        requested_at = pw.DateTimeField()
        due_at = pw.DateTimeField()
        attempts = pw.IntegerField()
        claim = pw.CharField(32, null=True)
        claimed_until = pw.DateTimeField(null=True)
        finished_at = pw.DateTimeField(null=True)
        ended = pw.TextField()
        failed = pw.TextField()

        class Meta:
            table_name = "session_endings"

    open_orders = SessionEnding.finished_at.is_null()
    SessionEnding.add_index(SessionEnding.username, name="session_endings_open", unique=True, where=open_orders)
    db.create_tables([SessionEnding], safe=False)
    for row in waiting.values():
        times = {"requested_at": row.requested_at, "due_at": row.requested_at}
        SessionEnding.create(username=row.username, cause=row.cause, attempts=0, ended="[]", failed="[]", **times)
