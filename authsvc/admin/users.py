"""Users: list, create, edit, enable, disable, disconnect and delete, and reset passwords."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Response, flash, request, url_for

from authsvc.accounts import api_tokens, browser_sessions, client_id_warnings, users
from authsvc.accounts.sign_in import second_factor
from authsvc.activity import client_ids, live_clients
from authsvc.admin.clients import may_disconnect
from authsvc.admin.forms import (
    expected_versions,
    non_empty_lines,
    permission_rows,
    validated,
    validated_query,
)
from authsvc.admin.pages import (
    ORIGINS,
    ApiCall,
    NavigationEntry,
    authorize_as,
    latest_audit_events,
    may_call,
    page_blueprint,
    redirect_if_readable,
    redirect_to,
    render,
    require_read,
)
from authsvc.admin.roles import role_choices
from authsvc.api.users import UserBody, UserChangeBody, UserPatchBody, UserPath, UserQuery, damage_of
from authsvc.credentials.passwords import generate
from authsvc.errors import AuthsvcError, PreconditionFailed, invalid
from authsvc.exports.rows import USER_COLUMNS, of_user
from authsvc.pki import certificates
from authsvc.policy.snapshot import GrantType
from authsvc.policy.topics import path_level
from authsvc.web.exports import csv_file
from authsvc.web.redirects import path_on_this_host
from authsvc.web.request_context import actor, services, session_lifetime

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

    from authsvc.accounts.users import UserRecord
    from authsvc.activity.disconnects import DisconnectResult
    from authsvc.policy.permissions import Rule

blueprint = page_blueprint("users_page", __name__)
NAVIGATION = NavigationEntry(3, "Users", "users_page.list_", ApiCall("GET", "/api/users"))
_MAX_ROWS = 10
_MAX_CLIENTS = 20


@blueprint.before_request
def check_path() -> None:
    """Raise `InvalidInput` if the username in the path would be invalid in the API's path too."""
    if request.view_args:
        validated(UserPath, **request.view_args)


@blueprint.get("/users")
@authorize_as("GET", "/api/users")
def list_() -> Response:
    """List users, with a form to filter them and check boxes to change several at once."""
    query, keep = validated_query(UserQuery)
    found = users.search(query.wanted(), query.page, query.per_page, query.sort)
    return render(
        "admin/users.html",
        damage_of=damage_of,
        found=found,
        origins=ORIGINS,
        query=query,
        keep=keep,
        filters={name: value for name, value in keep.items() if name not in ("perPage", "sort")},
        here=url_for("users_page.list_", **keep, page=str(query.page)),  # type: ignore[arg-type]
        roles=[(choice.name, choice.name) for choice in role_choices([query.role] if query.role else [])],
    )


@blueprint.get("/users.csv")
@authorize_as("GET", "/api/users")
def export_csv() -> Response:
    """Export the users that match, sorted by name."""
    query, _ = validated_query(UserQuery)
    return csv_file("users.csv", USER_COLUMNS, map(of_user, users.export(query.wanted())))


@blueprint.get("/new-user")
@authorize_as("POST", "/api/users")
def new_form() -> Response:
    return _new({"enabled": True, "grantTypes": [GrantType.PASSWORD], "roles": []}, None)


@blueprint.post("/new-user")
@authorize_as("POST", "/api/users")
def create() -> AnyResponse:
    """Create a user; a generated password is shown in this response only."""
    fields = _submitted_fields()
    try:
        password = _chosen_password()
        body = validated(UserBody, username=request.form.get("username", ""), password=password, **fields)
        changes = body.changes() | {"password": password}  # a validated password is not known to be generated
        record = users.create(actor(), body.username, changes, services().hasher)
    except AuthsvcError as error:
        return _new(fields, error)
    return _report_password(record, password, f"The user {record.username} was created.")


@blueprint.get("/users/<name:username>")
@authorize_as("GET", "/api/users/{username}")
def show(username: str) -> Response:
    return _page(username, None)


@blueprint.get("/users/<name:username>/edit")
@authorize_as("PATCH", "/api/users/{username}")
def edit_form(username: str) -> Response:
    require_read(f"/api/users/{path_level(username)}")
    record = users.get(username)
    fields = {
        "enabled": record.enabled,
        "grantTypes": record.grant_types,
        "roles": record.roles,
        "permissions": [each.fields() for each in record.permissions],
        "clientIds": record.client_ids,
    }
    return _form("admin/user_edit.html", fields, None, username=username, stored_version=record.version)


@blueprint.post("/users/<name:username>/edit")
@authorize_as("PATCH", "/api/users/{username}")
def change(username: str) -> AnyResponse:
    """Save the submitted form, unless the user was changed after the form was rendered."""
    fields, version = _submitted_fields(), request.form.get("updated", "")
    try:
        body = validated(UserChangeBody, **fields)
        users.change(actor(), username, body.changes(), services().hasher, expected_versions(version))
    except PreconditionFailed as error:
        require_read(f"/api/users/{path_level(username)}")
        current = users.get(username)
        # The page shows the current user. If the same form is sent again, its author has seen what it replaces.
        now = {"username": username, "stored_version": current.version, "current": current}
        return _form("admin/user_edit.html", fields, error, **now)
    except AuthsvcError as error:
        return _form("admin/user_edit.html", fields, error, username=username, stored_version=version)
    flash(f"{username} was changed. The change is in force now.")
    return _redirect_to_user(username)


@blueprint.post("/users/<name:username>/enabled")
@authorize_as("PATCH", "/api/users/{username}")
def set_enabled(username: str) -> AnyResponse:
    """Enable or disable a user, and redirect to the page in the field `back`, by default to the user."""
    back = request.form.get("back") and path_on_this_host(request.form["back"])
    try:
        body = validated(UserChangeBody, enabled={"yes": True, "no": False}.get(request.form.get("enabled", "")))
        record = users.change(actor(), username, body.changes(), services().hasher)
    except AuthsvcError as error:
        return _page(username, error)
    flash(f"{username} is enabled." if record.enabled else f"{username} is disabled. All its requests are denied.")
    return redirect_to(back) if back else _redirect_to_user(username)


@blueprint.get("/users/<name:username>/password")
@authorize_as("PATCH", "/api/users/{username}")
def password_form(username: str) -> Response:
    return _password_form(username, None)


@blueprint.post("/users/<name:username>/password")
@authorize_as("PATCH", "/api/users/{username}")
def reset_password(username: str) -> AnyResponse:
    """Set or remove a user's password; a generated one is shown in this response only."""
    try:
        password = _chosen_password()
        body = validated(UserPatchBody, password=password, revokeOthers="revokeOthers" in request.form)
        changes = body.changes() | {"password": password}  # a validated password is not known to be generated
        record = users.change(actor(), username, changes, services().hasher)
    except AuthsvcError as error:
        return _password_form(username, error)
    return _report_password(record, password, f"{username} has {'a new' if password else 'no'} password.")


@blueprint.post("/users/<name:username>/second-factor/remove")
@authorize_as("DELETE", "/api/users/{username}/otp")
def remove_second_factor(username: str) -> AnyResponse:
    """Remove the second factor of a user who has lost it."""
    try:
        second_factor.remove(actor(), username)
    except AuthsvcError as error:
        return _page(username, error)
    flash(f"{username} has no second factor any more.")
    return _redirect_to_user(username)


@blueprint.post("/users/<name:username>/disconnect")
@authorize_as("POST", "/api/users/{username}/disconnect")
def disconnect(username: str) -> AnyResponse:
    """End a user's MQTT sessions, and show for how many client ids that succeeded."""
    try:
        report = users.disconnect(actor(), username, services().broker)
    except AuthsvcError as error:
        return _page(username, error)
    flash(*_disconnect_message(username, report))
    return _redirect_to_user(username)


@blueprint.post("/users/<name:username>/delete")
@authorize_as("DELETE", "/api/users/{username}")
def delete(username: str) -> AnyResponse:
    try:
        users.delete(actor(), username)
    except AuthsvcError as error:
        return _page(username, error)
    flash(f"{username} was deleted.")
    return redirect_if_readable("/api/users", "users_page.list_")


def _page(username: str, error: AuthsvcError | None) -> Response:
    require_read(f"/api/users/{path_level(username)}")
    record = users.get(username)
    return render(
        "admin/user.html", error=error, origins=ORIGINS, user=record, damage=damage_of(record), **_details(record)
    )


def _details(user: UserRecord) -> dict[str, Any]:
    """Return what a user's page shows besides the user; a part that the caller may not read is None or False."""
    name = user.username
    rules, hidden_roles = _effective_rules(user)
    tokens = None
    if may_call("GET", "/api/tokens"):
        api_tokens.store_uses(services().access.token_uses)
        tokens = api_tokens.list_tokens(name, "", 1, _MAX_ROWS)
    connected = live_clients.search(live_clients.LiveClientFilter(username=name), 1, _MAX_CLIENTS)
    return {
        "is_connected": connected.total > 0,
        "connected": may_call("GET", "/api/clients") and connected,
        "may_disconnect": may_disconnect,
        "rules": rules,
        "hidden_roles": hidden_roles,
        "client_ids": _allowed_client_ids(user, hidden_roles),
        "warnings": client_id_warnings.of_user(user),
        "seen": client_ids.of_user(name),
        "certificates": may_call("GET", f"/api/users/{path_level(name)}/certificates")
        and certificates.search(certificates.CertificateFilter(name), 1, _MAX_ROWS),
        "tokens": tokens,
        "sessions": may_call("GET", "/api/sessions")
        and browser_sessions.search(name, session_lifetime(), 1, _MAX_ROWS),
        "events": latest_audit_events(f"user:{name}"),
    }


def _effective_rules(user: UserRecord) -> tuple[list[Rule], list[str]]:
    """Return the rules in force for a user, and the names of roles whose rules are left out as unreadable."""
    snapshot = services().policy.snapshot
    policy = snapshot.users.get(user.username)
    hidden = [role for role in user.all_roles if not may_call("GET", f"/api/roles/{role}")]
    rules = snapshot.rules_of(policy) if policy else []
    return [rule for rule in rules if rule.role not in hidden], hidden


def _allowed_client_ids(user: UserRecord, hidden_roles: list[str]) -> list[tuple[str, str | None]]:
    """Return the allowed client ids, each with the role it comes from or None, without those of hidden roles."""
    roles = services().policy.snapshot.roles
    visible = [role for role in user.all_roles if role in roles and role not in hidden_roles]
    own = [(pattern, None) for pattern in user.client_ids]
    return [*own, *((pattern, role) for role in visible for pattern in roles[role].client_ids)]


def _new(fields: dict[str, Any], error: AuthsvcError | None) -> Response:
    username, chosen = request.form.get("username", ""), request.form.get("passwordIs", "generated")
    return _form("admin/user_new.html", fields, error, username=username, chosen_password=chosen)


def _form(template: str, fields: dict[str, Any], error: AuthsvcError | None, **context: Any) -> Response:
    grant_types = [one.value for one in GrantType]
    roles = role_choices(fields["roles"])
    return render(template, error=error, fields=fields, roles=roles, grant_types=grant_types, **context)


def _password_form(username: str, error: AuthsvcError | None) -> Response:
    require_read(f"/api/users/{path_level(username)}")
    return render(
        "admin/user_password.html",
        error=error,
        user=users.get(username),
        chosen_password=request.form.get("passwordIs", "generated"),
        revoke_others=request.method == "GET" or "revokeOthers" in request.form,
    )


def _report_password(record: UserRecord, password: str | None, message: str) -> AnyResponse:
    """Return a page with the generated password, or else a redirect to the user that shows the message."""
    if password is not None and request.form.get("passwordIs") == "generated":
        return render("admin/password_generated.html", username=record.username, password=password, message=message)
    flash(message)
    return _redirect_to_user(record.username)


def _disconnect_message(username: str, report: DisconnectResult) -> tuple[str, str]:
    """Return the message about a disconnect, and its category."""
    ended, failed = len(report.ended), len(report.failed)
    if failed:
        counts = f"{failed} of {ended + failed} client ids of {username} could not be disconnected"
        return f"{counts}: a broker did not confirm it. Check that it runs, and AUTHSVC_BROKER_URL.", "wrong"
    if not ended:
        return f"No MQTT client of {username} was seen in the last 30 days, so none was disconnected.", "warn"
    ids = "1 client id" if ended == 1 else f"{ended} client ids"
    return f"{username} was disconnected ({ids}). Disable {username} to prevent a reconnect.", "message"


def _redirect_to_user(username: str) -> AnyResponse:
    return redirect_if_readable(f"/api/users/{path_level(username)}", "users_page.show", username=username)


def _submitted_fields() -> dict[str, Any]:
    """Return the submitted fields under the names that the API's schemas have for them."""
    form = request.form
    return {
        "enabled": "enabled" in form,
        "grantTypes": form.getlist("grantTypes"),
        "roles": form.getlist("roles"),
        "permissions": permission_rows(form),
        "clientIds": non_empty_lines(form, "clientIds"),
    }


def _chosen_password() -> str | None:
    """Return the password that the form asks for: a newly generated one, the typed one, or None for no password."""
    choice = request.form.get("passwordIs")
    if choice == "generated":
        return generate(services().settings.password_policy)
    if choice == "typed":
        return request.form.get("password", "")
    if choice == "none":
        return None
    raise invalid("passwordIs", "must be one of generated, typed, none")
