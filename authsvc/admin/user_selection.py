"""Change or delete several users at once, after a confirmation that lists their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Response, flash, g, request, url_for

from authsvc.accounts import users
from authsvc.accounts.bulk import BulkAction
from authsvc.admin.forms import validated
from authsvc.admin.pages import authorize_as, may_call, page_blueprint, redirect_to, render, require_read
from authsvc.admin.roles import role_choices
from authsvc.api.users import BulkBody, change_each
from authsvc.errors import AuthsvcError, NotFound, invalid
from authsvc.policy.topics import path_level
from authsvc.web.redirects import path_on_this_host

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

    from authsvc.accounts.users import UserRecord

blueprint = page_blueprint("user_selection", __name__)

_VERBS = {
    BulkAction.ENABLE: ("Enable", "enabled"),
    BulkAction.DISABLE: ("Disable", "disabled"),
    BulkAction.DELETE: ("Delete", "deleted"),
    BulkAction.ADD_ROLE: ("Add a role to", "changed"),
    BulkAction.REMOVE_ROLE: ("Remove a role from", "changed"),
}


@blueprint.post("/users/selected")
@authorize_as("GET", "/api/users")
def ask() -> Response:
    """Show the names of the selected users and what will be done, and ask for confirmation."""
    return _confirmation(None)


@blueprint.post("/users/bulk")
@authorize_as("POST", "/api/users/bulk")
def apply() -> AnyResponse:
    """Change each selected user that the caller may change, and show which ones were not changed."""
    back = _page_to_return_to()
    action = _action()
    try:
        body = validated(
            BulkBody,
            usernames=request.form.getlist("usernames"),
            action=action.value,
            role=request.form.get("role") or None,
        )
    except AuthsvcError as error:
        return _confirmation(error)
    done, failed = change_each(body)
    _, word = _VERBS[action]
    if failed:
        return render("admin/bulk_outcome.html", done=done, failed=failed, word=word, back=back)
    flash(f"{len(done):,} {'user is' if len(done) == 1 else 'users are'} {word}.")
    return redirect_to(back)


def _confirmation(error: AuthsvcError | None) -> Response:
    require_read("/api/users")
    action = _action()
    verb, _ = _VERBS[action]
    chosen = [record for name in dict.fromkeys(request.form.getlist("usernames")) if (record := _record(name))]
    method = "DELETE" if action is BulkAction.DELETE else "PATCH"
    return render(
        "admin/user_selection.html",
        error=error,
        action=action,
        verb=verb,
        chosen=chosen,
        unchangeable=[one.username for one in chosen if not may_call(method, f"/api/users/{path_level(one.username)}")],
        own_name=g.caller.username,
        unchanged=[one.username for one in chosen if one.enabled == _SWITCHES.get(action)],
        choices=[("", "Choose a role"), *((one.name, one.name) for one in role_choices(()))],
        role=request.form.get("role", ""),
        back=_page_to_return_to(),
    )


_SWITCHES = {BulkAction.ENABLE: True, BulkAction.DISABLE: False}


def _action() -> BulkAction:
    try:
        return BulkAction(request.form.get("action", ""))
    except ValueError:
        raise invalid("action", f"must be one of {', '.join(BulkAction)}") from None


def _record(username: str) -> UserRecord | None:
    try:
        return users.get(username)
    except NotFound:
        return None


def _page_to_return_to() -> str:
    back = request.form.get("back")
    return path_on_this_host(back) if back else url_for("users_page.list_")
