"""Roles: permissions that many users share."""

from __future__ import annotations

from typing import Any

from flask import Response
from pydantic import BaseModel, Field

from authsvc import client_id_warnings, roles
from authsvc.api.schemas import (
    Body,
    ClientIds,
    Moment,
    PermissionBody,
    PermissionView,
    RoleName,
    SearchQuery,
    Text,
    View,
    WarningView,
    noun,
    permissions_from,
    render,
    render_page,
    view_permission,
    view_warnings,
)
from authsvc.edge import actor

blueprint = noun("roles", "Permissions that many users share")


class RolePath(BaseModel):
    name: Text = Field(max_length=200)


class RoleChangeBody(Body):
    """What to change; a field that is left out stays as it is."""

    description: Text = Field("", max_length=1000)
    permissions: list[PermissionBody] = Field([], max_length=10_000)
    client_ids: ClientIds = Field([])

    def changes(self) -> roles.RoleChanges:
        """Return what was named in the body, and nothing of what was not."""
        changes = roles.RoleChanges()
        if "description" in self.model_fields_set:
            changes["description"] = self.description
        if "permissions" in self.model_fields_set:
            changes["permissions"] = permissions_from(self.permissions)
        if "client_ids" in self.model_fields_set:
            changes["client_ids"] = tuple(self.client_ids)
        return changes


class RoleBody(RoleChangeBody):
    """A new role."""

    name: RoleName


class RoleView(View):
    """A role; one that is built in stays as it is."""

    name: str
    description: str
    built_in: bool
    permissions: list[PermissionView]
    client_ids: list[str]
    created: Moment
    updated: Moment
    warnings: list[WarningView]


class RolePage(View):
    items: list[RoleView]
    page: int
    per_page: int
    total: int


@blueprint.get("/roles", responses={200: RolePage})
def list_roles(query: SearchQuery) -> dict[str, Any]:
    """List roles by name."""
    found = roles.search(query.search, query.page, query.per_page)
    return render_page(found, map(_view, found.items))


@blueprint.post("/roles", responses={201: RoleView})
def create(body: RoleBody) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Make a role."""
    record = roles.create(actor(), body.name, body.description, permissions_from(body.permissions), body.client_ids)
    return render(_view(record)), 201, {"Location": f"/api/roles/{record.name}"}


@blueprint.get("/roles/<name>", responses={200: RoleView})
def show(path: RolePath) -> dict[str, Any]:
    """Show a role."""
    return render(_view(roles.get(path.name)))


@blueprint.patch("/roles/<name>", responses={200: RoleView})
def change(path: RolePath, body: RoleChangeBody) -> dict[str, Any]:
    """Change a role; in force at once for every user who has it."""
    return render(_view(roles.change(actor(), path.name, body.changes())))


@blueprint.delete("/roles/<name>", responses={204: None})
def delete(path: RolePath) -> Response:
    """Remove a role that no user has."""
    roles.delete(actor(), path.name)
    return Response(status=204)


def _view(record: roles.RoleRecord) -> RoleView:
    return RoleView(
        name=record.name,
        description=record.description,
        built_in=record.built_in,
        permissions=[view_permission(permission) for permission in record.permissions],
        client_ids=list(record.client_ids),
        created=record.created_at,
        updated=record.updated_at,
        warnings=view_warnings(client_id_warnings.of_role(record)),
    )
