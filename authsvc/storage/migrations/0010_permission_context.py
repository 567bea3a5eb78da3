"""Finds the few rights over the service among many permissions on topics."""


def up(migrator, db):
    migrator.migrate(migrator.add_index("permissions", ("context",)))
