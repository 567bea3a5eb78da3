"""The brokers whose plugin reports to this service, and the MQTT clients that are connected to them."""

import peewee as pw


def up(migrator, db):
    class Broker(db.Model):
        boot = pw.CharField(32, primary_key=True)
        name = pw.CharField(64, index=True)
        plugin_version = pw.CharField(32)
        generation = pw.BigIntegerField()
        started_at = pw.DateTimeField()
        reported_at = pw.DateTimeField(index=True)

        class Meta:
            table_name = "brokers"

    class LiveClient(db.Model):
        boot = pw.ForeignKeyField(Broker, column_name="boot", on_delete="CASCADE")
        number = pw.BigIntegerField()
        username = pw.CharField(64, index=True)
        client_id = pw.CharField(200, index=True)
        address = pw.CharField(64, null=True)
        protocol = pw.CharField(32)
        since = pw.DateTimeField()
        credential = pw.CharField(32)

        class Meta:
            table_name = "live_clients"
            primary_key = pw.CompositeKey("boot", "number")

    db.create_tables([Broker, LiveClient], safe=False)
