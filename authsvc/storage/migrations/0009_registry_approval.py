"""What approving a registration looks at: look-alike names, bound preauthorizations, and why one is held."""

import unicodedata

import peewee as pw

# `usernames.skeleton` as it was when this migration was written.
LOOKS_LIKE = str.maketrans(
    {
        "0": "o",
        "1": "l",
        "i": "l",
        "|": "l",
        "2": "z",
        "5": "s",
        "8": "b",
        "9": "g",
        "m": "rn",
        "w": "vv",
        "d": "cl",
        "q": "g",
        "-": "",
        "_": "",
        ".": "",
    }
)


def up(migrator, db):
    migrator.migrate(
        migrator.add_column("users", "skeleton", pw.TextField(null=True, index=True)),
        migrator.add_column("registrations", "skeleton", pw.TextField(null=True, index=True)),
        migrator.add_column("registrations", "starting_permissions", pw.TextField(null=True)),
        migrator.add_column("registrations", "held_reason", pw.CharField(32, null=True)),
        migrator.add_column("registrations", "conflict_addresses", pw.TextField(null=True)),
        migrator.add_column("preauthorizations", "secret_digest", pw.CharField(64, null=True)),
        migrator.add_column("preauthorizations", "held_reason", pw.CharField(32, null=True)),
        migrator.add_index("preauthorizations", ("created_at",)),
    )
    for table in ("users", "registrations"):
        names = db.execute_sql(f"SELECT id, username FROM {table}").fetchall()  # noqa: S608
        statement = f"UPDATE {table} SET skeleton = {db.param} WHERE id = {db.param}"  # noqa: S608
        db.cursor().executemany(statement, [(skeleton(name), key) for key, name in names])


def skeleton(name):
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return folded.translate(LOOKS_LIKE)
