"""Change or delete several users at once, after a confirmation that lists their names.

They are selected one by one, or as all that match the filter in the address. Then one request changes the next
`_STEP` users, in the order of their names. Its answer shows the progress, and the browser goes on by itself unless some
users could not be changed. Users that were created after the confirmation are not changed.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from flask import Response, flash, g, request, url_for

from authsvc.accounts import users
from authsvc.accounts.bulk import MAX_AT_ONCE, BulkAction
from authsvc.admin.forms import validated
from authsvc.admin.pages import authorize_as, may_call, page_blueprint, redirect_to, render, require_read
from authsvc.admin.roles import role_choices
from authsvc.api.users import BulkBody, UserQuery, change_each
from authsvc.errors import AuthsvcError, NotFound, invalid
from authsvc.policy.topics import path_level
from authsvc.record_json import rfc3339
from authsvc.web.redirects import path_on_this_host

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

    from authsvc.accounts.users import UserFilter, UserRecord

blueprint = page_blueprint("user_selection", __name__)

# Changing this many takes some 3 s of processor time.
_STEP = 100
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
    """Change each selected user that the caller may change, and show which ones were not changed or are left."""
    back = _page_to_return_to()
    action = _action()
    role = request.form.get("role") or None
    try:
        names, remaining = _names()
        validated(BulkBody, usernames=names, action=action.value, role=role)
    except AuthsvcError as error:
        return _confirmation(error)
    done, failed = change_each(names, action, role)
    _, word = _VERBS[action]
    count = request.form.get("done", 0, type=int) + len(done)
    if failed or remaining:
        going_on = {"action": action.value, "role": role or "", "back": back, "all": "yes", "asOf": _as_of()}
        return render(
            "admin/bulk_outcome.html",
            done=done,
            failed=failed,
            remaining=remaining,
            count=count,
            going_on=going_on | {"after": names[-1], "done": count},
            address=_address(),
            word=word,
            back=back,
        )
    flash(f"{count:,} {'user is' if count == 1 else 'users are'} {word}.")
    return redirect_to(back)


def _confirmation(error: AuthsvcError | None) -> Response:
    require_read("/api/users")
    action = _action()
    verb, _ = _VERBS[action]
    if "all" in request.form:
        found = users.search(_filter(), 1, MAX_AT_ONCE)
        chosen, total = found.items, found.total
    else:
        chosen = [record for name in _selected_names() if (record := _record(name))]
        total = len(chosen)
    method = "DELETE" if action is BulkAction.DELETE else "PATCH"
    return render(
        "admin/user_selection.html",
        error=error,
        action=action,
        verb=verb,
        chosen=chosen,
        total=total,
        as_of=_as_of(),
        unchangeable=[one.username for one in chosen if not may_call(method, f"/api/users/{path_level(one.username)}")],
        own_name=g.caller.username,
        unchanged=[one.username for one in chosen if one.enabled == _SWITCHES.get(action)],
        choices=[("", "Choose a role"), *((one.name, one.name) for one in role_choices(()))],
        role=request.form.get("role", ""),
        address=_address(),
        back=_page_to_return_to(),
    )


_SWITCHES = {BulkAction.ENABLE: True, BulkAction.DISABLE: False}


def _action() -> BulkAction:
    try:
        return BulkAction(request.form.get("action", ""))
    except ValueError:
        raise invalid("action", f"must be one of {', '.join(BulkAction)}") from None


def _names() -> tuple[list[str], int]:
    """Return the names of the users to change with this request, and how many more are selected."""
    if "all" not in request.form:
        return _selected_names(), 0
    require_read("/api/users")
    names, count = users.matching_names(_filter(), request.form.get("after", ""), _STEP)
    return names, count - len(names)


def _selected_names() -> list[str]:
    return list(dict.fromkeys(request.form.getlist("usernames")))


def _filter() -> UserFilter:
    """Return the filter in the address, without users that were created after the confirmation."""
    wanted, confirmed = validated(UserQuery, **request.args).wanted(), validated(UserQuery, createdBefore=_as_of())
    limits = [limit for limit in (wanted.created_before, confirmed.wanted().created_before) if limit]
    return replace(wanted, created_before=min(limits))


def _as_of() -> str:
    """Return the time of the first confirmation, rounded up to a second."""
    return request.form.get("asOf") or rfc3339(datetime.now(UTC) + timedelta(seconds=1))


def _address() -> str:
    """Return the address to send the confirmation to, with the filter."""
    wanted: dict[str, Any] = request.args.to_dict()
    return url_for("user_selection.apply", **wanted)


def _record(username: str) -> UserRecord | None:
    try:
        return users.get(username)
    except NotFound:
        return None


def _page_to_return_to() -> str:
    back = request.form.get("back")
    return path_on_this_host(back) if back else url_for("users_page.list_")
