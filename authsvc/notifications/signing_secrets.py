"""The secrets that sign webhooks: 256 random bits, as `whsec_` and Base64 (Standard Webhooks).

Signing needs the secret itself, not a digest. Like the key of the certificate authority, it is stored encrypted if
`AUTHSVC_CA_KEY_PASSPHRASE` is set, and otherwise as it is.
"""

from __future__ import annotations

import base64
import secrets
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from authsvc.activity import audit
from authsvc.notifications.targets import DeliveryError
from authsvc.policy.actors import SERVICE
from authsvc.storage.models import Notification

_PREFIX = "whsec_"
_BYTES = 32
_SALT_BYTES = 16


def create() -> str:
    """Return a new secret."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_BYTES)).decode()


def encrypt(secret: str, passphrase: str | None) -> str:
    """Return the stored form of a secret: encrypted as `SALT.TOKEN` if there is a passphrase."""
    if not passphrase:
        return secret
    salt = secrets.token_bytes(_SALT_BYTES)
    return f"{salt.hex()}.{Fernet(_key(passphrase, salt)).encrypt(secret.encode()).decode()}"


def decrypt(stored: str, passphrase: str | None) -> str:
    """Return the secret of a stored form; `DeliveryError` if the passphrase does not fit."""
    if stored.startswith(_PREFIX):
        return stored
    salt, _, token = stored.partition(".")
    try:
        return Fernet(_key(passphrase or "", bytes.fromhex(salt))).decrypt(token.encode()).decode()
    except (InvalidToken, ValueError):
        raise DeliveryError("the secret cannot be decrypted; check AUTHSVC_CA_KEY_PASSPHRASE") from None


def encrypt_stored(passphrase: str | None) -> None:
    """Encrypt the secrets that were stored without a passphrase, inside the caller's transaction."""
    if not passphrase:
        return
    for row in Notification.select().where(Notification.secret.startswith(_PREFIX)):
        encrypted = encrypt(row.secret, passphrase)
        Notification.update(secret=encrypted).where(Notification.id == row.id).execute()
        audit.record(SERVICE, "notification.encrypt", f"notification:{row.name}")


@lru_cache(maxsize=256)  # about 50 ms each
def _key(passphrase: str, salt: bytes) -> bytes:
    derived = Scrypt(salt=salt, length=32, n=2**14, r=8, p=1).derive(passphrase.encode())
    return base64.urlsafe_b64encode(derived)
