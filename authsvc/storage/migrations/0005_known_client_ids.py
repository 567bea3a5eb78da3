"""Which client ids a user has logged in with; of those that were seen before, all are taken for such."""

import peewee as pw
from playhouse.migrate import migrate


def up(migrator, db):
    # False by default: an older version that still runs writes rows without this column, also for unproved client ids.
    logged_in = pw.BooleanField(default=False, constraints=[pw.SQL("DEFAULT FALSE")])
    migrate(migrator.add_column("sightings", "logged_in", logged_in))
    db.execute_sql("UPDATE sightings SET logged_in = TRUE")
