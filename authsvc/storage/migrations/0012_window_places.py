"""Which unlock window a registration takes a place in, so that a window counts what was granted and no attempts."""

from datetime import UTC, datetime

import peewee as pw


def up(migrator, db):
    migrator.migrate(
        migrator.add_column("registry_window", "opened_at", pw.DateTimeField(null=True)),
        migrator.drop_column("registry_window", "recorded"),
        migrator.add_column("registrations", "window_opened_at", pw.DateTimeField(null=True, index=True)),
    )
    # Earlier versions did not store when a window was opened. It counts from now on.
    now = datetime.now(UTC).replace(tzinfo=None)
    was_opened = "unlocked_until IS NOT NULL OR max_registrations IS NOT NULL"
    db.execute_sql(f"UPDATE registry_window SET opened_at = {db.param} WHERE {was_opened}", (now,))  # noqa: S608
