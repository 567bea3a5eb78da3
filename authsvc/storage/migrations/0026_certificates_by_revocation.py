"""All certificates have one of a few authorities: SQLite must not prefer that index to the one of revocations."""


def up(migrator, db):
    migrator.migrate(migrator.drop_index("certificates", "certificate_authority_id"))
