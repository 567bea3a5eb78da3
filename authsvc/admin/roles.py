"""Roles: list, create, edit and delete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from flask import Response, flash, request

from authsvc.accounts import client_id_warnings, roles
from authsvc.admin.forms import expected_versions, non_empty_lines, permission_rows, validated, validated_query
from authsvc.admin.pages import (
    ApiCall,
    NavigationEntry,
    authorize_as,
    latest_audit_events,
    may_call,
    page_blueprint,
    redirect_if_readable,
    render,
    require_read,
)
from authsvc.api.roles import RoleBody, RoleChangeBody, RolePath
from authsvc.api.schemas import SearchQuery, permissions_from
from authsvc.errors import AuthsvcError, PreconditionFailed
from authsvc.web.request_context import actor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from werkzeug.wrappers import Response as AnyResponse


blueprint = page_blueprint("roles_page", __name__)
NAVIGATION = NavigationEntry(4, "Roles", "roles_page.list_", ApiCall("GET", "/api/roles"))
_MAX_CHOICES = 1000


class RoleChoice(NamedTuple):
    """A role that a form offers for selection."""

    name: str
    description: str


def role_choices(selected: Iterable[str]) -> list[RoleChoice]:
    """Return the roles that a form offers: those that the caller may list, and the selected ones in any case."""
    found = roles.search("", 1, _MAX_CHOICES).items if may_call("GET", "/api/roles") else []
    listed = [RoleChoice(role.name, role.description) for role in found]
    names = {choice.name for choice in listed}
    return [RoleChoice(name, "") for name in selected if name not in names] + listed


@blueprint.before_request
def check_path() -> None:
    """Raise `InvalidInput` if the name in the path would be invalid in the API's path too."""
    if request.view_args:
        validated(RolePath, **request.view_args)


@blueprint.get("/roles")
@authorize_as("GET", "/api/roles")
def list_() -> Response:
    query, filters = validated_query(SearchQuery)
    found = roles.search(query.search, query.page, query.per_page)
    holders = roles.count_holders(role.name for role in found.items)
    return render("admin/roles.html", found=found, query=query, keep=filters, holders=holders)


@blueprint.get("/new-role")
@authorize_as("POST", "/api/roles")
def new_form() -> Response:
    return render("admin/role_new.html", name="", fields={})


@blueprint.post("/new-role")
@authorize_as("POST", "/api/roles")
def create() -> AnyResponse:
    name, fields = request.form.get("name", ""), _submitted_fields()
    try:
        body = validated(RoleBody, name=name, **fields)
        roles.create(actor(), body.name, body.description, permissions_from(body.permissions), body.client_ids)
    except AuthsvcError as error:
        return render("admin/role_new.html", error=error, name=name, fields=fields)
    flash(f"The role {name} was created.")
    return _redirect_to_role(name)


@blueprint.get("/roles/<name>")
@authorize_as("GET", "/api/roles/{name}")
def show(name: str) -> Response:
    return _page(name, None)


@blueprint.get("/roles/<name>/edit")
@authorize_as("PATCH", "/api/roles/{name}")
def edit_form(name: str) -> Response:
    require_read(f"/api/roles/{name}")
    role = roles.get(name)
    permissions = [each.fields() for each in role.permissions]
    fields = {"description": role.description, "permissions": permissions, "clientIds": role.client_ids}
    return render("admin/role_edit.html", name=name, fields=fields, stored_version=role.version)


@blueprint.post("/roles/<name>/edit")
@authorize_as("PATCH", "/api/roles/{name}")
def change(name: str) -> AnyResponse:
    """Save the submitted form, unless the role was changed after the form was rendered."""
    fields, version = _submitted_fields(), request.form.get("updated", "")
    try:
        body = validated(RoleChangeBody, **fields)
        roles.change(actor(), name, body.changes(), expected_versions(version))
    except PreconditionFailed as error:
        require_read(f"/api/roles/{name}")
        current = roles.get(name)
        # The page shows the current role. If the same form is sent again, its author has seen what it replaces.
        return render(
            "admin/role_edit.html",
            error=error,
            name=name,
            fields=fields,
            stored_version=current.version,
            current=current,
        )
    except AuthsvcError as error:
        return render("admin/role_edit.html", error=error, name=name, fields=fields, stored_version=version)
    flash(f"The role {name} was changed. The change is in force now for every user with this role.")
    return _redirect_to_role(name)


@blueprint.post("/roles/<name>/delete")
@authorize_as("DELETE", "/api/roles/{name}")
def delete(name: str) -> AnyResponse:
    try:
        roles.delete(actor(), name)
    except AuthsvcError as error:
        return _page(name, error)
    flash(f"The role {name} was deleted.")
    return redirect_if_readable("/api/roles", "roles_page.list_")


def _page(name: str, error: AuthsvcError | None) -> Response:
    require_read(f"/api/roles/{name}")
    role = roles.get(name)
    return render(
        "admin/role.html",
        error=error,
        role=role,
        holders=roles.count_holders([name])[name],
        events=latest_audit_events(f"role:{name}"),
        warnings=client_id_warnings.of_role(role),
    )


def _redirect_to_role(name: str) -> AnyResponse:
    return redirect_if_readable(f"/api/roles/{name}", "roles_page.show", name=name)


def _submitted_fields() -> dict[str, Any]:
    """Return the submitted fields under the names that the API's schemas have for them."""
    form = request.form
    permissions, client_ids = permission_rows(form), non_empty_lines(form, "clientIds")
    return {"description": form.get("description", ""), "permissions": permissions, "clientIds": client_ids}
