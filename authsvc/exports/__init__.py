"""Lists as CSV and JSON, row by row, so that no list is in memory as a whole."""
