"""Notifications by webhook and mail, their outbox, and which expiries were announced."""

import peewee as pw


def up(migrator, db):
    class Notification(db.Model):
        id = pw.CharField(32, primary_key=True)
        name = pw.CharField(100, unique=True)
        url = pw.TextField()
        events = pw.TextField()
        enabled = pw.BooleanField()
        secret = pw.TextField(null=True)
        created_at = pw.DateTimeField()
        updated_at = pw.DateTimeField()

        class Meta:
            table_name = "notifications"

    class Delivery(db.Model):
        webhook_id = pw.CharField(40, unique=True)
        notification = pw.ForeignKeyField(Notification, on_delete="CASCADE")
        event = pw.CharField(32)
        content = pw.TextField()
        created_at = pw.DateTimeField(index=True)
        scheduled_at = pw.DateTimeField()
        due_at = pw.DateTimeField()
        attempts = pw.IntegerField()
        status = pw.CharField(16)
        error = pw.TextField(null=True)
        claim = pw.CharField(32, null=True)
        claimed_until = pw.DateTimeField(null=True)
        finished_at = pw.DateTimeField(null=True, index=True)

        class Meta:
            table_name = "deliveries"
            indexes = ((("status", "due_at"), False),)

    db.create_tables([Notification, Delivery], safe=False)
    for table in ("certificates", "authorities"):
        migrator.migrate(migrator.add_column(table, "announced_days", pw.IntegerField(null=True)))
