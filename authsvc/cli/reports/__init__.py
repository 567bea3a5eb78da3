"""Commands that show what happened and how the service runs; they change nothing."""
