"""Password hashes of this service and of other systems: parse, limit their cost, normalise, verify.

    password_hash = parse("$7$101$KCcqFAWx...$IGalIX9d...")   # UnusableHash says why it cannot be accepted
    password_hash.text                                        # what to store; parse(text) gives the same hash again
    password_hash.verify(b"secret")                           # True or False, in constant time

| accepted by `parse` | stored as |
|---|---|
| bcrypt `$2a$`, `$2b$`, `$2y$` | as it is |
| Mosquitto `$6$SALT$HASH` and `$7$ITERATIONS$SALT$HASH` | the same, standard Base64 with padding |
| go-auth `PBKDF2$sha512$ITERATIONS$SALT$HASH`, also sha256 | `$pbkdf2-sha512$i=ITERATIONS,l=BYTES$SALT$HASH` |
| `$pbkdf2-sha512$i=ITERATIONS,l=BYTES$SALT$HASH`, also sha256 | the same, standard Base64 without padding |
| `$argon2id$v=19$m=KIB,t=PASSES,p=LANES$SALT$HASH` | the same, standard Base64 without padding |
| `$generated-sha256$SALT$HASH`, made by `hash_generated` | the same |
| `$rehashed$VERSION$2b$...`, made by `rehash` | the same |

go-auth uses the text of a salt instead of its decoded bytes if its option `hasher_salt_encoding` is `utf-8`. Pass
`salt_is_text=True` for such hashes. The stored form always has the Base64 of the bytes that are the salt, so the two
encodings give different stored forms and need no mark. `from_dynamic_security` returns the `$7$` form.

`UnusableHash.message` can be shown next to the line of a file: it repeats no part of the hash. Its `code` is
`not-a-hash` (the text has none of the prefixes above: perhaps a plain password), `unsupported-hash`, `damaged-hash` or
`hash-too-expensive`. No other exception is raised, whatever the text is.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import bcrypt
from argon2.exceptions import HashingError
from argon2.low_level import Type, hash_secret_raw

from authsvc.errors import AuthsvcError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SECONDS = 5.0
# Hashes of this service at the highest AUTHSVC_BCRYPT_COST. It bounds what a damaged row of the database can cost.
_MAX_STORED_SECONDS = 15.0
MAX_MEMORY_KIB = 256 * 1024
BCRYPT_MAX_BYTES = 72

# Seconds on a core that is four times slower than the one on which this was measured (0.8 µs for an iteration with
# SHA-512, 0.5 µs with SHA-256, 46 ms for bcrypt at cost 10, 97 ms for argon2id at 46 MiB): a small industrial computer.
_SECONDS_PER_ITERATION = {"sha512": 3.3e-6, "sha256": 2e-6}
_SECONDS_PER_BCRYPT_ROUND = 180e-6
_SECONDS_PER_KIB = 8e-6

_MAX_CHARACTERS = 1024
_MIN_DIGEST, _MAX_DIGEST = 16, 128  # bytes
_MAX_LANES = 16  # each is a thread
_GENERATED_SALT = 16  # bytes
_VERSION_DIGITS = 32
_OWN_PREFIXES = ("$2", "$generated-sha256$", "$rehashed$")

_BASE64 = r"[A-Za-z0-9+/]+={0,2}"
_NUMBER = r"[0-9]{1,9}"
_BCRYPT = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")
_SHA512 = re.compile(rf"\$6\$({_BASE64})\$({_BASE64})")
_PBKDF2_MOSQUITTO = re.compile(rf"\$7\$({_NUMBER})\$({_BASE64})\$({_BASE64})")
_PBKDF2_GOAUTH = re.compile(rf"PBKDF2\$(sha512|sha256)\$({_NUMBER})\$([^$]+)\$({_BASE64})")
_PBKDF2_PHC = re.compile(rf"\$pbkdf2-(sha512|sha256)\$i=({_NUMBER}),l=({_NUMBER})\$([^$]+)\$({_BASE64})")
_ARGON2 = re.compile(rf"\$argon2id\$v=({_NUMBER})\$m=({_NUMBER}),t=({_NUMBER}),p=({_NUMBER})\$({_BASE64})\$({_BASE64})")
_GENERATED = re.compile(rf"\$generated-sha256\$({_BASE64})\$({_BASE64})")
_REHASHED = re.compile(rf"\$rehashed\$([0-9a-f]{{{_VERSION_DIGITS}}})({_BCRYPT.pattern})")


class UnusableHash(AuthsvcError):
    """A text is no password hash that this service accepts; the message gives the reason and no part of the text."""

    code = "damaged-hash"


class Scheme(StrEnum):
    """How a password was hashed. `GENERATED` only for random passwords of 96 bits or more."""

    BCRYPT = "bcrypt"
    GENERATED = "generated"
    SHA512 = "sha512"
    PBKDF2 = "pbkdf2"
    ARGON2ID = "argon2id"

    @property
    def is_foreign(self) -> bool:
        """Whether only other systems make such hashes."""
        return self not in {Scheme.BCRYPT, Scheme.GENERATED}


@dataclass(frozen=True, slots=True)
class PasswordHash:
    """A hash whose cost is within the limits. `text` is its stored form.

    `seconds` is how long a verification takes on a slow machine, estimated; `memory_kib` what it allocates.
    """

    scheme: Scheme
    text: str = field(repr=False)
    seconds: float
    memory_kib: int
    _matches: Callable[[bytes], bool] = field(repr=False, compare=False)

    def verify(self, password: bytes) -> bool:
        """Return whether a password is right. Compares in constant time; releases the GIL while it computes."""
        return self._matches(password)


def parse(text: str, *, salt_is_text: bool = False) -> PasswordHash:
    """Return the hash that a text stands for; `UnusableHash` if it is none, is damaged, or costs too much.

    With `salt_is_text`, the salt of go-auth's two PBKDF2 forms is not decoded before use.
    """
    return _parse(text, salt_is_text, MAX_SECONDS)


def parse_stored(text: str) -> PasswordHash:
    """Return the hash that a stored form stands for; `UnusableHash` if it was damaged.

    The limit of the time is higher than that of `parse`, because `AUTHSVC_BCRYPT_COST` can be.
    """
    return _parse(text, False, _MAX_STORED_SECONDS)


def is_foreign(stored: str) -> bool:
    """Return whether a stored form was made by another system and can be replaced by `rehash`."""
    return not stored.startswith(_OWN_PREFIXES)


def password_version(stored: str) -> str:
    """Return the version of a password, 32 hexadecimal digits that reveal nothing of its hash.

    Each new password has another version. A hash made by `rehash` keeps the version of the hash that it replaces.
    """
    match = _REHASHED.fullmatch(stored)
    return match[1] if match else hashlib.sha256(stored.encode()).hexdigest()[:_VERSION_DIGITS]


def rehash(stored: str, password: bytes, cost: int) -> str:
    """Return a stored form with bcrypt for the password of up to 72 bytes that was right for `stored`.

    It has the version of `stored`, so that connections and caches that rely on this version stay valid.
    """
    return f"$rehashed${password_version(stored)}{bcrypt.hashpw(password, bcrypt.gensalt(cost)).decode()}"


def from_dynamic_security(password: str, salt: str, iterations: int) -> PasswordHash:
    """Return the hash of a client in dynamic-security's JSON; `password` and `salt` are in Base64."""
    return parse(f"$7${iterations}${salt}${password}")


def hash_generated(password: str) -> str:
    """Return the stored form of a password that this service generated.

    Guessing a random password of 96 bits is hopeless however fast its hash is, so a salted SHA-256 protects it
    (docs/adr/0024-generated-passwords.md). Never use it for a password that a person or a device has chosen.
    """
    salt = secrets.token_bytes(_GENERATED_SALT)
    return f"$generated-sha256${_encode(salt)}${_encode(hashlib.sha256(salt + password.encode()).digest())}"


def _parse(text: str, salt_is_text: bool, max_seconds: float) -> PasswordHash:
    if len(text) > _MAX_CHARACTERS:
        raise UnusableHash("the hash is longer than 1024 characters")
    for prefix, (form, read) in _FORMS.items():
        if text.startswith(prefix):
            match = form.fullmatch(text)
            if match is None:
                raise UnusableHash(f"the hash begins with {prefix} and is damaged or incomplete")
            return _within_limits(read(match, salt_is_text), max_seconds)
    if text.startswith("$"):
        raise UnusableHash(
            "hashes of this kind are not supported; supported are bcrypt, PBKDF2, argon2id and Mosquitto's $6$ and $7$",
            "unsupported-hash",
        )
    raise UnusableHash("this is not a password hash", "not-a-hash")


def _within_limits(password_hash: PasswordHash, max_seconds: float) -> PasswordHash:
    if password_hash.seconds > max_seconds:
        raise UnusableHash(
            f"checking a password against this hash would take about {password_hash.seconds:.0f} s on a slow machine; "
            f"the limit is {max_seconds:.0f} s",
            "hash-too-expensive",
        )
    if password_hash.memory_kib > MAX_MEMORY_KIB:
        raise UnusableHash(
            f"checking a password against this hash would take {password_hash.memory_kib // 1024} MB of memory; "
            f"the limit is {MAX_MEMORY_KIB // 1024} MB",
            "hash-too-expensive",
        )
    return password_hash


def _bcrypt(match: re.Match[str], _: bool) -> PasswordHash:
    return _of_bcrypt(match[0], match[0], int(match[1]))


def _rehashed(match: re.Match[str], _: bool) -> PasswordHash:
    return _of_bcrypt(match[0], match[2], int(match[3]))


def _of_bcrypt(stored: str, text: str, cost: int) -> PasswordHash:
    if not 4 <= cost <= 31:  # noqa: PLR2004 - the range of the format
        raise UnusableHash("the cost of the hash must be 4 to 31")

    def matches(password: bytes) -> bool:
        try:
            return len(password) <= BCRYPT_MAX_BYTES and bcrypt.checkpw(password, text.encode())
        except ValueError:  # unused bits of the salt are set
            return False

    return PasswordHash(Scheme.BCRYPT, stored, _SECONDS_PER_BCRYPT_ROUND * 2**cost, 0, matches)


def _sha512(match: re.Match[str], _: bool) -> PasswordHash:
    salt, digest = _decode(match[1]), _decode_digest(match[2], hashlib.sha512().digest_size)
    text = f"$6${_encode(salt)}${_encode(digest)}"
    return PasswordHash(
        Scheme.SHA512, text, 0.0, 0, lambda password: _equal(hashlib.sha512(password + salt).digest(), digest)
    )


def _pbkdf2_mosquitto(match: re.Match[str], _: bool) -> PasswordHash:
    salt, digest = _decode(match[2]), _decode_digest(match[3], hashlib.sha512().digest_size)
    iterations = int(match[1])
    return _pbkdf2(f"$7${iterations}${_encode(salt)}${_encode(digest)}", "sha512", iterations, salt, digest)


def _pbkdf2_goauth(match: re.Match[str], salt_is_text: bool) -> PasswordHash:
    algorithm, iterations, salt, digest = match.groups()
    return _pbkdf2_phc(algorithm, int(iterations), _decode_salt(salt, salt_is_text), _decode_digest(digest))


def _pbkdf2_with_options(match: re.Match[str], salt_is_text: bool) -> PasswordHash:
    algorithm, iterations, length, salt, digest = match.groups()
    return _pbkdf2_phc(
        algorithm, int(iterations), _decode_salt(salt, salt_is_text), _decode_digest(digest, int(length))
    )


def _pbkdf2_phc(algorithm: str, iterations: int, salt: bytes, digest: bytes) -> PasswordHash:
    text = f"$pbkdf2-{algorithm}$i={iterations},l={len(digest)}${_encode_bare(salt)}${_encode_bare(digest)}"
    return _pbkdf2(text, algorithm, iterations, salt, digest)


def _pbkdf2(text: str, algorithm: str, iterations: int, salt: bytes, digest: bytes) -> PasswordHash:
    if iterations < 1:
        raise UnusableHash("the number of iterations of the hash must be at least 1")
    blocks = -(-len(digest) // hashlib.new(algorithm).digest_size)
    return PasswordHash(
        Scheme.PBKDF2,
        text,
        _SECONDS_PER_ITERATION[algorithm] * iterations * blocks,
        0,
        lambda password: _equal(hashlib.pbkdf2_hmac(algorithm, password, salt, iterations, len(digest)), digest),
    )


def _argon2id(match: re.Match[str], _: bool) -> PasswordHash:
    version, memory_kib, passes, lanes = (int(match[group]) for group in range(1, 5))
    salt, digest = _decode(match[5]), _decode_digest(match[6])
    if version not in {16, 19}:
        raise UnusableHash("the argon2 version of the hash is neither 16 nor 19", "unsupported-hash")
    if not 1 <= lanes <= _MAX_LANES:
        raise UnusableHash(f"the hash must have 1 to {_MAX_LANES} lanes", "unsupported-hash")
    if passes < 1 or memory_kib < 8 * lanes or len(salt) < 8:  # noqa: PLR2004 - the limits of RFC 9106
        raise UnusableHash("the parameters of the hash are below the least that argon2 allows")

    def matches(password: bytes) -> bool:
        try:
            computed = hash_secret_raw(password, salt, passes, memory_kib, lanes, len(digest), Type.ID, version=version)
        except HashingError:  # no memory for it
            return False
        return _equal(computed, digest)

    text = f"$argon2id$v={version}$m={memory_kib},t={passes},p={lanes}${_encode_bare(salt)}${_encode_bare(digest)}"
    return PasswordHash(Scheme.ARGON2ID, text, _SECONDS_PER_KIB * memory_kib * passes, memory_kib, matches)


def _generated(match: re.Match[str], _: bool) -> PasswordHash:
    salt, digest = _decode(match[1]), _decode_digest(match[2], hashlib.sha256().digest_size)
    text = f"$generated-sha256${_encode(salt)}${_encode(digest)}"
    return PasswordHash(
        Scheme.GENERATED, text, 0.0, 0, lambda password: _equal(hashlib.sha256(salt + password).digest(), digest)
    )


_FORMS: dict[str, tuple[re.Pattern[str], Callable[[re.Match[str], bool], PasswordHash]]] = {
    "$2": (_BCRYPT, _bcrypt),
    "$6$": (_SHA512, _sha512),
    "$7$": (_PBKDF2_MOSQUITTO, _pbkdf2_mosquitto),
    "PBKDF2$": (_PBKDF2_GOAUTH, _pbkdf2_goauth),
    "$pbkdf2-": (_PBKDF2_PHC, _pbkdf2_with_options),
    "$argon2id$": (_ARGON2, _argon2id),
    "$generated-sha256$": (_GENERATED, _generated),
    "$rehashed$": (_REHASHED, _rehashed),
}


def _equal(computed: bytes, digest: bytes) -> bool:
    return hmac.compare_digest(computed, digest)


def _decode(text: str) -> bytes:
    """Return the bytes of standard Base64 with or without padding."""
    bare = text.rstrip("=")
    try:
        return b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except ValueError:
        raise UnusableHash("the hash contains invalid Base64") from None


def _decode_salt(text: str, salt_is_text: bool) -> bytes:
    try:
        return text.encode() if salt_is_text else _decode(text)
    except UnicodeEncodeError:
        raise UnusableHash("the salt of the hash is not valid Unicode") from None


def _decode_digest(text: str, size: int | None = None) -> bytes:
    digest = _decode(text)
    if size is not None and len(digest) != size:
        raise UnusableHash(f"the hash has {len(digest)} bytes and should have {size}; perhaps it was cut off")
    if not _MIN_DIGEST <= len(digest) <= _MAX_DIGEST:
        raise UnusableHash(f"the hash must have {_MIN_DIGEST} to {_MAX_DIGEST} bytes")
    return digest


def _encode(raw: bytes) -> str:
    return b64encode(raw).decode()


def _encode_bare(raw: bytes) -> str:
    return _encode(raw).rstrip("=")
