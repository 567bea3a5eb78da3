"""What the command line prints: help, tables, suggestions."""
