"""Indexes for the order of long lists, also if an import has given many rows the same time."""


def up(migrator, db):
    migrator.migrate(
        migrator.drop_index("users", "users_created_at"),
        migrator.drop_index("users", "users_updated_at"),
        migrator.drop_index("certificates", "certificate_not_after"),
        migrator.add_index("users", ("created_at", "username")),
        migrator.add_index("users", ("updated_at", "username")),
        migrator.add_index("certificates", ("not_after", "serial")),
    )
