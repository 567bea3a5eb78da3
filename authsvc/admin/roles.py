"""Roles: permissions that many users share, to be made, changed and removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from flask import Response, flash, request, url_for

from authsvc.accounts import client_id_warnings, roles
from authsvc.admin.forms import as_of, lines, permission_rows, submitted
from authsvc.admin.pages import ApiCall, NavigationEntry, by_field, may, must_read, pages, render, see, stands_for
from authsvc.admin.user_page import latest_events
from authsvc.api.roles import RoleBody, RoleChangeBody, RolePath
from authsvc.api.schemas import SearchQuery, permissions_from
from authsvc.errors import AuthsvcError, PreconditionFailed
from authsvc.web.problem import status_of
from authsvc.web.request_context import actor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from werkzeug.wrappers import Response as AnyResponse

    from authsvc.admin.forms import Rows

blueprint = pages("roles_page", __name__)
NAVIGATION = NavigationEntry(4, "Roles", "roles_page.list_", ApiCall("GET", "/api/roles"))
_CHOICES = 1000


class Choice(NamedTuple):
    """A role to be picked."""

    name: str
    description: str


class Shown(NamedTuple):
    """What a form shows of a role: what is stored, or what was typed and refused. `updated`: which version."""

    name: str = ""
    description: str = ""
    permissions: Rows = []  # noqa: RUF012 - a tuple's default, which nobody changes
    client_ids: list[str] = []  # noqa: RUF012
    updated: str = ""

    def fields(self) -> dict[str, Any]:
        """Return what the API's bodies take of it."""
        return {"description": self.description, "permissions": self.permissions, "clientIds": self.client_ids}


def choices(chosen: Iterable[str]) -> list[Choice]:
    """Return the roles that a picker offers: those the caller may list, and in any case those that are chosen."""
    found = roles.search("", 1, _CHOICES).items if may("GET", "/api/roles") else []
    offered = [Choice(role.name, role.description) for role in found]
    names = {choice.name for choice in offered}
    return [Choice(name, "") for name in chosen if name not in names] + offered


@blueprint.before_request
def check_address() -> None:
    """Refuse a name that the API would not read from an address either."""
    if request.view_args:
        submitted(RolePath, **request.view_args)


@blueprint.get("/roles")
@stands_for("GET", "/api/roles")
def list_() -> Response:
    """List roles by name."""
    asked = {name: value for name, value in request.args.items() if value}
    query = submitted(SearchQuery, **asked)
    found = roles.search(query.search, query.page, query.per_page)
    holders = roles.count_holders(role.name for role in found.items)
    asked.pop("page", None)
    return render("admin/roles.html", found=found, query=query, keep=asked, holders=holders)


@blueprint.get("/new-role")
@stands_for("POST", "/api/roles")
def ask() -> Response:
    """Ask for a new role."""
    return _form("admin/role_new.html", Shown(), None)


@blueprint.post("/new-role")
@stands_for("POST", "/api/roles")
def create() -> AnyResponse:
    """Make a role."""
    typed = _typed(request.form.get("name", ""))
    try:
        body = submitted(RoleBody, name=typed.name, **typed.fields())
        roles.create(actor(), body.name, body.description, permissions_from(body.permissions), body.client_ids)
    except AuthsvcError as error:
        return _form("admin/role_new.html", typed, error)
    flash(f"The role {typed.name} was created.")
    return _lead_to(typed.name)


@blueprint.get("/roles/<name>")
@stands_for("GET", "/api/roles/{name}")
def show(name: str) -> Response:
    """Show a role."""
    return _page(name, None)


@blueprint.get("/roles/<name>/edit")
@stands_for("PATCH", "/api/roles/{name}")
def ask_changes(name: str) -> Response:
    """Offer what there is of a role to be changed."""
    must_read(f"/api/roles/{name}")
    role = roles.get(name)
    shown = Shown(
        role.name, role.description, [each.fields() for each in role.permissions], list(role.client_ids), role.version
    )
    return _form("admin/role_edit.html", shown, None)


@blueprint.post("/roles/<name>/edit")
@stands_for("PATCH", "/api/roles/{name}")
def change(name: str) -> AnyResponse:
    """Change a role, unless somebody else did after the form was drawn."""
    typed = _typed(name)
    try:
        body = submitted(RoleChangeBody, **typed.fields())
        roles.change(actor(), name, body.changes(), as_of(typed.updated))
    except AuthsvcError as error:
        return _edit(typed, error)
    flash(f"The role {name} was changed; that is in force now for everybody who has it.")
    return _lead_to(name)


@blueprint.post("/roles/<name>/delete")
@stands_for("DELETE", "/api/roles/{name}")
def delete(name: str) -> AnyResponse:
    """Remove a role that no user has."""
    try:
        roles.delete(actor(), name)
    except AuthsvcError as error:
        return _page(name, error)
    flash(f"The role {name} was deleted.")
    return see(url_for("roles_page.list_" if may("GET", "/api/roles") else "overview.show"))


def _page(name: str, error: AuthsvcError | None) -> Response:
    must_read(f"/api/roles/{name}")
    status = status_of(error) if error else 200
    role, holders, events = roles.get(name), roles.count_holders([name])[name], latest_events(f"role:{name}")
    shown = {"role": role, "holders": holders, "events": events, "warnings": client_id_warnings.of_role(role)}
    return render("admin/role.html", status, errors=by_field(error), **shown)


def _edit(shown: Shown, error: AuthsvcError) -> Response:
    meanwhile = None
    if isinstance(error, PreconditionFailed):
        must_read(f"/api/roles/{shown.name}")
        # Whoever has read what it is now, and sends the same once more, means it.
        meanwhile = roles.get(shown.name)
        shown = shown._replace(updated=meanwhile.version)
    return _form("admin/role_edit.html", shown, error, meanwhile=meanwhile)


def _form(template: str, shown: Shown, error: AuthsvcError | None, **more: Any) -> Response:
    status = status_of(error) if error else 200
    return render(template, status, shown=shown, errors=by_field(error), **more)


def _lead_to(name: str) -> AnyResponse:
    if may("GET", f"/api/roles/{name}"):
        return see(url_for("roles_page.show", name=name))
    return see(url_for("overview.show"))


def _typed(name: str) -> Shown:
    form = request.form
    return Shown(
        name, form.get("description", ""), permission_rows(form), lines(form, "clientIds"), form.get("updated", "")
    )
