"""Every page stands for a call of the API that exists, and without its permission shows and changes nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from authsvc.app import create_app
from authsvc.settings import Settings
from authsvc.web.request_context import is_page
from tests.admin.page_objects import FormFiller
from tests.registry.signing import signing_request

if TYPE_CHECKING:
    from werkzeug.routing import Rule

    from authsvc.admin.pages import ApiCall
    from tests.service import Service

_APP = create_app(Settings(data_dir=Path("nowhere"), database_url="sqlite:///nowhere", bcrypt_cost=4))
# Whoever is not signed in may sign in, and whoever may do nothing at all may still leave.
_REPLACING = {"sign_in.ask_to_replace_session", "sign_in.replace_session"}
_PUBLIC = {"sign_in.form", "sign_in.sign_in", "sign_in.sign_out", *_REPLACING}
# What only somebody who may read it should ever see.
_TREASURE = "treasure"


class Way(NamedTuple):
    """One method of one address below `/admin`, and the call of the API that it stands for."""

    method: str
    rule: str
    arguments: frozenset[str]
    endpoint: str
    call: ApiCall | None

    def __str__(self) -> str:
        return f"{self.method} {self.rule}"

    def address(self, **arguments: str) -> str:
        """Return an address that fits; what it names need not exist."""
        return re.sub(r"<(?:\w+:)?(\w+)>", lambda found: arguments.get(found[1], "somebody"), self.rule)


def _ways_of(rule: Rule) -> list[Way]:
    call = getattr(_APP.view_functions[rule.endpoint], "call", None)
    methods = (rule.methods or set()) - {"HEAD", "OPTIONS"}
    return [Way(method, rule.rule, frozenset(rule.arguments), rule.endpoint, call) for method in sorted(methods)]


def _rules(*, pages: bool) -> list[Rule]:
    return [rule for rule in _APP.url_map.iter_rules() if is_page(rule.rule) == pages]


def _shape(path: str) -> str:
    return re.sub(r"[<{][^>}]*[>}]", "*", path)


WAYS = [way for rule in _rules(pages=True) for way in _ways_of(rule) if not way.endpoint.endswith(".static")]
GUARDED = [way for way in WAYS if way.endpoint not in _PUBLIC]
API = {(way.method, _shape(way.rule)) for rule in _rules(pages=False) for way in _ways_of(rule)}


@pytest.mark.parametrize("way", GUARDED, ids=str)
def test_a_page_stands_for_a_call_that_the_api_has(way: Way) -> None:
    assert way.call
    assert way.call.path.startswith("/api/")
    assert (way.call.method, _shape(way.call.path)) in API
    assert set(re.findall(r"\{(\w+)\}", way.call.path)) <= way.arguments


@pytest.mark.parametrize("way", [way for way in GUARDED if way.method == "POST"], ids=str)
def test_what_changes_something_stands_for_a_call_that_does(way: Way) -> None:
    asks_only = {"registry_page.selection.ask", "admin.nowhere"}
    assert way.call
    assert (way.call.method == "GET") == (way.endpoint in asks_only)


def test_nothing_else_is_open_to_everybody() -> None:
    views = {way.endpoint: _APP.view_functions[way.endpoint] for way in WAYS}
    assert {endpoint for endpoint, view in views.items() if getattr(view, "public", False)} == _PUBLIC


@pytest.fixture(scope="module")
def powerless(service: Service) -> FormFiller:
    """Somebody who is signed in and may not even read who that is."""
    service.create_user("powerless", "secret")
    browser = FormFiller(service.url)
    assert browser.sign_in("powerless", "secret").status_code == 303
    return browser


@pytest.fixture(scope="module")
def stranger(service: Service) -> FormFiller:
    """Somebody who has been shown the form and has not signed in."""
    return FormFiller(service.url)


@pytest.mark.parametrize("way", GUARDED, ids=str)
def test_whoever_may_nothing_gets_nothing(service: Service, powerless: FormFiller, way: Way) -> None:
    before = _state(service)
    answer = _go(powerless, way, "/admin")
    assert answer.status_code == 403
    assert "you lack http" in answer.text.lower()
    assert _state(service) == before


@pytest.mark.parametrize("way", GUARDED, ids=str)
def test_whoever_is_not_signed_in_is_asked_to(service: Service, stranger: FormFiller, way: Way) -> None:
    before = _state(service)
    answer = _go(stranger, way, "/admin/sign-in")
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith("/admin/sign-in")
    part = stranger.session.get(stranger.url + way.address(), headers={"HX-Request": "true"}, timeout=20)
    assert part.status_code in ({401} if way.method == "GET" else {401, 404, 405})
    assert _state(service) == before


@pytest.fixture(scope="module")
def treasures(service: Service) -> dict[str, str]:
    """Something of each kind, by the name that addresses of pages have for it."""
    name = f"{_TREASURE}-user"
    service.create_user(name, "secret", grantTypes=["password", "certificate"])
    service.create_user("somebody", "secret", f"read {_TREASURE}")
    service.call("POST", "/api/roles", json={"name": "a-role", "description": _TREASURE})
    token = service.call("POST", "/api/tokens", json={"label": _TREASURE, "username": name}).json()
    certificate = service.call("POST", f"/api/users/{name}/certificates", json={"csr": signing_request(name)}).json()
    advance = {"username": f"{_TREASURE}-advance"}
    advances = service.call("POST", "/api/client-registry/preauthorizations", json=advance).json()
    service.call("POST", "/api/client-registry/unlock", json={"durationSeconds": 600})
    asked = {"username": f"{_TREASURE}-asking", "csr": signing_request(f"{_TREASURE}-asking")}
    registration = service.call("POST", "/api/client-registry/register", json=asked).json()
    return {
        "username": "somebody",
        "name": "a-role",
        "token_id": str(token["id"]),
        "serial": str(certificate["serial"]),
        "preauthorization_id": str(advances["id"]),
        "registration_id": str(registration["id"]),
    }


@pytest.fixture(scope="module")
def writer(service: Service) -> FormFiller:
    """Somebody who may change everything and see nothing."""
    service.create_user("writer", "secret", "http write /api/#", "readWrite #")
    browser = FormFiller(service.url)
    assert browser.sign_in("writer", "secret").status_code == 303
    return browser


_FORMS = [way for way in GUARDED if way.method == "POST" and way.call and way.call.method != "DELETE"]


@pytest.mark.parametrize("headers", [{}, {"HX-Request": "true"}], ids=["page", "part"])
@pytest.mark.parametrize("way", _FORMS, ids=str)
def test_whoever_may_only_write_is_shown_nothing_by_a_form_that_is_refused(
    writer: FormFiller, treasures: dict[str, str], way: Way, headers: dict[str, str]
) -> None:
    long = "x" * 5000
    rubbish = {"durationSeconds": "x", "reason": long, "csv": "rubbish", "uses": "x", "roles": "no such role"}
    form = {**rubbish, "csrf_token": writer.form_token("/admin")}
    address = writer.url + way.address(**treasures)
    answer = writer.session.post(address, data=form, headers=headers, allow_redirects=False, timeout=20)
    assert answer.status_code < 500
    assert _TREASURE not in answer.text


def _go(browser: FormFiller, way: Way, drawn_at: str) -> Any:
    return browser.get(way.address()) if way.method == "GET" else browser.post(way.address(), drawn_at=drawn_at)


def _state(service: Service) -> tuple[int, int]:
    """Return what every change moves: the version of the policy, and how much there is in the audit trail."""
    version = service.call("GET", "/readyz").json()["policyVersion"]
    return version, service.call("GET", "/api/audit", params={"perPage": 1}).json()["total"]
