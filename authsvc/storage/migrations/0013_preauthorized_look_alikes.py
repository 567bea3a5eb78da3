"""The form of preauthorized names by which look-alike names are found, as users and registrations have it."""

import runpy
from pathlib import Path

import peewee as pw

# The one with which `users` and `registrations` were filled.
SKELETON = runpy.run_path(str(Path(__file__).with_name("0009_registry_approval.py")))["skeleton"]


def up(migrator, db):
    migrator.migrate(migrator.add_column("preauthorizations", "skeleton", pw.TextField(null=True, index=True)))
    names = db.execute_sql("SELECT id, username FROM preauthorizations").fetchall()
    statement = f"UPDATE preauthorizations SET skeleton = {db.param} WHERE id = {db.param}"  # noqa: S608
    db.cursor().executemany(statement, [(SKELETON(name), key) for key, name in names])
