"""What the broker path tells whoever listens; it knows no listener and waits for none.

A receiver runs inside the broker's request: it must return at once and never raise.
"""

from __future__ import annotations

from blinker import Signal

unknown_username = Signal()
"""Sent when a CONNECT names a username that nobody has: `send(None, username=, password=, client_id=)`.

The username is well formed; the password is what the client offered, and must not be kept but as a hash.
"""
