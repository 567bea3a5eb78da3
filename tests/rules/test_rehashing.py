"""Hashes of other systems are replaced by bcrypt in the background, and the password keeps its version."""

from __future__ import annotations

import threading

import pytest

from authsvc.credentials.hashing import HashingPool
from authsvc.credentials.password_hashes import is_foreign, parse_stored, password_version, rehash
from authsvc.credentials.rehashing import Rehashed, Rehashing
from tests.rules.test_password_hashes import MOSQUITTO_PBKDF2, MOSQUITTO_SHA512

COST = 4


class Written(list[Rehashed]):
    """What was written; the first call raises if `fail` is set."""

    fail = False

    def __call__(self, rehashed: list[Rehashed]) -> None:
        if self.fail:
            self.fail = False
            raise OSError
        self += rehashed


@pytest.fixture
def written() -> Written:
    return Written()


def test_replacement_accepts_the_same_password_and_has_the_same_version() -> None:
    replacement = rehash(MOSQUITTO_PBKDF2, b"secret", COST)
    assert is_foreign(MOSQUITTO_PBKDF2)
    assert not is_foreign(replacement)
    assert password_version(replacement) == password_version(MOSQUITTO_PBKDF2)
    assert parse_stored(replacement).verify(b"secret")
    assert not parse_stored(replacement).verify(b"Secret")
    assert parse_stored(replacement).text == replacement


def test_right_password_is_hashed_with_bcrypt_and_written_once(written: Written) -> None:
    rehashing = Rehashing(HashingPool(1, 1), COST)
    for username, stored in (("bob", MOSQUITTO_PBKDF2), ("carol", MOSQUITTO_SHA512), ("bob", MOSQUITTO_PBKDF2)):
        rehashing.note(username, stored, b"secret")
    for _ in range(2):
        rehashing.store(written)
    assert [(each.username, each.stored) for each in written] == [
        ("bob", MOSQUITTO_PBKDF2),
        ("carol", MOSQUITTO_SHA512),
    ]
    assert all("$2b$04$" in each.replacement for each in written)


def test_result_that_could_not_be_written_is_written_later(written: Written) -> None:
    rehashing = Rehashing(HashingPool(1, 1), COST)
    rehashing.note("bob", MOSQUITTO_PBKDF2, b"secret")
    written.fail = True
    with pytest.raises(OSError):
        rehashing.store(written)
    rehashing.store(written)
    assert [each.username for each in written] == ["bob"]


def test_password_that_bcrypt_cannot_read_keeps_its_hash(written: Written) -> None:
    rehashing = Rehashing(HashingPool(1, 1), COST)
    rehashing.note("bob", MOSQUITTO_PBKDF2, b"x" * 73)
    rehashing.store(written)
    assert not written


def test_nothing_is_hashed_while_a_login_waits(written: Written) -> None:
    logins, may_end = HashingPool(1, 10), threading.Event()
    rehashing = Rehashing(logins, COST)
    rehashing.note("bob", MOSQUITTO_PBKDF2, b"secret")
    running = [logins.submit(may_end.wait) for _ in range(2)]
    rehashing.store(written)
    assert not written
    may_end.set()
    assert all(each.result(10) for each in running)
    rehashing.store(written)
    assert [each.username for each in written] == ["bob"]
