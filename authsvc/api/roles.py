"""Roles over REST: list, create, show, change, delete."""

from __future__ import annotations

from typing import Annotated, Any, cast

from flask import Response
from pydantic import BaseModel, Field

from authsvc.accounts import client_id_warnings, roles
from authsvc.api.schemas import (
    WITH_ETAG,
    Answer,
    Body,
    ClientIds,
    IfMatch,
    Moment,
    PageView,
    PermissionBody,
    PermissionView,
    RoleName,
    SearchQuery,
    Text,
    View,
    WarningView,
    noun,
    permissions_from,
    render_page,
    tagged,
    unchanged,
)
from authsvc.web.request_context import actor

blueprint = noun("roles", "Permissions that many users share")

Permissions = Annotated[list[PermissionBody], Field(max_length=10_000)]


class RolePath(BaseModel):
    name: Text = Field(max_length=200)


class RoleChangeBody(Body):
    """The fields to change; an absent field keeps its value."""

    description: Text = unchanged(max_length=1000)
    permissions: Permissions = unchanged()
    client_ids: ClientIds = unchanged()

    def changes(self) -> roles.RoleChanges:
        """Return the fields that the request has."""
        return cast("roles.RoleChanges", self.given(roles.RoleChanges))


class RoleBody(RoleChangeBody):
    """A new role."""

    name: RoleName
    description: Text = Field("", max_length=1000)
    permissions: Permissions = Field([])
    client_ids: ClientIds = Field([])


class RoleView(View):
    """A role; a built-in one cannot be changed."""

    model_config = WITH_ETAG
    name: str
    description: str
    built_in: bool
    permissions: list[PermissionView]
    damage: list[str] = Field(description="stored rows that cannot be read; with any, its users are denied everything")
    client_ids: list[str]
    created_at: Moment
    updated_at: Moment
    warnings: list[WarningView]


class RolePage(PageView[RoleView]):
    pass


@blueprint.get("/roles", responses={200: RolePage})
def list_roles(query: SearchQuery) -> dict[str, Any]:
    """List roles, sorted by name."""
    found = roles.search(query.search, query.page, query.per_page)
    return render_page(found, map(_view, found.items))


@blueprint.post("/roles", responses={201: RoleView})
def create_role(body: RoleBody) -> Answer:
    """Create a role."""
    record = roles.create(actor(), body.name, body.description, permissions_from(body.permissions), body.client_ids)
    shown, _, headers = _answer(record)
    return shown, 201, headers | {"Location": f"/api/roles/{record.name}"}


@blueprint.get("/roles/<name>", responses={200: RoleView})
def get_role(path: RolePath) -> Answer:
    """Show a role."""
    return _answer(roles.get(path.name))


@blueprint.patch("/roles/<name>", responses={200: RoleView})
def update_role(path: RolePath, body: RoleChangeBody, header: IfMatch) -> Answer:
    """Change a role, effective at once for every user that has it."""
    return _answer(roles.change(actor(), path.name, body.changes(), header.versions()))


@blueprint.delete("/roles/<name>", responses={204: None})
def delete_role(path: RolePath, header: IfMatch) -> Response:
    """Delete a role that no user has."""
    roles.delete(actor(), path.name, header.versions())
    return Response(status=204)


def _answer(record: roles.RoleRecord) -> Answer:
    return tagged(_view(record), record.version)


def _view(record: roles.RoleRecord) -> RoleView:
    return RoleView.of(record, warnings=client_id_warnings.of_role(record))
