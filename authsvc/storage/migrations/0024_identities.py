"""Accounts at OpenID providers and in directories, and the roles that their groups give."""

import peewee as pw


def up(migrator, db):
    class User(db.Model):
        class Meta:
            table_name = "users"

    class Role(db.Model):
        class Meta:
            table_name = "roles"

    class UserRole(db.Model):
        user = pw.ForeignKeyField(User, on_delete="CASCADE")
        role = pw.ForeignKeyField(Role, on_delete="RESTRICT")
        from_groups = pw.BooleanField(default=False, constraints=[pw.SQL("DEFAULT FALSE")])

        class Meta:
            table_name = "user_roles"
            primary_key = pw.CompositeKey("user", "role", "from_groups")

    class Identity(db.Model):
        user = pw.ForeignKeyField(User, primary_key=True, on_delete="CASCADE")
        issuer = pw.CharField(500)
        subject = pw.CharField(255)
        confirmed_at = pw.DateTimeField()
        confirmed_until = pw.DateTimeField()

        class Meta:
            table_name = "identities"
            indexes = ((("issuer", "subject"), True),)

    # A copy, because SQLite cannot change a primary key.
    db.execute_sql("CREATE TABLE user_roles_before AS SELECT user_id, role_id FROM user_roles")
    db.execute_sql("DROP TABLE user_roles")
    db.create_tables([UserRole, Identity], safe=False)
    db.execute_sql("INSERT INTO user_roles (user_id, role_id) SELECT user_id, role_id FROM user_roles_before")
    db.execute_sql("DROP TABLE user_roles_before")
    migrator.migrate(migrator.add_column("browser_sessions", "id_token", pw.TextField(null=True)))
