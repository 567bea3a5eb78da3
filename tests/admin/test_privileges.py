"""Every page names an API call that exists, and without the permission for that call it shows and changes nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from authsvc.web.request_context import is_page
from tests.admin.page_objects import FormClient
from tests.registry.signing import signing_request
from tests.shared_routes import routes

if TYPE_CHECKING:
    from werkzeug.routing import Rule

    from authsvc.admin.pages import ApiCall
    from tests.service import Service

_APP = routes()
# Anybody may sign in, and a user without permissions may sign out.
_PUBLIC = {"sign_in.form", "sign_in.sign_in", "sign_in.sign_out", "sign_in.replace_session_form"}
_PUBLIC |= {"sign_in.replace_session", "sign_in.code_form", "sign_in.check_code"}
_PUBLIC |= {"sign_in.set_up_form", "sign_in.confirm_set_up", "sign_in.begin_at_provider", "sign_in.finish_at_provider"}
# Part of values that only a user who may read them should ever see.
_HIDDEN = "hidden-value"


class Route(NamedTuple):
    """One method of one route below `/admin`, and the API call that authorizes it."""

    method: str
    rule: str
    arguments: frozenset[str]
    endpoint: str
    call: ApiCall | None

    def __str__(self) -> str:
        return f"{self.method} {self.rule}"

    def path(self, arguments: dict[str, str]) -> str:
        """Return a path that matches the route."""
        return re.sub(r"<(?:\w+:)?(\w+)>", lambda found: arguments.get(found[1], "somebody"), self.rule)


def _routes_of(rule: Rule) -> list[Route]:
    call = getattr(_APP.view_functions[rule.endpoint], "api_call", None)
    methods = (rule.methods or set()) - {"HEAD", "OPTIONS"}
    return [Route(method, rule.rule, frozenset(rule.arguments), rule.endpoint, call) for method in sorted(methods)]


def _rules(*, pages: bool) -> list[Rule]:
    return [rule for rule in _APP.url_map.iter_rules() if is_page(rule.rule) == pages]


def _without_names(path: str) -> str:
    return re.sub(r"[<{][^>}]*[>}]", "*", path)


ROUTES = [route for rule in _rules(pages=True) for route in _routes_of(rule) if not route.endpoint.endswith(".static")]
GUARDED = [route for route in ROUTES if route.endpoint not in _PUBLIC]
OWN_ACCOUNT = [route for route in GUARDED if route.call and route.call.path.startswith("/api/me/")]
FORMS = [route for route in GUARDED if route.method == "POST"]
API = {(route.method, _without_names(route.rule)) for rule in _rules(pages=False) for route in _routes_of(rule)}


@pytest.mark.parametrize("route", GUARDED, ids=str)
def test_every_page_names_an_existing_api_call(route: Route) -> None:
    assert route.call
    assert route.call.path.startswith("/api/")
    assert (route.call.method, _without_names(route.call.path)) in API
    assert set(re.findall(r"\{(\w+)\}", route.call.path)) <= route.arguments


@pytest.mark.parametrize("route", FORMS, ids=str)
def test_every_form_that_changes_something_names_a_writing_api_call(route: Route) -> None:
    read_only = {"registry_page.selection.ask", "user_selection.ask", "admin.unknown_page"}
    assert route.call
    assert (route.call.method == "GET") == (route.endpoint in read_only)


def test_only_the_sign_in_views_are_public() -> None:
    views = {route.endpoint: _APP.view_functions[route.endpoint] for route in ROUTES}
    assert {endpoint for endpoint, view in views.items() if getattr(view, "public", False)} == _PUBLIC


@pytest.fixture(scope="module")
def hidden(service: Service) -> dict[str, str]:
    """A record of each kind with a hidden value, by the name of the route argument that identifies it."""
    name = f"{_HIDDEN}-user"
    service.create_user(name, "secret", grantTypes=["password", "certificate"])
    service.create_user("somebody", "secret", f"read {_HIDDEN}")
    service.call("POST", "/api/roles", json={"name": "a-role", "description": _HIDDEN})
    token = service.call("POST", "/api/tokens", json={"label": _HIDDEN, "username": name}).json()
    certificate = service.call("POST", f"/api/users/{name}/certificates", json={"csr": signing_request(name)}).json()
    advance = {"username": f"{_HIDDEN}-advance"}
    advances = service.call("POST", "/api/client-registry/preauthorizations", json=advance).json()
    service.call("POST", "/api/client-registry/unlock", json={"durationSeconds": 600})
    asked = {"username": f"{_HIDDEN}-asking", "csr": signing_request(f"{_HIDDEN}-asking")}
    registration = service.call("POST", "/api/client-registry/register", json=asked).json()
    session_client = FormClient(service.url)
    assert session_client.sign_in(name, "secret").status_code == 303
    session = service.call("GET", "/api/sessions", params={"username": name}).json()["items"][0]
    return {
        "username": "somebody",
        "name": "a-role",
        "token_id": str(token["id"]),
        "serial": str(certificate["serial"]),
        "session_id": str(session["id"]),
        "preauthorization_id": str(advances["id"]),
        "registration_id": str(registration["id"]),
    }


@pytest.fixture(scope="module")
def powerless(service: Service) -> FormClient:
    """A signed-in user without any permission."""
    return _signed_in(service, "powerless")


@pytest.fixture(scope="module")
def writer(service: Service) -> FormClient:
    """A signed-in user who may write everything and read nothing."""
    return _signed_in(service, "writer", "http write /api/#", "readWrite #")


@pytest.fixture(scope="module")
def anonymous(service: Service) -> FormClient:
    """A client that is not signed in."""
    return FormClient(service.url)


def _signed_in(service: Service, username: str, *permissions: str) -> FormClient:
    service.create_user(username, "secret", *permissions)
    client = FormClient(service.url)
    assert client.sign_in(username, "secret").status_code == 303
    return client


@pytest.mark.parametrize("route", [route for route in GUARDED if route not in OWN_ACCOUNT], ids=str)
def test_user_without_permissions_sees_and_changes_nothing(
    service: Service, powerless: FormClient, hidden: dict[str, str], route: Route
) -> None:
    before = _state(service)
    answer = _request(powerless, route, hidden, "/admin")
    assert answer.status_code == 403
    assert "needs the permission `http " in answer.text
    assert _HIDDEN not in answer.text
    assert _state(service) == before


@pytest.mark.parametrize("route", OWN_ACCOUNT, ids=str)
def test_own_account_shows_and_ends_nothing_of_others(
    service: Service, powerless: FormClient, hidden: dict[str, str], route: Route
) -> None:
    before = _state(service)
    answer = _request(powerless, route, hidden, "/admin")
    assert answer.status_code in {200, 303, 400, 401, 404, 409}
    assert _HIDDEN not in answer.text
    assert _state(service) == before


@pytest.mark.parametrize("route", GUARDED, ids=str)
def test_anonymous_client_is_redirected_to_the_sign_in_form(
    service: Service, anonymous: FormClient, hidden: dict[str, str], route: Route
) -> None:
    before = _state(service)
    answer = _request(anonymous, route, hidden, "/admin/sign-in")
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith("/admin/sign-in")
    part = anonymous.session.get(anonymous.url + route.path(hidden), headers={"HX-Request": "true"}, timeout=20)
    assert part.status_code in ({401} if route.method == "GET" else {401, 404, 405})
    assert _state(service) == before


@pytest.mark.parametrize("route", FORMS, ids=str)
def test_form_without_a_csrf_token_changes_nothing(
    service: Service, writer: FormClient, hidden: dict[str, str], route: Route
) -> None:
    before = _state(service)
    form = {"username": "new-user", "name": "new-role", "passwordIs": "none", "enabled": "no", "operation": "read"}
    address = writer.url + route.path(hidden)
    answer = writer.session.post(address, data={**form, "resource": "x"}, allow_redirects=False, timeout=20)
    assert answer.status_code == 400
    assert "reload the page" in answer.text
    assert _state(service) == before


@pytest.mark.parametrize("headers", [{}, {"HX-Request": "true"}], ids=["page", "part"])
@pytest.mark.parametrize("route", [route for route in FORMS if route.call and route.call.method != "DELETE"], ids=str)
def test_refused_form_shows_no_stored_values_to_a_write_only_user(
    writer: FormClient, hidden: dict[str, str], route: Route, headers: dict[str, str]
) -> None:
    long = "x" * 5000
    rubbish = {"durationSeconds": "x", "reason": long, "csv": "rubbish", "uses": "x", "roles": "no such role"}
    form = {**rubbish, "csrf_token": writer.form_token("/admin")}
    address = writer.url + route.path(hidden)
    answer = writer.session.post(address, data=form, headers=headers, allow_redirects=False, timeout=20)
    assert answer.status_code < 500
    assert _HIDDEN not in answer.text


def _request(client: FormClient, route: Route, arguments: dict[str, str], drawn_at: str) -> Any:
    path = route.path(arguments)
    return client.get(path) if route.method == "GET" else client.post(path, drawn_at=drawn_at)


def _state(service: Service) -> tuple[int, int]:
    """Return the policy version and the number of audit events; every change increases one of them."""
    version = service.call("GET", "/readyz").json()["policyVersion"]
    return version, service.call("GET", "/api/audit", params={"perPage": 1}).json()["total"]
