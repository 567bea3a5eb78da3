"""Which client ids a user has logged in with; of those that were seen before, all are taken for such."""

import peewee as pw
from playhouse.migrate import migrate


def up(migrator, db):
    logged_in = pw.BooleanField(default=True, constraints=[pw.SQL("DEFAULT TRUE")])
    migrate(migrator.add_column("sightings", "logged_in", logged_in))
