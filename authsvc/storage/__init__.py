"""Where things are kept: the database, its models and its migrations. Knows nothing of rules or HTTP."""
