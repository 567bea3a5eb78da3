"""`authsvc import`: the commands, and what they print."""
