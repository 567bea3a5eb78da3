"""Who may connect, and when the service is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.broker import free_port
from tests.devices import BOTH_PROTOCOLS, FIRST_FAILURE, NOT_AUTHORIZED, V311, Device
from tests.plugin.fake_service import wait_for
from tests.plugin.in_broker.site import in_one_minute

if TYPE_CHECKING:
    from collections.abc import Callable

    from paho.mqtt.enums import MQTTProtocolVersion

    from tests.plugin.in_broker.site import Site

REFUSED = 5  # in a CONNACK of MQTT 3.1.1


@BOTH_PROTOCOLS
def test_right_password_is_let_in(site: Site, protocol: MQTTProtocolVersion) -> None:
    assert site.device(site.user(), protocol=protocol).connack() == 0


@BOTH_PROTOCOLS
@pytest.mark.parametrize("password", ["wrong", "secre", "secrets", "Secret", b"\xff\xfe"])
def test_wrong_password_is_refused(site: Site, protocol: MQTTProtocolVersion, password: str | bytes) -> None:
    assert site.device(site.user(), password, protocol=protocol).connack() >= FIRST_FAILURE
    assert site.code(site.user()) == 0  # the broker still asks


def test_unknown_user_is_refused(site: Site) -> None:
    assert site.code("nobody-knows-me") == REFUSED


def test_service_is_told_the_password_the_client_id_and_the_address(site: Site) -> None:
    user = site.user(password='p"ä\\s')
    site.connected(user, 'p"ä\\s', client_id="drill 7/ü")
    assert site.logins_asked(user) == [
        {"username": user, "password": 'p"ä\\s', "clientid": "drill 7/ü", "address": "127.0.0.1"}
    ]


def test_verified_password_is_checked_from_memory_and_the_login_reported(site: Site) -> None:
    user = site.user()
    site.connected(user, client_id=f"{user}-first")
    site.connected(user, client_id=f"{user}-second")
    assert len(site.logins_asked(user)) == 1
    wait_for(lambda: {"username": user, "clientid": f"{user}-second"} in site.reported("logins"))
    assert {"username": user, "clientid": f"{user}-first"} not in site.reported("logins")


def test_wrong_password_is_always_asked(site: Site) -> None:
    user = site.user()
    site.connected(user)
    assert [site.code(user, "wrong") for _ in range(3)] == [REFUSED] * 3
    assert [fields["password"] for fields in site.logins_asked(user)] == ["secret", "wrong", "wrong", "wrong"]
    assert site.code(user) == 0
    assert len(site.logins_asked(user)) == 4


def test_verified_password_of_one_user_is_not_that_of_another(site: Site) -> None:
    site.connected(site.user())
    other = site.user(password="different")
    assert site.code(other) == REFUSED
    assert site.code(other, "different") == 0
    assert site.code(other) == REFUSED


def test_memory_is_not_used_after_more_than_ten_other_passwords_in_a_minute(site: Site) -> None:
    def guess() -> None:
        user = site.user()
        assert site.code(user) == 0
        for number in range(11):
            assert site.code(user, f"guess {number}") == REFUSED
        assert site.code(user) == 0
        asked[:] = [fields["password"] for fields in site.logins_asked(user)]

    asked: list[str] = []
    in_one_minute(guess)
    assert asked[-1] == "secret"
    assert len(asked) == 13


def test_client_id_that_logged_in_last_may_send_300_other_passwords_in_a_minute(site: Site) -> None:
    def guess() -> None:
        user = site.user()
        assert site.code(user, client_id="first") == 0
        assert site.code(user, client_id=user) == 0  # from memory
        for number in range(11):
            assert site.code(user, f"guess {number}") == REFUSED
        for number in range(299):
            assert site.code(user, f"guess {number}", client_id=user) == REFUSED
        before = len(site.logins_asked(user))
        assert site.code(user, client_id=user) == 0
        asked.append(len(site.logins_asked(user)) - before)
        for number in range(2):
            assert site.code(user, f"guess {number}", client_id=user) == REFUSED
        before = len(site.logins_asked(user))
        assert site.code(user, client_id=user) == 0
        asked.append(len(site.logins_asked(user)) - before)

    asked: list[int] = []
    in_one_minute(guess)
    assert asked[-2:] == [0, 1]


def test_changed_password_replaces_the_one_in_memory(site: Site) -> None:
    user = site.user()
    device = site.connected(user)
    site.service.replace(user, password="new")
    assert device.is_disconnected()
    assert site.code(user) == REFUSED
    assert site.code(user, "new") == 0
    asked = len(site.logins_asked(user))
    assert site.code(user, "new") == 0
    assert len(site.logins_asked(user)) == asked


@pytest.mark.parametrize(("username", "password"), [(None, None), ("", "secret"), ("USER", None), ("USER", "")])
def test_login_without_a_username_or_password_is_refused_and_not_asked(
    site: Site, username: str | None, password: str | None
) -> None:
    user = site.user(password="")
    asked = len(site.service.asked("/auth/user"))
    assert site.code(user if username == "USER" else username, password) == REFUSED
    assert len(site.service.asked("/auth/user")) == asked


def test_memory_does_not_let_in_a_login_without_a_password(site: Site) -> None:
    user = site.user()
    assert site.code(user) == 0
    assert site.code(user, None) == REFUSED
    assert site.code(user, "") == REFUSED


def test_client_without_a_username_is_refused_although_allow_anonymous_is_true(
    new_site: Callable[..., Site],
) -> None:
    site = new_site(before="persistence false\nallow_anonymous true")
    site.wait_until_up()
    device = site.device(None, None)
    assert device.connack() == NOT_AUTHORIZED
    assert site.code(None, None) == REFUSED
    assert site.code("", "") == REFUSED
    assert site.code(site.user("readWrite #")) == 0


def test_client_id_that_is_not_allowed_is_refused_and_reported(site: Site) -> None:
    user = site.user(client_ids=["%u", "%u-*"])
    assert site.code(user, client_id=f"{user}-1") == 0
    assert site.code(user, client_id="another") == REFUSED
    wait_for(lambda: site.denials(user))
    assert site.denials(user) == [
        {"username": user, "clientid": "another", "topic": "", "access": 0, "reason": "client-id-not-allowed"}
    ]


def test_answer_about_another_user_lets_nobody_in(site: Site) -> None:
    user, other = site.user(), site.user("readWrite #")
    state = site.service.users[other].state(other, site.service.version)
    login = {"ok": True, "error": "", "credential": "p:secret", "user": state}
    site.service.answer_json("/auth/user", login)
    assert site.code(user) == REFUSED
    site.service.answers.clear()
    assert site.code(user) == 0


def test_login_with_a_credential_that_the_user_does_not_have_is_refused(site: Site) -> None:
    user = site.user()
    state = site.service.users[user].state(user, site.service.version)
    site.service.answer_json("/auth/user", {"ok": True, "error": "", "credential": "p:another", "user": state})
    assert site.code(user) == REFUSED
    site.service.answers.clear()


def test_websockets_clients_log_in_as_others_do(new_site: Callable[..., Site]) -> None:
    port = free_port()
    site = new_site(before=f"persistence false\nlistener {port}\nprotocol websockets")
    site.wait_until_up()
    user = site.user("readWrite own/%u/#")
    device = site.connected(user, port=port, transport="websockets")
    assert device.publish(f"own/{user}/a") == 0
    assert device.publish("other") == NOT_AUTHORIZED
    assert site.device(user, "wrong", port=port, transport="websockets").connack() == NOT_AUTHORIZED
    assert "127.0.0.1" in site.logins_asked(user)[0]["address"]
    wait_for(lambda: site.connections(user))
    site.service.replace(user, password="new")
    assert device.is_disconnected()
    wait_for(lambda: site.connections(user)[0]["id"] in site.reported("disconnected"))


def test_mqtt_3_1_client_id_that_the_broker_makes_up_is_the_one_that_is_asked(site: Site) -> None:
    user = site.user()
    device = Device(user, "secret", "", V311)
    device.start(site.broker.port)
    assert device.connack() == 0
    assert site.logins_asked(user)[0]["clientid"]
    device.stop()
