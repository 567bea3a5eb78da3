"""Who is signed in at the administrator's page."""

import peewee as pw


def up(migrator, db):
    class User(db.Model):
        class Meta:
            table_name = "users"

    class Token(db.Model):
        id = pw.CharField(32, primary_key=True)

        class Meta:
            table_name = "tokens"

    class BrowserSession(db.Model):
        id = pw.CharField(32, primary_key=True)
        user = pw.ForeignKeyField(User, on_delete="CASCADE")
        token = pw.ForeignKeyField(Token, null=True, on_delete="CASCADE")
        digest = pw.CharField(64, unique=True)
        created_at = pw.DateTimeField()
        last_seen_at = pw.DateTimeField()
        expires_at = pw.DateTimeField(index=True)
        address = pw.CharField(64, null=True)
        browser = pw.CharField(200)

        class Meta:
            table_name = "browser_sessions"

    db.create_tables([BrowserSession], safe=False)
