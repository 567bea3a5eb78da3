"""The secrets that sign webhooks: 256 random bits, as `whsec_` and Base64 (Standard Webhooks).

Signing needs the secret itself, not a digest. Like the key of the certificate authority, it is stored encrypted if
`AUTHSVC_CA_KEY_PASSPHRASE` is set, and otherwise as it is.
"""

from __future__ import annotations

import base64
import secrets

from authsvc.activity import audit
from authsvc.credentials import encryption
from authsvc.notifications.targets import DeliveryError
from authsvc.policy.actors import SERVICE
from authsvc.storage.models import Notification

_PREFIX = "whsec_"
_BYTES = 32


def create() -> str:
    """Return a new secret."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_BYTES)).decode()


def decrypt(stored: str, passphrase: str | None) -> str:
    """Return the secret of a stored form; `DeliveryError` if the passphrase does not fit."""
    try:
        return encryption.decrypt(stored, passphrase)
    except ValueError as error:
        raise DeliveryError(str(error)) from None


def encrypt_stored(passphrase: str | None) -> None:
    """Encrypt the secrets that were stored without a passphrase, inside the caller's transaction."""
    if not passphrase:
        return
    for row in Notification.select().where(Notification.secret.startswith(_PREFIX)):
        encrypted = encryption.encrypt(row.secret, passphrase)
        Notification.update(secret=encrypted).where(Notification.id == row.id).execute()
        audit.record(SERVICE, "notification.encrypt", f"notification:{row.name}")
