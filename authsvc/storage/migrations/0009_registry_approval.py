"""What approving a registration looks at: look-alike names, bound preauthorizations, and why one is held."""

import re
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
        "_": "-",
        ".": "-",
    }
)
BATCH = 50


def up(migrator, db):
    class User(db.Model):
        username = pw.CharField(64, unique=True)
        skeleton = pw.TextField(null=True, index=True)

        class Meta:
            table_name = "users"

    class Registration(db.Model):
        id = pw.CharField(32, primary_key=True)
        username = pw.CharField(64, unique=True)
        skeleton = pw.TextField(null=True, index=True)

        class Meta:
            table_name = "registrations"

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
    for model in (User, Registration):
        rows = list(model.select(model.id, model.username))
        for row in rows:
            row.skeleton = skeleton(row.username)
        model.bulk_update(rows, [model.skeleton], batch_size=BATCH)


def skeleton(name):
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return re.sub(r"-+", "-", folded.translate(LOOKS_LIKE))
