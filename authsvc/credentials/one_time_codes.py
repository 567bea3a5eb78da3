"""The codes of a second factor: those of an authenticator app (TOTP, RFC 6238) and recovery codes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from typing import TYPE_CHECKING

import pyotp
from pyotp.exceptions import OTPVerificationError

if TYPE_CHECKING:
    from datetime import datetime

ISSUER = "authsvc"
RECOVERY_CODES = 10
STEP_SECONDS = 30
_DRIFT = 1  # steps that the clock of a phone may be fast or slow
_SHOWN_NAME = 64  # characters of up to 12 bytes each in a URI
_RECOVERY_BYTES = 10  # 16 characters of Base32
_SEPARATORS = re.compile(r"[\s-]")
_CODE = re.compile(r"[0-9]{6}", re.ASCII)


def new_secret() -> str:
    """Return a new secret for an authenticator app: 160 random bits in Base32."""
    return pyotp.random_base32()


def uri(secret: str, username: str) -> str:
    """Return the `otpauth://` URI of a secret, which authenticator apps read from a QR code.

    Apps only show the name. It is cut off where a QR code, which has at most 2,953 bytes, becomes hard to scan.
    """
    return pyotp.TOTP(secret).provisioning_uri(name=username[:_SHOWN_NAME], issuer_name=ISSUER)


def normalized(given: str) -> str:
    """Return a code as it was typed without spaces and hyphens, in lower case."""
    return _SEPARATORS.sub("", given).lower()


def is_app_code(normalized_code: str) -> bool:
    """Return whether this has the form of an app's code; anything else can only be a recovery code."""
    return _CODE.fullmatch(normalized_code) is not None


def step_of(secret: str, code: str, now: datetime) -> int | None:
    """Return the time step, of 30 seconds, of an app's code; None if it is not of this step or one beside it."""
    try:
        return pyotp.TOTP(secret, interval=STEP_SECONDS).verify_and_get_timecode(
            code, for_time=now, valid_window=_DRIFT
        )
    except OTPVerificationError:
        return None


def new_recovery_codes() -> list[str]:
    """Return new recovery codes, of 80 random bits each."""
    found = [base64.b32encode(secrets.token_bytes(_RECOVERY_BYTES)).decode().lower() for _ in range(RECOVERY_CODES)]
    return ["-".join(re.findall("....", code)) for code in found]


def recovery_hash(code: str, salt: str) -> str:
    """Return the stored form of a recovery code. One SHA-256 is enough, because the code is random."""
    return hashlib.sha256(f"{salt} {normalized(code)}".encode("utf-8", "replace")).hexdigest()


def is_recovery_code(code: str, salt: str, stored_hash: str) -> bool:
    return hmac.compare_digest(recovery_hash(code, salt), stored_hash)
