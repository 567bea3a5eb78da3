"""Users: to be found among many, made, changed, switched off, given a new password, and removed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from flask import Response, flash, request, url_for

from authsvc.accounts import users
from authsvc.admin.forms import as_of, lines, permission_rows, submitted
from authsvc.admin.pages import ApiCall, NavigationEntry, by_field, may, must_read, pages, render, see, stands_for
from authsvc.admin.redirects import path_on_this_host
from authsvc.admin.roles import choices
from authsvc.admin.user_page import beside
from authsvc.api.users import UserBody, UserChangeBody, UserPatchBody, UserPath, UserQuery, damage_of
from authsvc.credentials.passwords import generate
from authsvc.errors import AuthsvcError, PreconditionFailed, invalid
from authsvc.policy.snapshot import GrantType
from authsvc.web.problem import status_of
from authsvc.web.request_context import actor, services

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

    from authsvc.accounts.users import UserRecord
    from authsvc.activity.disconnects import DisconnectResult
    from authsvc.admin.forms import Rows

blueprint = pages("users_page", __name__)
NAVIGATION = NavigationEntry(3, "Users", "users_page.list_", ApiCall("GET", "/api/users"))


@dataclass(frozen=True, slots=True)
class Shown:
    """What a form shows of a user: what is stored, or what was typed and refused. `updated`: which version."""

    username: str = ""
    enabled: bool = True
    grant_types: list[str] = field(default_factory=lambda: [GrantType.PASSWORD])
    roles: list[str] = field(default_factory=list)
    permissions: Rows = field(default_factory=list)
    client_ids: list[str] = field(default_factory=list)
    updated: str = ""

    def fields(self) -> dict[str, Any]:
        """Return what the API's bodies take of it."""
        return {
            "enabled": self.enabled,
            "grantTypes": self.grant_types,
            "roles": self.roles,
            "permissions": self.permissions,
            "clientIds": self.client_ids,
        }


@blueprint.before_request
def check_address() -> None:
    """Refuse a username that the API would not read from an address either."""
    if request.view_args:
        submitted(UserPath, **request.view_args)


@blueprint.get("/users")
@stands_for("GET", "/api/users")
def list_() -> Response:
    """List users by name."""
    asked = {name: value for name, value in request.args.items() if value}
    query = submitted(UserQuery, **asked)
    found = users.search(
        query.search, query.page, query.per_page, query.role, administrators_on_broker=query.administrator_on_broker
    )
    asked.pop("page", None)
    kept = {
        "search": query.search or None,
        "role": query.role or None,
        "administratorOnBroker": "true" if query.administrator_on_broker else None,
        "perPage": query.per_page,
    }
    here = url_for("users_page.list_", page=query.page, **kept)  # type: ignore[arg-type]
    return render("admin/users.html", damage_of=damage_of, found=found, query=query, keep=asked, here=here)


@blueprint.get("/new-user")
@stands_for("POST", "/api/users")
def ask() -> Response:
    """Ask for a new user."""
    return _new(Shown(), None)


@blueprint.post("/new-user")
@stands_for("POST", "/api/users")
def create() -> AnyResponse:
    """Make a user; a password that is generated for it is shown, this once."""
    typed = _typed()
    try:
        password = _password_wanted()
        body = submitted(UserBody, username=typed.username, password=password, **typed.fields())
        record = users.create(actor(), body.username, body.changes(), services().hasher)
    except AuthsvcError as error:
        return _new(typed, error)
    return _tell(record, password, f"{record.username} may connect as soon as you tell it how.")


@blueprint.get("/users/<username>")
@stands_for("GET", "/api/users/{username}")
def show(username: str) -> Response:
    """Show a user, and everything that belongs to it."""
    return _page(username, None)


@blueprint.get("/users/<username>/edit")
@stands_for("PATCH", "/api/users/{username}")
def ask_changes(username: str) -> Response:
    """Offer what there is of a user to be changed."""
    must_read(f"/api/users/{username}")
    return _edit(username, _stored(users.get(username)), None)


@blueprint.post("/users/<username>/edit")
@stands_for("PATCH", "/api/users/{username}")
def change(username: str) -> AnyResponse:
    """Change a user, unless somebody else did after the form was drawn."""
    typed = replace(_typed(), username=username)
    try:
        body = submitted(UserChangeBody, **typed.fields())
        users.change(actor(), username, body.changes(), services().hasher, as_of(typed.updated))
    except AuthsvcError as error:
        return _edit(username, typed, error)
    flash(f"{username} was changed; that is in force now.")
    return _lead_to(username)


@blueprint.post("/users/<username>/enabled")
@stands_for("PATCH", "/api/users/{username}")
def switch(username: str) -> AnyResponse:
    """Enable or disable a user, and go back to where that was asked."""
    back = request.form.get("back") and path_on_this_host(request.form["back"])
    try:
        body = submitted(UserChangeBody, enabled={"yes": True, "no": False}.get(request.form.get("enabled", "")))
        record = users.change(actor(), username, body.changes(), services().hasher)
    except AuthsvcError as error:
        return _page(username, error)
    flash(f"{username} is enabled." if record.enabled else f"{username} is disabled and can do nothing any more.")
    return see(back) if back else _lead_to(username)


@blueprint.get("/users/<username>/password")
@stands_for("PATCH", "/api/users/{username}")
def ask_password(username: str) -> Response:
    """Ask for a new password."""
    return _password(username, None)


@blueprint.post("/users/<username>/password")
@stands_for("PATCH", "/api/users/{username}")
def reset_password(username: str) -> AnyResponse:
    """Give a user another password, or none, and revoke what else it has; a generated one is shown, this once."""
    try:
        password = _password_wanted()
        body = submitted(UserPatchBody, password=password, revokeOthers="revokeOthers" in request.form)
        record = users.change(actor(), username, body.changes(), services().hasher)
    except AuthsvcError as error:
        return _password(username, error)
    return _tell(record, password, f"{username} has {'a new' if password else 'no'} password.")


@blueprint.post("/users/<username>/disconnect")
@stands_for("POST", "/api/users/{username}/disconnect")
def disconnect(username: str) -> AnyResponse:
    """End a user's sessions on the broker, and say what came of it."""
    try:
        report = users.disconnect(actor(), username, services().broker)
    except AuthsvcError as error:
        return _page(username, error)
    flash(*_outcome(username, report))
    return _lead_to(username)


@blueprint.post("/users/<username>/delete")
@stands_for("DELETE", "/api/users/{username}")
def delete(username: str) -> AnyResponse:
    """Remove a user with everything that belongs to it."""
    try:
        users.delete(actor(), username)
    except AuthsvcError as error:
        return _page(username, error)
    flash(f"{username} was deleted.")
    return see(url_for("users_page.list_" if may("GET", "/api/users") else "overview.show"))


def _page(username: str, error: AuthsvcError | None) -> Response:
    must_read(f"/api/users/{username}")
    record = users.get(username)
    status = status_of(error) if error else 200
    damage = damage_of(record)
    return render("admin/user.html", status, user=record, damage=damage, errors=by_field(error), **beside(record))


def _new(shown: Shown, error: AuthsvcError | None) -> Response:
    return _form("admin/user_new.html", shown, error, chosen_password=request.form.get("passwordIs", "generated"))


def _edit(username: str, shown: Shown, error: AuthsvcError | None) -> Response:
    meanwhile = None
    if isinstance(error, PreconditionFailed):
        must_read(f"/api/users/{username}")
        # Whoever has read what it is now, and sends the same once more, means it.
        meanwhile = users.get(username)
        shown = replace(shown, updated=meanwhile.version)
    return _form("admin/user_edit.html", shown, error, meanwhile=meanwhile)


def _form(template: str, shown: Shown, error: AuthsvcError | None, **more: Any) -> Response:
    status = status_of(error) if error else 200
    roles, grant_types = choices(shown.roles), [one.value for one in GrantType]
    errors = by_field(error)
    return render(template, status, shown=shown, roles=roles, grant_types=grant_types, errors=errors, **more)


def _password(username: str, error: AuthsvcError | None) -> Response:
    must_read(f"/api/users/{username}")
    chosen = request.form.get("passwordIs", "generated")
    status, record = status_of(error) if error else 200, users.get(username)
    revoke_others = request.method == "GET" or "revokeOthers" in request.form
    return render(
        "admin/user_password.html",
        status,
        user=record,
        chosen_password=chosen,
        revoke_others=revoke_others,
        errors=by_field(error),
    )


def _tell(record: UserRecord, password: str | None, words: str) -> AnyResponse:
    """Show a password that was generated, on an answer that nothing keeps; or say what was done."""
    if password is not None and request.form.get("passwordIs") == "generated":
        return render("admin/password_generated.html", username=record.username, password=password, words=words)
    flash(words)
    return _lead_to(record.username)


def _outcome(username: str, report: DisconnectResult) -> tuple[str, str]:
    """Return the words and their kind; a client that may connect comes back by itself."""
    if not report.ended and not report.failed:
        return f"No client was seen as {username} lately, so there was none to disconnect.", "warn"
    if report.failed:
        words = f"{len(report.failed)} of {len(report.failed) + len(report.ended)} client ids of {username}"
        return f"{words} could not be disconnected: the broker does not answer, or does not let us in.", "wrong"
    ids = "1 client id" if len(report.ended) == 1 else f"{len(report.ended)} client ids"
    return f"{username} was disconnected under {ids}; disable it to keep it from coming back.", "message"


def _lead_to(username: str) -> AnyResponse:
    if may("GET", f"/api/users/{username}"):
        return see(url_for("users_page.show", username=username))
    return see(url_for("overview.show"))


def _stored(record: UserRecord) -> Shown:
    return Shown(
        record.username,
        record.enabled,
        sorted(record.grant_types),
        list(record.roles),
        [each.fields() for each in record.permissions],
        list(record.client_ids),
        record.version,
    )


def _typed() -> Shown:
    form = request.form
    return Shown(
        form.get("username", ""),
        "enabled" in form,
        form.getlist("grantTypes"),
        form.getlist("roles"),
        permission_rows(form),
        lines(form, "clientIds"),
        form.get("updated", ""),
    )


def _password_wanted() -> str | None:
    """Return what is to be the password: generated now, as it was typed, or None for no password at all."""
    wanted = request.form.get("passwordIs")
    if wanted == "generated":
        return generate(services().settings.password_policy)
    if wanted == "typed":
        return request.form.get("password", "")
    if wanted == "none":
        return None
    raise invalid("passwordIs", "say whether to generate a password")
