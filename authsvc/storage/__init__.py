"""The database: connection, tables, migrations, backup and the policy cache. Imports nothing from HTTP or use cases."""
