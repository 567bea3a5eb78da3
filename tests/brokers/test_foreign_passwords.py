"""Users whose password hash comes from another system: logins through the plugin and at the API, and afterwards."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest
import requests

from tests.brokers.site import broker_for
from tests.devices import FIRST_FAILURE, NOT_AUTHORIZED, SOON, V5
from tests.rules.test_password_hashes import ARGON2ID, GOAUTH_PBKDF2, MOSQUITTO_PBKDF2, MOSQUITTO_SHA512
from tests.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.broker import Mosquitto
    from tests.brokers.site import Site


@pytest.fixture(scope="module")
def broker(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with broker_for(service, tmp_path_factory.mktemp("broker"), "authsvc") as broker:
        yield broker


class Passwords:
    """The stored password hashes, read and written behind the service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._file = Path(service.environment["AUTHSVC_DATA_DIR"]) / "authsvc.db"

    def store(self, username: str, stored: str) -> None:
        """Replace a user's hash, and let the service read the user again."""
        with closing(sqlite3.connect(self._file, timeout=SOON)) as database, database:
            database.execute("UPDATE users SET password_hash = ? WHERE username = ?", (stored, username))
        assert self._service.call("PATCH", f"/api/users/{username}", json={"clientIds": ["%u", "%u-*"]}).ok

    def stored(self, username: str) -> str:
        with closing(sqlite3.connect(self._file, timeout=SOON)) as database:
            row = database.execute("SELECT password_hash FROM users WHERE username = ?", (username,)).fetchone()
        found: str = row[0]
        return found

    def wait_until_replaced(self, username: str, stored: str) -> str:
        """Return the hash that replaces another one."""
        deadline = time.monotonic() + SOON
        while self.stored(username) == stored:
            assert time.monotonic() < deadline, "the hash was not replaced"
            time.sleep(0.02)
        return self.stored(username)


@pytest.fixture
def passwords(service: Service) -> Passwords:
    return Passwords(service)


@pytest.mark.parametrize(
    ("stored", "password"),
    [
        (MOSQUITTO_PBKDF2, "secret"),
        (MOSQUITTO_SHA512, "secret"),
        (GOAUTH_PBKDF2, "testpw"),
        pytest.param(ARGON2ID, "password", marks=pytest.mark.slow),
    ],
)
def test_client_stays_connected_while_its_foreign_hash_is_replaced_by_bcrypt(
    site: Site, passwords: Passwords, stored: str, password: str
) -> None:
    bob = site.add_user("bob", "readWrite line/#")
    passwords.store(bob, stored)
    assert site.try_to_connect(bob, "wrong") == NOT_AUTHORIZED
    assert passwords.stored(bob) == stored

    device = site.device(bob, password, protocol=V5)
    device.start(site.broker.port)
    assert device.connack() == 0
    assert "$2b$04$" in passwords.wait_until_replaced(bob, stored)
    site.permit(device, "readWrite line/1")  # the broker has read the user again after this
    assert device.publish("line/1") == 0
    assert device.stayed_connected()
    assert site.try_to_connect(bob, password, f"{bob}-again") == 0
    assert site.try_to_connect(bob, "wrong", f"{bob}-again") == NOT_AUTHORIZED

    site.service.call("PATCH", f"/api/users/{bob}", json={"password": "another"})
    assert device.ends.get(timeout=SOON) >= FIRST_FAILURE
    assert site.try_to_connect(bob, password) == NOT_AUTHORIZED
    assert site.try_to_connect(bob, "another") == 0


def test_user_with_a_long_name_or_a_slash_connects_and_is_listed(site: Site) -> None:
    for name in ("halle 3: " + "é" * 200, "n" * 240, "tenant/dev"):
        device = site.connected(name, "readWrite line/#", protocol=V5)
        if "/" not in name:
            assert device.publish("line/1") == 0
        path = f"/api/clients?{urlencode({'username': device.username})}"
        deadline = time.monotonic() + SOON
        while [one["username"] for one in site.service.call("GET", path).json()["items"]] != [device.username]:
            assert time.monotonic() < deadline, "the broker's report did not arrive"
            time.sleep(0.02)


def test_sign_in_at_the_api_accepts_a_foreign_hash_and_replaces_it(site: Site, passwords: Passwords) -> None:
    bob = site.add_user("bob", roles=["minimum-access"])
    passwords.store(bob, MOSQUITTO_PBKDF2)
    for password, status in (("wrong", 401), ("secret", 200)):
        answer = requests.get(f"{site.service.url}/api/me", auth=(bob, password), timeout=SOON)
        assert answer.status_code == status
    passwords.wait_until_replaced(bob, MOSQUITTO_PBKDF2)
    assert requests.get(f"{site.service.url}/api/me", auth=(bob, "secret"), timeout=SOON).ok


def test_damaged_foreign_hash_denies_its_owner_and_nobody_else(site: Site, passwords: Passwords) -> None:
    bob, carol = site.add_user("bob"), site.add_user("carol")
    passwords.store(bob, MOSQUITTO_PBKDF2[:-9])
    passwords.store(carol, MOSQUITTO_PBKDF2)
    assert site.try_to_connect(bob) == NOT_AUTHORIZED
    assert site.try_to_connect(carol) == 0


def test_foreign_hash_is_kept_if_the_settings_say_so(tmp_path: Path) -> None:
    with Service(tmp_path, {"AUTHSVC_KEEP_FOREIGN_HASHES": "yes"}) as service:
        passwords = Passwords(service)
        for name in ("bob", "carol"):
            service.create_user(name, "secret", roles=["minimum-access"])
            passwords.store(name, MOSQUITTO_SHA512)
            assert requests.get(f"{service.url}/api/me", auth=(name, "secret"), timeout=SOON).ok
        service.stop()  # what is waiting would be written now
        assert passwords.stored("bob") == passwords.stored("carol") == MOSQUITTO_SHA512
