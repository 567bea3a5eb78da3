"""Why?: would a user be allowed, what was it denied lately, and the one click that cures it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Response, flash, g, request, url_for

from authsvc.accounts import users
from authsvc.activity import denials
from authsvc.admin.forms import submitted
from authsvc.admin.pages import by_field, may, pages, render, see, stands_for, unattended
from authsvc.api.schemas import PermissionBody
from authsvc.api.users import DecisionQuery, decide_for
from authsvc.errors import AuthsvcError, InvalidInput
from authsvc.policy.access import access_name
from authsvc.web.problem import status_of
from authsvc.web.request_context import actor

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

blueprint = pages("why_page", __name__)


@blueprint.get("/users/<username>/decision")
@stands_for("GET", "/api/users/{username}/decision")
def decision(username: str) -> Response:
    """Say whether the user would be allowed, with the rule and role that decide."""
    users.get(username)
    try:
        query = submitted(DecisionQuery, **{name: value for name, value in request.args.items() if value})
        decided = decide_for(username, query)
    except InvalidInput as error:
        return render("admin/decision.html", 400, errors=by_field(error), decided=None)
    return render("admin/decision.html", query=query, decided=decided)


@blueprint.get("/users/<username>/denials")
@stands_for("GET", "/api/users/{username}/denials")
@unattended
def recent_denials(username: str) -> Response:
    """List what the user was denied lately, with what would cure each."""
    g.quiet = True  # an open page asks every few seconds
    return render("admin/denials.html", username=username, denials=denials.of_user(username), operation_for=access_name)


@blueprint.get("/users/<username>/allow")
@stands_for("POST", "/api/users/{username}/permissions")
def ask(username: str) -> Response:
    """Show the permission that would be added, and ask."""
    users.get(username)
    try:
        submitted(PermissionBody, **_offered()).permission()
    except InvalidInput as error:
        return _question(username, error)
    return _question(username, None)


@blueprint.post("/users/<username>/allow")
@stands_for("POST", "/api/users/{username}/permissions")
def allow(username: str) -> AnyResponse:
    """Add the permission."""
    try:
        permission = submitted(PermissionBody, **_offered()).permission()
        users.allow(actor(), username, permission)
    except AuthsvcError as error:
        return _question(username, error)
    flash(f"{username} may {permission.operation} {permission.resource} from now on.")
    seen = may("GET", f"/api/users/{username}")
    return see(url_for("users_page.show", username=username) if seen else url_for("overview.show"))


def _offered() -> dict[str, str]:
    return {
        "context": "mqtt",
        "operation": request.values.get("operation", ""),
        "resource": request.values.get("resource", ""),
    }


def _question(username: str, error: AuthsvcError | None) -> Response:
    status, offered = status_of(error) if error else 200, _offered()
    cures = may("GET", f"/api/users/{username}/denials") and _cures(username, offered)
    return render("admin/allow.html", status, username=username, offered=offered, cures=cures, errors=by_field(error))


def _cures(username: str, offered: dict[str, str]) -> bool:
    """Say whether that would cure a recent denial: anybody can make up an address and send it to an administrator."""
    remedies = [record.advice.permission for record in denials.of_user(username)]
    return any(one and one.fields() == {**offered, "effect": "allow"} for one in remedies)
