"""Imports: the users and rules of Mosquitto's files, of dynamic-security and of go-auth."""
