"""`authsvc roles`: list, show, create, change, delete."""

from __future__ import annotations

from typing import Any

import click

from authsvc.accounts import client_id_warnings, roles
from authsvc.cli.terminal import (
    any_client_id,
    as_json,
    chosen_client_ids,
    client_ids,
    opened,
    operator,
    paged,
    print_json,
    print_page,
    print_table,
    without,
)
from authsvc.policy.permissions import PERMISSION_FORM, Permission
from authsvc.record_json import audit_fields, json_value


@click.group("roles")
def group() -> None:
    """List, create, change and delete roles."""


@group.command("list")
@click.option("--search", default="", help="Part of the name or description.")
@paged
@as_json
def list_roles(search: str, page: int, per_page: int, *, as_json: bool) -> None:
    """List roles, sorted by name."""
    with opened():
        found = roles.search(search, page, per_page)
    if as_json:
        print_page(found, _shown)
        return
    rows = ((role.name, "; ".join(map(str, role.permissions)), role.description) for role in found.items)
    print_table(("NAME", "PERMISSIONS", "DESCRIPTION"), rows)


@group.command()
@click.argument("name")
@as_json
def show(name: str, *, as_json: bool) -> None:
    """Show one role."""
    with opened():
        record = roles.get(name)
    _print(record, as_json=as_json)


@group.command()
@click.argument("name")
@click.option("--description", default="")
@click.option("--permission", "permissions", multiple=True, metavar="RULE", help=f"{PERMISSION_FORM}; may be repeated.")
@client_ids
@as_json
def create(
    name: str, description: str, permissions: tuple[str, ...], client_ids: tuple[str, ...], *, as_json: bool
) -> None:
    """Create a role."""
    with opened():
        record = roles.create(operator(), name, description, map(Permission.parse, permissions), client_ids)
    _print(record, as_json=as_json)


@group.command()
@click.argument("name")
@click.option("--description", default=None)
@click.option("--add-permission", multiple=True, metavar="RULE", help=PERMISSION_FORM)
@click.option("--remove-permission", multiple=True, metavar="RULE")
@client_ids
@any_client_id
@as_json
def change(
    name: str,
    description: str | None,
    add_permission: tuple[str, ...],
    remove_permission: tuple[str, ...],
    client_ids: tuple[str, ...],
    *,
    any_client_id: bool,
    as_json: bool,
) -> None:
    """Change a role; fields without an option keep their values."""
    changes = roles.RoleChanges()
    if description is not None:
        changes["description"] = description
    patterns = chosen_client_ids(client_ids, any_client_id=any_client_id)
    if patterns is not None:
        changes["client_ids"] = patterns
    with opened():
        if add_permission or remove_permission:
            wanted = (*roles.get(name).permissions, *map(Permission.parse, add_permission))
            changes["permissions"] = without(map(Permission.parse, remove_permission), wanted)
        record = roles.change(operator(), name, changes)
    _print(record, as_json=as_json)


@group.command()
@click.argument("name")
def delete(name: str) -> None:
    """Delete a role that no user has."""
    with opened():
        roles.delete(operator(), name)
    click.echo(f"{name} deleted")


COMMANDS = (group,)


def _shown(record: roles.RoleRecord) -> dict[str, Any]:
    warnings = json_value(client_id_warnings.of_role(record))
    return {"name": record.name, "builtIn": record.built_in, **audit_fields(record), "warnings": warnings}


def _print(record: roles.RoleRecord, *, as_json: bool) -> None:
    if as_json:
        print_json(_shown(record))
        return
    click.echo(f"{record.name}  {record.description}")
    click.echo(f"  client ids   {', '.join(record.client_ids) or 'not restricted by this role'}")
    for permission in record.permissions:
        click.echo(f"  permission   {permission}")
    for damage in record.damage:
        click.echo(f"  damaged      {damage}; its users are denied everything")
    for warning in client_id_warnings.of_role(record):
        click.echo(f"  warning      {warning.message}")
