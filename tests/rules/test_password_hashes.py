"""Password hashes of other systems: which are accepted, how they are stored, which passwords they accept."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from base64 import b64encode
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authsvc.credentials.password_hashes import (
    MAX_MEMORY_KIB,
    MAX_SECONDS,
    Scheme,
    UnusableHash,
    from_dynamic_security,
    hash_generated,
    parse,
)

if TYPE_CHECKING:
    from pathlib import Path

# Written by Debian's mosquitto_passwd.
MOSQUITTO_PBKDF2 = (
    "$7$101$KCcqFAWxYBq8avqv$IGalIX9dfU/f5M0dd+Dv92aJ6Y3SY5ETX7MIwkzyq/4jxyx7AdFwDpjj52JWmyrhVD4XOuv/ZqrbfmfvGQUwHw=="
)
MOSQUITTO_SHA512 = (
    "$6$FvKTjantAJVJj5hP$qlScJFUCGE2P6L4CbmzSngrm2Eao2F1H4rwASCFjj2AMflpkYf9mnACEwjYWrbaBl7JTRUw3295C0uhVumqDhw=="
)
# From the documentation of go-auth, written by its `pw`.
GOAUTH_PBKDF2 = (
    "PBKDF2$sha512$100000$os24lcPr9cJt2QDVWssblQ==$"
    "BK1BQ2wbwU1zNxv3Ml3wLuu5//hPop3/LvaPYjjCwdBvnpwusnukJPpcXQzyyjOlZdieXTx6sXAcX4WnZRZZnw=="
)
# From the tests of crypt_blowfish, and of the reference implementation of argon2.
BCRYPT = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
ARGON2ID = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
GENERATED = "$generated-sha256$h3xa6oz2Kx0hcQqy3kifzw==$76OjzBj3ODFadYopWOyiQmjFDSDwSp+U+9RVtWzePMc="
KNOWN = {
    MOSQUITTO_PBKDF2: (Scheme.PBKDF2, b"secret"),
    MOSQUITTO_SHA512: (Scheme.SHA512, b"secret"),
    GOAUTH_PBKDF2: (Scheme.PBKDF2, b"testpw"),
    BCRYPT: (Scheme.BCRYPT, b"U*U"),
    BCRYPT.replace("$2a$", "$2b$"): (Scheme.BCRYPT, b"U*U"),
    BCRYPT.replace("$2a$", "$2y$"): (Scheme.BCRYPT, b"U*U"),
    ARGON2ID: (Scheme.ARGON2ID, b"password"),
}
SHORT_DIGEST = "A" * 22  # 16 bytes


def goauth(algorithm: str, salt: str, secret: bytes, salt_bytes: bytes, *, iterations: int = 10) -> tuple[str, str]:
    """Return the two forms that go-auth reads."""
    digest = b64encode(hashlib.pbkdf2_hmac(algorithm, secret, salt_bytes, iterations, 64)).decode()
    return (
        f"PBKDF2${algorithm}${iterations}${salt}${digest}",
        f"$pbkdf2-{algorithm}$i={iterations},l=64${salt.rstrip('=')}${digest.rstrip('=')}",
    )


def refusal(text: str) -> UnusableHash:
    with pytest.raises(UnusableHash) as raised:
        parse(text)
    return raised.value


@pytest.mark.parametrize("text", KNOWN)
def test_hash_of_another_system_accepts_its_password_and_no_other(text: str) -> None:
    scheme, password = KNOWN[text]
    parsed = parse(text)
    assert parsed.scheme is scheme
    assert parsed.verify(password)
    assert not any(parsed.verify(wrong) for wrong in (b"", password + b"x", b"\xff\0" * 9999))


@pytest.mark.skipif(not shutil.which("mosquitto_passwd"), reason="needs mosquitto_passwd")
@pytest.mark.parametrize("algorithm", ["sha512", "sha512-pbkdf2"])
@pytest.mark.parametrize("password", ["secret", "p:ä$ €", "x" * 300])
def test_hash_written_by_mosquitto_passwd_is_accepted(tmp_path: Path, algorithm: str, password: str) -> None:
    path = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-H", algorithm, "-c", "-b", path, "pump", password], check=True)
    parsed = parse(path.read_text().strip().removeprefix("pump:"))
    assert parsed.verify(password.encode())
    assert not parsed.verify(password[1:].encode())


@pytest.mark.parametrize("text", [*KNOWN, GENERATED])
def test_stored_form_is_read_as_the_same_hash(text: str) -> None:
    parsed = parse(text)
    assert parse(parsed.text) == parsed


@pytest.mark.parametrize("algorithm", ["sha512", "sha256"])
def test_both_forms_of_goauth_have_one_stored_form(algorithm: str) -> None:
    salt = b64encode(b"16 bytes of salt").decode()
    first, second = goauth(algorithm, salt, b"secret", b"16 bytes of salt")
    assert parse(first) == parse(second)
    assert parse(first).text.startswith(f"$pbkdf2-{algorithm}$i=10,l=64$")
    assert parse(first).verify(b"secret")


@pytest.mark.parametrize("salt", [b64encode(b"16 bytes of salt").decode(), "no Base64: é!"])
def test_salt_that_goauth_uses_as_text_keeps_its_meaning_in_the_stored_form(salt: str) -> None:
    text, _ = goauth("sha512", salt, b"secret", salt.encode())
    parsed = parse(text, salt_is_text=True)
    assert parsed.verify(b"secret")
    assert parse(parsed.text).verify(b"secret")
    if salt.isascii():
        assert parse(text).text != parsed.text
        assert not parse(text).verify(b"secret")


def test_client_of_dynamic_security_is_stored_in_the_form_of_the_password_file() -> None:
    _, _, iterations, salt, digest = MOSQUITTO_PBKDF2.split("$")
    parsed = from_dynamic_security(digest, salt, int(iterations))
    assert parsed.text == MOSQUITTO_PBKDF2
    assert parsed.verify(b"secret")


def test_generated_password_has_a_salted_hash_that_takes_no_time() -> None:
    first, second = hash_generated("a generated password"), hash_generated("a generated password")
    assert first != second
    parsed = parse(first)
    assert (parsed.scheme, parsed.seconds, parsed.memory_kib) == (Scheme.GENERATED, 0.0, 0)
    assert parsed.verify(b"a generated password")
    assert not parsed.verify(b"a generated passwore")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "not-a-hash"),
        ("secret", "not-a-hash"),
        ("$", "unsupported-hash"),
        ("$1$salt$hash", "unsupported-hash"),
        ("$5$rounds=5000$salt$hash", "unsupported-hash"),
        ("$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$" + SHORT_DIGEST, "unsupported-hash"),
        ("$argon2id$v=18$m=65536,t=2,p=1$c29tZXNhbHQ$" + SHORT_DIGEST, "unsupported-hash"),
        ("$argon2id$v=19$m=65536,t=2,p=4096$c29tZXNhbHQ$" + SHORT_DIGEST, "unsupported-hash"),
        ("$argon2id$v=19$m=7,t=2,p=1$c29tZXNhbHQ$" + SHORT_DIGEST, "damaged-hash"),
        ("$argon2id$v=19$m=65536,t=2,p=1$$" + SHORT_DIGEST, "damaged-hash"),
        (MOSQUITTO_PBKDF2[:-4], "damaged-hash"),
        (MOSQUITTO_PBKDF2.replace("$101$", "$0$"), "damaged-hash"),
        (MOSQUITTO_PBKDF2.replace("$101$", "$-1$"), "damaged-hash"),
        (MOSQUITTO_PBKDF2.replace("$101$", "$99999999999999999999$"), "damaged-hash"),
        (MOSQUITTO_PBKDF2 + "\n", "damaged-hash"),
        (MOSQUITTO_SHA512.replace("qlSc", "q*Sc"), "damaged-hash"),
        ("PBKDF2$sha512$10$c2FsdA==$", "damaged-hash"),
        ("PBKDF2$sha512$10$c2FsdA==$QUJD", "damaged-hash"),
        ("PBKDF2$sha512$10$no Base64$" + SHORT_DIGEST, "damaged-hash"),
        ("PBKDF2$sha512$10$\ud800$" + SHORT_DIGEST, "damaged-hash"),
        ("$pbkdf2-sha512$i=10,l=64$c2FsdA$" + SHORT_DIGEST, "damaged-hash"),
        ("$2b$03$" + "a" * 53, "damaged-hash"),
        ("$2x$05$" + "a" * 53, "damaged-hash"),
        ("$7$" + "1" * 2000, "damaged-hash"),
        (MOSQUITTO_PBKDF2.replace("$101$", "$10000000$"), "hash-too-expensive"),
        ("$pbkdf2-sha512$i=999999999,l=16$c2FsdA$" + SHORT_DIGEST, "hash-too-expensive"),
        ("$2b$15$" + "a" * 53, "hash-too-expensive"),
        ("$2b$31$" + "a" * 53, "hash-too-expensive"),
        (f"$argon2id$v=19$m={MAX_MEMORY_KIB + 1024},t=1,p=1$c29tZXNhbHQ${SHORT_DIGEST}", "hash-too-expensive"),
        (f"$argon2id$v=19$m=999999999,t=1,p=1$c29tZXNhbHQ${SHORT_DIGEST}", "hash-too-expensive"),
        (f"$argon2id$v=19$m=8,t=999999999,p=1$c29tZXNhbHQ${SHORT_DIGEST}", "hash-too-expensive"),
    ],
)
def test_hash_that_cannot_be_used_is_refused_with_a_reason_that_repeats_nothing_of_it(text: str, code: str) -> None:
    error = refusal(text)
    assert error.code == code
    assert SHORT_DIGEST not in error.message
    assert "qlSc" not in error.message


@pytest.mark.parametrize(
    "text",
    [
        "$pbkdf2-sha512$i=210000,l=64$c2FsdA$" + "A" * 86,
        "$pbkdf2-sha256$i=600000,l=32$c2FsdA$" + "A" * 43,
        "$2b$14$" + "a" * 53,
        f"$argon2id$v=19$m=47104,t=1,p=1$c29tZXNhbHQ${SHORT_DIGEST}",
        f"$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ${SHORT_DIGEST}",
        f"$argon2id$v=19$m={MAX_MEMORY_KIB},t=1,p=1$c29tZXNhbHQ${SHORT_DIGEST}",
    ],
)
def test_hash_with_a_recommended_cost_is_accepted(text: str) -> None:
    assert 0 < parse(text).seconds <= MAX_SECONDS


def test_representation_of_a_hash_does_not_contain_it() -> None:
    assert "IGal" not in repr(parse(MOSQUITTO_PBKDF2))


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """Return a known hash with a part replaced, repeated or cut off."""
    text = draw(st.sampled_from([*KNOWN, GOAUTH_PBKDF2.replace("$100000$", "$1$"), GENERATED]))
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, len(text)))
    middle = draw(st.sampled_from(["", "$", "=", "0", "9" * 12, text[start:end] * 2]) | st.text(max_size=8))
    return text[:start] + middle + text[end:]


@settings(deadline=None)
@given(damaged() | st.text(), st.booleans())
def test_damaged_hash_is_refused_or_has_a_bounded_cost(text: str, salt_is_text: bool) -> None:
    try:
        parsed = parse(text, salt_is_text=salt_is_text)
    except UnusableHash:
        return
    assert parsed.seconds <= MAX_SECONDS
    assert parsed.memory_kib <= MAX_MEMORY_KIB
    assert parse(parsed.text) == parsed
    if parsed.seconds < 0.001:
        assert parsed.verify(b"any password") in {True, False}
