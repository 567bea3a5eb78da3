"""Many changes in one request: what policy files, imports and batches of users share, and the batches."""
