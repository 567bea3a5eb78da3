"""Signing in and out, and the page of the own account."""
