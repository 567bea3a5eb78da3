"""Signing in with a password of the directory, at the page and at the API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import requests

from tests.admin.page_objects import FormClient
from tests.certificates.tools import openssl
from tests.identity.slapd import ADMINS, PROGRAM, Slapd, dn
from tests.service import ADMIN_PASSWORD, Service

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(not PROGRAM, reason="Debian's package slapd is missing")

_NAMES = ("alice", "bob", "admin", "press-7", "adm1n", "carol", "dora", "frank")
PEOPLE = {name: f"{name}'s password" for name in _NAMES}


@pytest.fixture(scope="module")
def slapd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    directory = tmp_path_factory.mktemp("slapd")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", directory / "key")
    openssl("req", "-x509", *key, "-subj", "/CN=localhost", "-days", "2", "-out", directory / "certificate")
    with Slapd(directory, (directory / "certificate", directory / "key"), PEOPLE) as slapd:
        slapd.has_groups({"plant-admins": [dn(name) for name in PEOPLE if name != "bob"]})
        yield slapd


@pytest.fixture(scope="module")
def service(slapd: Slapd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    environment = slapd.environment(slapd.plain) | {"AUTHSVC_WRONG_PASSWORDS_PER_MINUTE": "1000"}
    with Service(tmp_path_factory.mktemp("service"), environment) as service:
        yield service


def log_in(service: Service, username: str, password: str) -> requests.Response:
    body = {"username": username, "password": password}
    return requests.post(service.url + "/api/login", json=body, timeout=20)


def test_user_of_the_directory_signs_in_at_the_page_and_the_api(service: Service) -> None:
    browser = FormClient(service.url)
    assert browser.sign_in("alice", PEOPLE["alice"]).status_code == 303
    assert browser.get("/admin/users").status_code == 200
    answer = log_in(service, "ALICE", PEOPLE["alice"])
    assert answer.status_code == 200
    token = {"Authorization": f"Bearer {answer.json()['token']}"}
    assert requests.get(service.url + "/api/me", headers=token, timeout=10).json()["username"] == "alice"
    stored = service.call("GET", "/api/users/alice").json()
    assert (stored["origin"], stored["roles"], stored["groupRoles"]) == ("ldap", [], ["admin"])
    begun = service.call("GET", "/api/audit", params={"action": "session.begin", "actor": "alice"}).json()["items"]
    assert begun[0]["after"]["signedInBy"] == "ldap"


def test_password_of_the_directory_is_stored_nowhere(service: Service) -> None:
    assert log_in(service, "alice", PEOPLE["alice"]).status_code == 200
    stored = b"".join(path.read_bytes() for path in (service.log_file.parent / "data").rglob("*") if path.is_file())
    assert PEOPLE["alice"].encode() not in stored
    assert PEOPLE["alice"] not in service.log_text()


def test_http_basic_does_not_ask_the_directory(service: Service) -> None:
    answer = requests.get(service.url + "/api/me", auth=("alice", PEOPLE["alice"]), timeout=10)
    assert answer.status_code == 401


def test_user_without_a_group_is_refused_plainly(service: Service) -> None:
    answer = log_in(service, "bob", PEOPLE["bob"])
    assert (answer.status_code, answer.json()["code"]) == (403, "no-group")
    assert service.call("GET", "/api/users/bob").status_code == 404


@pytest.mark.parametrize(
    "username", ["admin", "Admin", "ADMIN", "adm1n", "\uff41dmin", "admin@plant.example", " admin"]
)
def test_administrator_of_this_service_cannot_be_taken_over(service: Service, username: str) -> None:
    for person in ("admin", "adm1n"):
        answer = log_in(service, username, PEOPLE[person])
        assert (answer.status_code, answer.json()["code"]) == (401, "wrong-credentials")
    assert log_in(service, "admin", ADMIN_PASSWORD).status_code == 200


def test_names_of_users_kept_here_and_look_alikes_are_not_asked_at_the_directory(
    service: Service, slapd: Slapd
) -> None:
    service.create_user("press-7", "a local password")
    service.create_user("carol@plant.example", "a local password")
    before = slapd.log.read_text().count("SRCH")
    assert log_in(service, "carol@plant.example", PEOPLE["carol"]).status_code == 401
    for username in ("press-7", "PRESS-7", "press7"):
        assert log_in(service, username, PEOPLE["press-7"]).status_code == 401
    assert log_in(service, "press-7", "a local password").status_code == 200
    assert slapd.log.read_text().count("SRCH") == before


def test_user_of_the_directory_signs_in_beside_a_look_alike_that_was_created_later(service: Service) -> None:
    assert log_in(service, "frank", PEOPLE["frank"]).status_code == 200
    service.create_user("f-rank", "a local password")
    service.create_user("Frank", "another local password")
    assert log_in(service, "frank", PEOPLE["frank"]).status_code == 200
    assert log_in(service, "f-rank", "a local password").status_code == 200
    assert log_in(service, "Frank", "another local password").status_code == 200
    assert log_in(service, "Frank", PEOPLE["frank"]).status_code == 401


@pytest.mark.parametrize(
    ("username", "password"), [("alice", ""), ("alice", "wrong"), ("*", "x"), ("al*", "alice's password"), ("", "x")]
)
def test_wrong_credentials_are_answered_like_those_of_users_kept_here(
    service: Service, username: str, password: str
) -> None:
    answer, local = log_in(service, username, password), log_in(service, "admin", "wrong")
    assert (answer.status_code, answer.json()["detail"]) == (local.status_code, local.json()["detail"])


def test_guesses_are_limited_over_all_spellings_of_a_name(slapd: Slapd, service: Service) -> None:
    limited = Service(service.log_file.parent / "limited", slapd.environment(slapd.plain))
    limited.log_file.parent.mkdir()
    with limited:
        spellings = ["carol", "Carol", "CAROL", "cAROL", "caRol", "carOl", "caroL", "CArol", "CARol", "CAROl"]
        assert {log_in(limited, name, "wrong").status_code for name in spellings} == {401}
        assert log_in(limited, "carol", PEOPLE["carol"]).status_code == 429


def test_entry_with_the_name_of_a_deleted_one_gets_neither_its_user_nor_another(service: Service, slapd: Slapd) -> None:
    assert log_in(service, "dora", PEOPLE["dora"]).status_code == 200
    slapd.delete("dora")
    slapd.add("dora", "another person's password")
    answer = log_in(service, "dora", "another person's password")
    assert (answer.status_code, answer.json()["code"]) == (409, "username-taken")


def test_directory_that_is_away_is_said_plainly_and_local_users_sign_in(service: Service, slapd: Slapd) -> None:
    slapd.stop()
    try:
        answer = log_in(service, "alice", PEOPLE["alice"])
        assert (answer.status_code, answer.json()["code"]) == (503, "directory-unavailable")
        page = FormClient(service.url).sign_in("alice", PEOPLE["alice"])
        assert "The directory cannot be reached" in page.text
        assert FormClient(service.url).sign_in("admin", ADMIN_PASSWORD).status_code == 303
        assert ADMINS not in page.text
    finally:
        slapd.start()
