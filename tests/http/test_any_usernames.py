"""Usernames that only administrators can give: in paths, pages, files, certificates and logins."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.actors import BOBS_PASSWORD
from tests.http.callers import Caller, refused_fields
from tests.registry.signing import signing_request
from tests.service import Service, permission

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.http.broker import Broker

NAMES = ["h", "AA:BB:CC:DD:EE:FF", "pump@plant.de", "halle 3", "tenant/dev", "a/b/c", "50%", "a%2Fb", "#", "é" * 255]
NAMES += ["=1+1", "<b>", "?x=1", "-x", "\u202ebob"]


@pytest.mark.parametrize("name", NAMES)
def test_user_with_any_name_can_be_created_read_changed_and_deleted(alice: Caller, broker: Broker, name: str) -> None:
    path = f"/api/users/{quote(name, safe='')}"
    created = alice.post("/api/users", {"username": name, "password": BOBS_PASSWORD})
    assert created.status_code == 201, created.text
    assert created.headers["Location"] == path
    assert alice.get(path).get_json()["username"] == name
    assert broker.logs_in(name, BOBS_PASSWORD).status == 200
    changed = alice.patch(path, {"permissions": [permission("read a/b")]})
    assert changed.status_code == 200, changed.text
    assert broker.acl(name, "a/b", 1).status == 200
    for part in ("denials", "certificates", "decision?topic=a/b&operation=read"):
        assert alice.get(f"{path}/{part}").status_code == 200
    assert alice.delete(path).status_code == 204
    assert alice.get(path).status_code == 404
    assert broker.logs_in(name, BOBS_PASSWORD).status == 403


@pytest.mark.parametrize(("name", "words"), [("a/b", "contains /:"), ("a+#", "contains + and #:"), ("AA:BB", None)])
def test_name_that_no_rule_with_the_username_matches_has_a_warning(alice: Caller, name: str, words: str | None) -> None:
    warnings = alice.post("/api/users", {"username": name, "password": BOBS_PASSWORD}).get_json()["warnings"]
    assert [one["code"] for one in warnings] == (["name-without-topics"] if words else [])
    assert words is None or words in warnings[0]["message"]


def test_permission_for_a_path_names_the_slash_of_a_username_encoded(alice: Caller) -> None:
    for name in ("tenant/dev", "other"):
        alice.creates_user(name, BOBS_PASSWORD)
    alice.creates_user("reader", BOBS_PASSWORD, permissions=[permission("http read /api/users/tenant%2Fdev")])
    reader = alice.signs_in("reader", BOBS_PASSWORD)
    assert reader.get("/api/users/tenant%2Fdev").status_code == 200
    assert reader.get("/api/users/other").status_code == 403


def test_percent_u_in_a_path_stands_for_the_name_as_it_is_in_paths(alice: Caller) -> None:
    own = [permission("http read /api/users/%u")]
    for name in ("a/b", "a%2Fb"):
        alice.creates_user(name, BOBS_PASSWORD, permissions=own)
        caller = alice.signs_in(name, BOBS_PASSWORD)
        for path in ("/api/users/a%2Fb", "/api/users/a%252Fb"):
            expected = 200 if path == f"/api/users/{quote(name, safe='')}" else 403
            assert caller.get(path).status_code == expected


def test_name_too_long_for_a_certificate_gets_a_clear_error(alice: Caller) -> None:
    name = "n" * 65
    alice.creates_user(name, BOBS_PASSWORD, grantTypes=["certificate"])
    answer = alice.post(f"/api/users/{name}/certificates", {"csr": signing_request("other")})
    assert refused_fields(answer) == ["csr"]
    assert "at most 64 characters" in answer.text


def shown(page: str) -> str:
    """Return a page without what its forms send."""
    return re.sub(r'value="[^"]*"', "", page)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.mark.parametrize("name", ["tenant/dev", "50%", "halle 3", "\u202ebob", "a/../b"])
def test_pages_of_a_user_with_any_name_can_be_opened(service: Service, name: str) -> None:
    fields: dict[str, Any] = {"grantTypes": ["certificate", "password"]}
    service.create_user(name, BOBS_PASSWORD, **fields)
    sign_in = {"username": "admin", "password": service.environment["AUTHSVC_ADMIN_PASSWORD"]}
    token = service.call("POST", "/api/login", json=sign_in).json()["token"]
    assert service.call("GET", f"/admin?apiToken={token}").ok
    users = service.call("GET", "/admin/users").text
    path = f"/admin/users/{quote(name, safe='')}"
    assert f'href="{path}"' in users
    assert "\u202e" not in shown(users)
    for part in ("", "/edit", "/password", "/denials", "/decision?topic=a&operation=read", "/certificates/new"):
        answer = service.call("GET", path + part)
        assert answer.status_code == 200, (part, answer.text)
        assert "\u202e" not in shown(answer.text)


@pytest.mark.parametrize(
    ("name", "stem"), [("tenant/press", "tenant%2Fpress"), ("../x", "%2E.%2Fx"), ("ha 3", "ha%203")]
)
def test_certificate_files_of_a_user_with_any_name_stay_in_their_directory(
    service: Service, tmp_path: Path, name: str, stem: str
) -> None:
    service.create_user(name, BOBS_PASSWORD, grantTypes=["certificate"])
    done = service.command("certificates", "issue", name, "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"{stem}.key", f"{stem}.crt", "ca.crt"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_generated_password_is_printed_once_and_works(service: Service) -> None:
    for arguments in (
        ("create", "generated-1", "--generate-password"),
        ("set-password", "generated-1", "--generate-password"),
    ):
        done = service.command("users", *arguments)
        assert done.returncode == 0, done
        (password,) = (line.split()[1] for line in done.stdout.splitlines() if line.startswith("  password"))
        assert len(password) >= 17
    assert service.command("users", "create", "x", "--generate-password", "--password-stdin").returncode == 2
