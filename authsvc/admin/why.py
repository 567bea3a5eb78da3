"""Why a user was denied: a dry run of a request, recent denials, and a button that adds the missing permission."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Response, flash, g, request

from authsvc.accounts import users
from authsvc.activity import denials
from authsvc.admin.forms import validated, validated_query
from authsvc.admin.pages import (
    authorize_as,
    may_call,
    page_blueprint,
    polled,
    redirect_if_readable,
    redirect_to,
    render,
)
from authsvc.api.schemas import PermissionBody
from authsvc.api.users import DecisionQuery, decide_for
from authsvc.errors import AuthsvcError, InvalidInput
from authsvc.policy.access import access_name
from authsvc.policy.decision import Reason
from authsvc.policy.topics import path_level
from authsvc.web.redirects import path_on_this_host
from authsvc.web.request_context import actor

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

blueprint = page_blueprint("why_page", __name__)

DENIAL_CONTEXT: dict[str, Any] = {
    "operation_for": access_name,
    "denial_reasons": {
        Reason.CLIENT_ID_NOT_ALLOWED: "client id not allowed",
        Reason.DAMAGED_POLICY: "damaged policy",
        Reason.DENIED_BY_PERMISSION: "deny rule",
        Reason.GRANT_TYPE_MISSING: "grant type missing",
        Reason.INVALID_TOKEN: "invalid token",
        Reason.NO_PERMISSION: "no permission",
        Reason.NO_VALID_CERTIFICATE: "no valid certificate",
        Reason.HASHING_BUSY: "service too busy",
        Reason.SHARE_REACHES_DENIED: "shared subscription overlaps a deny rule",
        Reason.THROTTLED: "too many wrong passwords",
        Reason.USER_DISABLED: "user disabled",
        Reason.WRONG_PASSWORD: "wrong password",
    },
}
"""What the template `denials_table.html` needs besides the denials."""


@blueprint.get("/users/<name:username>/decision")
@authorize_as("GET", "/api/users/{username}/decision")
def decision(username: str) -> Response:
    """Show whether a request would be allowed, and the rule and role that decide it."""
    users.get(username)
    try:
        query, _ = validated_query(DecisionQuery)
        decided = decide_for(username, query)
    except InvalidInput as error:
        return render("admin/decision.html", error=error, decided=None)
    return render("admin/decision.html", decided=decided)


@blueprint.get("/users/<name:username>/denials")
@authorize_as("GET", "/api/users/{username}/denials")
@polled
def recent_denials(username: str) -> Response:
    """List the user's recent denials, each with the permission or other change that would allow it."""
    g.quiet = True  # not logged: an open page requests this every 3 seconds
    return render("admin/denials.html", denials=denials.of_user(username), **DENIAL_CONTEXT)


@blueprint.get("/users/<name:username>/allow")
@authorize_as("POST", "/api/users/{username}/permissions")
def allow_form(username: str) -> Response:
    """Ask for confirmation before the permission in the query is added."""
    users.get(username)
    try:
        validated(PermissionBody, **_requested_permission()).permission()
    except InvalidInput as error:
        return _confirmation(username, error)
    return _confirmation(username, None)


@blueprint.post("/users/<name:username>/allow")
@authorize_as("POST", "/api/users/{username}/permissions")
def allow(username: str) -> AnyResponse:
    """Add the permission to the user, and redirect to the page in the field `back`, by default to the user."""
    back = _page_to_return_to()
    try:
        permission = validated(PermissionBody, **_requested_permission()).permission()
        users.allow(actor(), username, permission)
    except AuthsvcError as error:
        return _confirmation(username, error)
    flash(f"{username} may now {permission.operation} {permission.resource}.")
    if back:
        return redirect_to(back)
    return redirect_if_readable(f"/api/users/{path_level(username)}", "users_page.show", username=username)


def _page_to_return_to() -> str | None:
    back = request.values.get("back")
    return path_on_this_host(back) if back else None


def _requested_permission() -> dict[str, str]:
    return {
        "context": "mqtt",
        "operation": request.values.get("operation", ""),
        "resource": request.values.get("resource", ""),
    }


def _confirmation(username: str, error: AuthsvcError | None) -> Response:
    wanted, back = _requested_permission(), _page_to_return_to()
    suggested = False
    # Anybody can make up such a link and send it to an administrator, so the page says whether a denial matches it.
    if may_call("GET", f"/api/users/{path_level(username)}/denials") or may_call("GET", "/api/denials"):
        advised = [record.advice.permission for record in denials.of_user(username)]
        suggested = any(one and one.fields() == {**wanted, "effect": "allow"} for one in advised)
    return render("admin/allow.html", error=error, username=username, wanted=wanted, suggested=suggested, back=back)
