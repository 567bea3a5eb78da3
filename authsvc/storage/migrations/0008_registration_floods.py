"""Where a registration came from, and what each process counts of unknown usernames."""

import peewee as pw


def up(migrator, db):
    class UnknownNameReport(db.Model):
        source = pw.CharField(32, primary_key=True)
        at = pw.DateTimeField(index=True)
        attempts = pw.IntegerField()
        names = pw.IntegerField()
        name_prefix = pw.CharField(64, null=True)
        client_id_prefix = pw.CharField(200, null=True)
        addresses = pw.TextField()

        class Meta:
            table_name = "unknown_name_reports"

    migrator.migrate(migrator.add_column("registrations", "address", pw.CharField(64, null=True)))
    db.create_tables([UnknownNameReport], safe=False)
