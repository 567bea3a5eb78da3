"""A TLS listener that takes the certificate as proof, beside a listener with passwords."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.broker import free_port
from tests.devices import NOT_AUTHORIZED, Device
from tests.plugin.fake_service import FakeUser, wait_for
from tests.plugin.in_broker.pki import Authority
from tests.plugin.in_broker.site import Site, seconds_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.plugin.in_broker.build import Build

IN_FORCE = 1.0  # seconds


class TlsSite(Site):
    authority: Authority
    tls_port: int
    serial = 0xABC0

    def certificate_user(self, *rules: str, until: float | None = None) -> tuple[str, str]:
        """Create a user with a certificate; return its name and the serial."""
        TlsSite.serial += 1
        serial = f"{TlsSite.serial:X}"
        return self.user(*rules, certificates={serial: until}), serial

    def with_certificate(self, username: str, serial: str) -> Device:
        tls = self.authority.client_tls(username, int(serial, 16))
        return self.connected(None, None, port=self.tls_port, tls=tls)


@pytest.fixture(scope="module")
def shared_site(plugin_build: Build, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    port = free_port()
    before = f"persistence false\n{authority.listener(port)}"
    with TlsSite(plugin_build, tmp_path_factory.mktemp("broker"), before=before) as site:
        site.authority, site.tls_port = authority, port
        site.wait_until_up()
        yield site


@pytest.fixture
def tls_site(site: Site) -> TlsSite:
    assert isinstance(site, TlsSite)
    return site


def test_rules_are_fetched_once_at_the_first_question(tls_site: TlsSite) -> None:
    user, serial = tls_site.certificate_user("readWrite own/%u/#")
    device = tls_site.with_certificate(user, serial)
    assert tls_site.fetches(user) == 0
    assert device.publish(f"own/{user}/a") == 0
    assert device.publish("other") == NOT_AUTHORIZED
    assert device.subscribe(f"own/{user}/#", "#") == [1, NOT_AUTHORIZED]
    assert tls_site.fetches(user) == 1
    assert tls_site.logins_asked(user) == []
    wait_for(lambda: tls_site.connections(user))
    assert tls_site.connections(user)[0]["credential"] == "c"


@pytest.mark.parametrize("serial", ["F", "10", "0F0000000000000000000000000000000000000A".lstrip("0")])
def test_serial_is_compared_in_hexadecimal_without_leading_zeros(tls_site: TlsSite, serial: str) -> None:
    user = tls_site.user("write a", certificates={serial: None})
    assert tls_site.with_certificate(user, serial).publish("a") == 0


def test_certificate_that_is_not_one_of_the_users_may_do_nothing(tls_site: TlsSite) -> None:
    user, _ = tls_site.certificate_user("readWrite #")
    device = tls_site.with_certificate(user, "777")
    assert device.publish("a") == NOT_AUTHORIZED
    assert device.subscribe("a") == [NOT_AUTHORIZED]
    wait_for(lambda: tls_site.denials(user))
    assert tls_site.denials(user)[0]["reason"] == "no-valid-certificate"


def test_certificate_of_an_unknown_user_may_do_nothing(tls_site: TlsSite) -> None:
    device = tls_site.with_certificate("nobody", "778")
    assert device.publish("a") == NOT_AUTHORIZED
    wait_for(lambda: tls_site.denials("nobody"))
    assert tls_site.denials("nobody")[0]["reason"] == "unknown-user"


def test_certificate_of_a_username_that_is_too_long_loses_no_report_of_others(tls_site: TlsSite) -> None:
    device = tls_site.with_certificate("n" * 64, "779")
    assert device.publish("a") == NOT_AUTHORIZED
    wait_for(lambda: any(len(denial["username"]) == 64 for denial in tls_site.reported("denials")))


def test_revoked_certificate_ends_its_connection_and_no_other_of_the_user(tls_site: TlsSite) -> None:
    user, first = tls_site.certificate_user("write a")
    second = f"{int(first, 16) + 0x1000:X}"
    tls_site.service.users[user].certificates[second] = None
    revoked, valid = tls_site.with_certificate(user, first), tls_site.with_certificate(user, second)
    by_password = tls_site.connected(user)
    assert [device.publish("a") for device in (revoked, valid)] == [0, 0]
    tls_site.service.replace(user, certificates={second: None})
    assert seconds_until(lambda: not revoked.ends.empty()) < IN_FORCE
    assert valid.publish("a") == 0
    assert valid.stayed_connected()
    assert by_password.stayed_connected()


def test_certificate_expires_without_a_message_from_the_service(tls_site: TlsSite) -> None:
    until = int(time.time()) + 2
    user, serial = tls_site.certificate_user("write a", until=until)
    device = tls_site.with_certificate(user, serial)
    assert device.publish("a") == 0
    assert device.is_disconnected()
    assert until <= time.time() < until + 1 + IN_FORCE
    again = tls_site.with_certificate(user, serial)
    assert again.publish("a") == NOT_AUTHORIZED


def test_new_certificate_of_a_known_user_is_valid_within_a_second(tls_site: TlsSite) -> None:
    user, first = tls_site.certificate_user("write a")
    assert tls_site.with_certificate(user, first).publish("a") == 0
    new = f"{int(first, 16) + 0x1000:X}"
    device = tls_site.with_certificate(user, new)
    assert device.publish("a") == NOT_AUTHORIZED
    tls_site.service.replace(user, certificates={first: None, new: None})
    assert seconds_until(lambda: device.publish("a") == 0) < IN_FORCE


def test_disabled_user_is_disconnected_and_its_will_is_not_published(tls_site: TlsSite) -> None:
    user, serial = tls_site.certificate_user("readWrite a")
    reader = tls_site.connected(tls_site.user("read a"))
    reader.subscribe("a")
    tls = tls_site.authority.client_tls(user, int(serial, 16))
    device = tls_site.connected(None, None, port=tls_site.tls_port, tls=tls, will=("a", "gone"))
    assert device.publish("a") == 0
    assert reader.received() == ("a", b"")
    tls_site.service.replace(user, refused="user-disabled")
    assert device.is_disconnected()
    assert reader.received_so_far() == []


def test_listener_with_passwords_asks_for_one_of_a_user_with_a_certificate(tls_site: TlsSite) -> None:
    user, serial = tls_site.certificate_user("write a")
    assert tls_site.with_certificate(user, serial).publish("a") == 0
    assert tls_site.code(user, "wrong") != 0
    assert tls_site.code(user, None) != 0
    assert tls_site.code(user) == 0


def test_reload_costs_no_client_with_a_certificate_its_connection(tls_site: TlsSite) -> None:
    user, serial = tls_site.certificate_user("write a")
    device = tls_site.with_certificate(user, serial)
    assert device.publish("a") == 0
    fetches = tls_site.fetches(user)
    tls_site.broker.reload()
    assert device.stayed_connected()
    assert device.publish("a") == 0
    assert tls_site.fetches(user) == fetches


def test_first_question_without_an_answer_is_denied_and_asked_again(tls_site: TlsSite) -> None:
    user, serial = tls_site.certificate_user("write a")
    device = tls_site.with_certificate(user, serial)
    tls_site.service.statuses["/auth/plugin/users"] = 500
    assert device.publish("a") == NOT_AUTHORIZED
    tls_site.service.statuses.clear()
    assert device.publish("a") == 0
    tls_site.service.users[user] = FakeUser()
