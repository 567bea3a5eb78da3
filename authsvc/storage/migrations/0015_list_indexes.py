"""Indexes for the lists of denials and users: by reason, and by the times of creation, change and last login."""


def up(migrator, db):
    migrator.migrate(
        migrator.add_index("denials", ("reason", "last_seen")),
        migrator.add_index("users", ("created_at",)),
        migrator.add_index("users", ("updated_at",)),
    )
