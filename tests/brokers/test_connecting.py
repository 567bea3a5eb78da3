"""Which logins are accepted: passwords, API tokens, disabled users, unusual names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.brokers.site import THROUGH_BOTH
from tests.devices import BOTH_PROTOCOLS, NOT_AUTHORIZED

if TYPE_CHECKING:
    from paho.mqtt.enums import MQTTProtocolVersion

    from tests.brokers.site import Site
    from tests.service import Api

pytestmark = THROUGH_BOTH

ODD_NAMES = ["+", "#", "bob/+", "a/b", "/", "bøb", "名前", "with spaces", "<b>&\"bob'", "%u", "$SYS", "x" * 300]


def issue_token(service: Api, username: str, password: str) -> dict[str, str]:
    answer = service.call("POST", "/api/login", json={"username": username, "password": password})
    assert answer.status_code == 200, answer.text
    issued: dict[str, str] = answer.json()
    return issued


@BOTH_PROTOCOLS
def test_right_password_is_accepted_and_a_wrong_one_is_refused(site: Site, protocol: MQTTProtocolVersion) -> None:
    bob = site.add_user("bob")

    assert site.try_to_connect(bob, protocol=protocol) == 0
    assert site.try_to_connect(bob, "Secret", protocol=protocol) == NOT_AUTHORIZED
    assert site.try_to_connect(bob, protocol=protocol) == 0


@BOTH_PROTOCOLS
def test_unknown_user_is_refused(site: Site, protocol: MQTTProtocolVersion) -> None:
    assert site.try_to_connect("charlie", protocol=protocol) == NOT_AUTHORIZED


def test_password_of_another_user_is_refused(site: Site) -> None:
    bob, carol = site.add_user("bob", password="bob's own"), site.add_user("carol", password="carol's own")

    assert site.try_to_connect(bob, "carol's own") == NOT_AUTHORIZED
    assert site.try_to_connect(carol, "carol's own") == 0
    assert site.try_to_connect(bob, "carol's own") == NOT_AUTHORIZED


def test_username_is_case_sensitive_and_not_normalized(site: Site) -> None:
    bob = site.add_user("bob")

    assert site.try_to_connect(bob.upper()) == NOT_AUTHORIZED
    assert site.try_to_connect(f"{bob} ") == NOT_AUTHORIZED


def test_a_disabled_user_is_refused_until_enabled(site: Site) -> None:
    bob = site.add_user("bob", enabled=False)
    assert site.try_to_connect(bob) == NOT_AUTHORIZED

    site.change(site.device(bob), enabled=True)
    assert site.try_to_connect(bob) == 0


def test_a_user_without_the_grant_type_password_is_refused(site: Site) -> None:
    bob = site.add_user("bob", grantTypes=["token", "certificate"])
    assert site.try_to_connect(bob) == NOT_AUTHORIZED


def test_changed_password_takes_effect_at_once(site: Site) -> None:
    bob = site.add_user("bob")
    assert site.try_to_connect(bob) == 0

    site.change(site.device(bob), password="another")
    assert site.try_to_connect(bob) == NOT_AUTHORIZED
    assert site.try_to_connect(bob, "another") == 0


def test_a_deleted_user_is_refused(site: Site) -> None:
    bob = site.add_user("bob")
    assert site.try_to_connect(bob) == 0

    with site.in_force(bob):
        assert site.service.call("DELETE", f"/api/users/{bob}").status_code == 204
    assert site.try_to_connect(bob) == NOT_AUTHORIZED


# ---- API tokens ----


def test_api_token_is_accepted_for_a_user_with_the_grant_type(site: Site) -> None:
    bob = site.add_user("bob", grantTypes=["password", "token"])
    token = issue_token(site.service, bob, "secret")["token"]

    assert site.try_to_connect(bob, token) == 0
    assert site.try_to_connect(bob, token[:-1]) == NOT_AUTHORIZED
    assert site.try_to_connect(bob) == 0


def test_api_token_is_refused_for_a_user_without_the_grant_type(site: Site) -> None:
    bob = site.add_user("bob")
    token = issue_token(site.service, bob, "secret")["token"]
    assert site.try_to_connect(bob, token) == NOT_AUTHORIZED

    site.change(site.device(bob), grantTypes=["token"])
    assert site.try_to_connect(bob, token) == 0
    assert site.try_to_connect(bob) == NOT_AUTHORIZED


def test_api_token_of_another_user_is_refused(site: Site) -> None:
    bob = site.add_user("bob", grantTypes=["password", "token"])
    charlie = site.add_user("charlie", grantTypes=["password", "token"])
    token = issue_token(site.service, charlie, "secret")["token"]

    assert site.try_to_connect(bob, token) == NOT_AUTHORIZED


def test_a_revoked_api_token_is_refused(site: Site) -> None:
    bob = site.add_user("bob", grantTypes=["password", "token"])
    issued = issue_token(site.service, bob, "secret")
    assert site.try_to_connect(bob, issued["token"]) == 0

    with site.in_force(bob):
        assert site.service.call("DELETE", f"/api/tokens/{issued['id']}").status_code == 204
    assert site.try_to_connect(bob, issued["token"]) == NOT_AUTHORIZED


# ---- Unusual input ----


@pytest.mark.parametrize("username", ODD_NAMES)
def test_unusual_username_is_refused_as_unknown(site: Site, username: str) -> None:
    assert site.try_to_connect(username, client_id="odd") == NOT_AUTHORIZED


@pytest.mark.parametrize("client_id", ODD_NAMES)
def test_unusual_client_id_is_accepted(site: Site, client_id: str) -> None:
    bob = site.add_user("bob")

    assert site.try_to_connect(bob, client_id=client_id) == 0
    assert site.try_to_connect(bob, "wrong", client_id=client_id) == NOT_AUTHORIZED


@BOTH_PROTOCOLS
def test_client_without_a_client_id_is_accepted(site: Site, protocol: MQTTProtocolVersion) -> None:
    assert site.try_to_connect(site.add_user("bob"), client_id="", protocol=protocol) == 0


@pytest.mark.parametrize(
    "password",
    [
        "пароль",
        "密码密码密码",
        "\U0001f511\U0001f511\U0001f511\U0001f511\U0001f511",
        "<a>&\"'\\/ +%20",
        "tab\there\n",
        " spaces ",
    ],
)
def test_password_of_any_characters_is_accepted(site: Site, password: str) -> None:
    bob = site.add_user("bob", password=password)

    assert site.try_to_connect(bob, password) == 0
    assert site.try_to_connect(bob, password + "x") == NOT_AUTHORIZED


@pytest.mark.parametrize("password", ["p" * 72, "é" * 36], ids=["ascii", "unicode"])
def test_password_has_72_significant_bytes_and_a_longer_one_is_refused(site: Site, password: str) -> None:
    bob = site.add_user("bob", password=password)

    assert site.try_to_connect(bob, password + "p") == NOT_AUTHORIZED
    assert site.try_to_connect(bob, password[:-1]) == NOT_AUTHORIZED
    assert site.try_to_connect(bob, password) == 0
    assert site.try_to_connect(bob, password + "p") == NOT_AUTHORIZED


def test_password_that_is_not_utf8_is_refused(site: Site) -> None:
    bob = site.add_user("bob")
    assert site.try_to_connect(bob, b"secret\xff") == NOT_AUTHORIZED
