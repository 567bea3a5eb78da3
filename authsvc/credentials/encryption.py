"""The stored form of secrets that the service needs as they are, so that a digest would not do.

With `AUTHSVC_CA_KEY_PASSPHRASE` they are encrypted by a key derived from it (scrypt, Fernet), otherwise stored as they
are. No such secret contains a dot, which marks the encrypted form `SALT.TOKEN`.
"""

from __future__ import annotations

import base64
import secrets
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

_SALT_BYTES = 16


def encrypt(secret: str, passphrase: str | None) -> str:
    """Return the stored form of a secret: encrypted if there is a passphrase."""
    if not passphrase:
        return secret
    salt = secrets.token_bytes(_SALT_BYTES)
    return f"{salt.hex()}.{Fernet(_key(passphrase, salt)).encrypt(secret.encode()).decode()}"


def is_encrypted(stored: str) -> bool:
    return "." in stored


def decrypt(stored: str, passphrase: str | None) -> str:
    """Return the secret of a stored form; `ValueError` if the passphrase does not fit or the text is damaged."""
    if not is_encrypted(stored):
        return stored
    salt, _, token = stored.partition(".")
    try:
        return Fernet(_key(passphrase or "", bytes.fromhex(salt))).decrypt(token.encode()).decode()
    except (InvalidToken, ValueError):
        raise ValueError("the secret cannot be decrypted; check AUTHSVC_CA_KEY_PASSPHRASE") from None


@lru_cache(maxsize=256)  # about 50 ms each
def _key(passphrase: str, salt: bytes) -> bytes:
    derived = Scrypt(salt=salt, length=32, n=2**14, r=8, p=1).derive(passphrase.encode())
    return base64.urlsafe_b64encode(derived)
