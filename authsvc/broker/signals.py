"""Signals of the webhooks.

A receiver runs within the broker's request, so it must return at once and never raise.
"""

from __future__ import annotations

from blinker import Signal

unknown_username = Signal()
"""Sent for a CONNECT with an unknown username: `send(None, username=, password=, client_id=)`.

The username is any text. The password is in clear text; a receiver may store only its hash.
"""
