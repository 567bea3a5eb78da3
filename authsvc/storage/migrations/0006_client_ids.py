"""Allowed client ids of users and roles; those there are may go on with any."""


def up(migrator, db):
    # Not migrator.add_column: to make a column NOT NULL afterwards it would copy the whole table on SQLite.
    for table in ("users", "roles"):
        db.execute_sql(f"ALTER TABLE {table} ADD COLUMN client_ids TEXT NOT NULL DEFAULT '[]'")
