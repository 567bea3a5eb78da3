"""Where users come from, and indexes for the lists of denials and users."""


def up(migrator, db):
    # Plain SQL: on SQLite the migrator rebuilds a table for a NOT NULL column, which deletes all rows that refer to it.
    db.execute_sql("ALTER TABLE users ADD COLUMN origin VARCHAR(16) NOT NULL DEFAULT 'administrator'")
    db.execute_sql(
        "UPDATE users SET origin = 'registration' WHERE id IN "
        "(SELECT user_id FROM registrations WHERE status = 'granted')"
    )
    migrator.migrate(
        migrator.add_index("denials", ("reason", "last_seen")),
        migrator.add_index("users", ("created_at",)),
        migrator.add_index("users", ("updated_at",)),
    )
