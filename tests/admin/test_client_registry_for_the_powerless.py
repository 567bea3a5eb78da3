"""The Client Registry's page for whoever may only look, or not even that."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.admin.page_objects import FormClient
from tests.admin.registry_client import Registry
from tests.service import ADMIN_PASSWORD

if TYPE_CHECKING:
    from tests.service import Service

PASSWORD = "a visitor's secret"
POLLS = ("/lock", "/registrations")


@pytest.fixture(scope="module")
def gate(service: Service) -> Registry:
    """A registry with somebody who may look, and somebody who may not."""
    service.create_user("reader", PASSWORD, "http read /api/client-registry/#", "http read /api/me")
    service.create_user("outsider", PASSWORD, "http read /api/me")
    return Registry(service)


def signed_in(gate: Registry, username: str, password: str = PASSWORD) -> FormClient:
    form = FormClient(gate.service.url)
    assert form.sign_in(username, password).status_code == 303
    return form


def views(gate: Registry, registration: str) -> list[str]:
    return [
        "/admin/registry",
        "/admin/registry/lock",
        "/admin/registry/registrations",
        f"/admin/registry/registrations/{registration}",
        "/admin/registry/preauthorizations",
        "/admin/registry/enrolment-keys",
    ]


def changes(gate: Registry, registration: str) -> list[tuple[str, dict[str, Any]]]:
    advance = gate.call_api("POST", "/preauthorizations", username=f"expected-{registration[:8]}")["id"]
    key = gate.call_api("POST", "/enrolment-keys", label="hall 4")["id"]
    one, many = f"/admin/registry/registrations/{registration}", "/admin/registry/registrations"
    return [
        ("/admin/registry/unlock", {"durationSeconds": "300"}),
        ("/admin/registry/lock", {}),
        *((f"{one}/{verb}", {}) for verb in ("grant", "deny", "delete", "unlock")),
        *((f"{many}/{verb}", {"ids": [registration]}) for verb in ("grant", "deny")),
        *((f"{many}/selected", {"ids": [registration], "decision": verb}) for verb in ("grant", "deny")),
        ("/admin/registry/preauthorizations", {"username": "mallory"}),
        ("/admin/registry/preauthorizations/csv", {"csv": "username\nmallory"}),
        (f"/admin/registry/preauthorizations/{advance}/delete", {}),
        ("/admin/registry/enrolment-keys", {"label": "mallory's", "uses": "9"}),
        (f"/admin/registry/enrolment-keys/{key}/revoke", {}),
    ]


def state(gate: Registry) -> list[Any]:
    lock = gate.call_api("GET", "")
    lists = ("/registrations", "/preauthorizations", "/enrolment-keys")
    return [lock["locked"], *(gate.call_api("GET", f"{each}?perPage=1000") for each in lists)]


def test_whoever_may_only_look_sees_everything_and_no_button(gate: Registry) -> None:
    username = gate.add_unknown_device()
    reader = signed_in(gate, "reader")
    for path in views(gate, gate.id_of(username)):
        answer = reader.get(path)
        assert answer.status_code in (200, 303), path
        assert set(re.findall(r'<form[^>]* action="([^"]+)"', answer.text)) <= {"/admin/sign-out"}, path
        assert not re.findall(r"<button[^>]*>(?!Search|Sign out)", answer.text), path
        assert 'name="ids"' not in answer.text
    assert username in reader.get("/admin/registry").text
    assert "New key" not in reader.get("/admin/registry/enrolment-keys").text
    assert reader.get("/admin/registry/enrolment-keys/new").status_code == 403


@pytest.mark.parametrize("who", ["reader", "outsider"])
def test_whoever_may_not_change_it_is_refused_and_nothing_changed(gate: Registry, who: str) -> None:
    registration = gate.id_of(gate.add_unknown_device())
    asked = changes(gate, registration)
    before, form = state(gate), signed_in(gate, who)
    refused = [(path, form.post(path, drawn_at="/admin", **fields).status_code) for path, fields in asked]
    assert refused == [(path, 403) for path, _ in asked]
    assert state(gate) == before


def test_a_stranger_to_the_registry_sees_none_of_it(gate: Registry) -> None:
    outsider = signed_in(gate, "outsider")
    for path in (*views(gate, gate.id_of(gate.add_unknown_device())), "/admin/registry/enrolment-keys/new"):
        assert outsider.get(path).status_code == 403, path
    assert "Client Registry" not in outsider.get("/admin").text


def test_a_form_that_was_not_drawn_here_changes_nothing(gate: Registry) -> None:
    asked = changes(gate, gate.id_of(gate.add_unknown_device()))
    before, admin = state(gate), signed_in(gate, "admin", ADMIN_PASSWORD)
    for path, fields in asked:
        assert admin.session.post(gate.service.url + path, data=fields, timeout=10).status_code == 400, path
    assert state(gate) == before


@pytest.mark.parametrize("poll", POLLS)
def test_what_the_browser_has_already_is_not_sent_again(gate: Registry, poll: str) -> None:
    gate.add_unknown_device()
    admin = signed_in(gate, "admin", ADMIN_PASSWORD)
    address, headers = f"{gate.service.url}/admin/registry{poll}", {"HX-Request": "true"}
    first = admin.session.get(address, headers=headers, timeout=10)
    (mark,) = re.findall(r'name="seen" value="(\w+)"', first.text)
    assert "<html" not in first.text
    logged = gate.service.log_text().count(f'"/admin/registry{poll}"')
    again = admin.session.get(address, params={"seen": mark}, headers=headers, timeout=10)
    assert (again.status_code, again.text) == (204, "")
    assert gate.service.log_text().count(f'"/admin/registry{poll}"') == logged
    gate.unlock(durationSeconds=77)
    gate.add_unknown_device()
    assert admin.session.get(address, params={"seen": mark}, headers=headers, timeout=10).status_code == 200


def test_a_table_that_refreshes_itself_is_no_page_and_asks_to_sign_in_when_the_session_is_over(
    gate: Registry,
) -> None:
    admin = signed_in(gate, "admin", ADMIN_PASSWORD)
    assert admin.get("/admin/registry/registrations?status=denied").headers["Location"].endswith("status=denied")
    admin.session.cookies.clear()
    answer = admin.session.get(
        f"{gate.service.url}/admin/registry/registrations", headers={"HX-Request": "true"}, timeout=10
    )
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (401, "/admin/sign-in")
