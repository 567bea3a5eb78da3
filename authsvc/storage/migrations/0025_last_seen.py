"""When each user was last seen, as a column with an index."""

from authsvc.storage.database import is_sqlite

_SEEN = """
UPDATE users SET last_seen_at = (
    SELECT MAX(at) FROM (
        SELECT seen_at AS at FROM sightings WHERE logged_in AND sightings.username = users.username
        UNION ALL
        SELECT last_used_at FROM tokens WHERE tokens.user_id = users.id
        UNION ALL
        SELECT last_seen_at FROM browser_sessions WHERE browser_sessions.user_id = users.id
    ) AS found
)
"""


def up(migrator, db):
    # Plain SQL, because on SQLite the migrator copies a whole table.
    kind = "DATETIME" if is_sqlite() else "TIMESTAMP"
    db.execute_sql(f"ALTER TABLE users ADD COLUMN last_seen_at {kind}")
    db.execute_sql(_SEEN)
    # In SQLite a missing value is the smallest already.
    order = "" if is_sqlite() else "NULLS FIRST"
    db.execute_sql(f"CREATE INDEX users_last_seen_at_username ON users (last_seen_at {order}, username)")
