"""The keys that sign API tokens, shared by all replicas through the database.

The newest key signs and all keys verify, so that a rotation invalidates no token. `docs/adr/0003-tokens.md` says why
the keys may be stored in the database.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from authsvc.activity import audit
from authsvc.credentials import jwt
from authsvc.storage.changes import ChangeKind, policy_change
from authsvc.storage.models import SigningKeyRow

if TYPE_CHECKING:
    from authsvc.policy.actors import Actor


def rotate(actor: Actor) -> str:
    """Add a new key that signs from now on, and return its id; tokens signed by older keys stay valid."""
    key = jwt.new_signing_key()
    with policy_change() as announce:
        SigningKeyRow.create(kid=key.kid, secret=key.secret.hex(), created_at=datetime.now(UTC))
        audit.record(actor, "signing-key.create", f"signing-key:{key.kid}")
        announce(ChangeKind.SIGNING_KEYS, "")
    return key.kid


def exist() -> bool:
    """Return whether there is any key, which is true after the first start."""
    return SigningKeyRow.select().exists()
