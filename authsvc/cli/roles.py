"""`authsvc roles`: list, show, create, change, delete."""

from __future__ import annotations

from typing import Any

import click

from authsvc.accounts import client_id_warnings, roles
from authsvc.cli import terminal
from authsvc.cli.console.groups import Group
from authsvc.cli.console.tables import print_table
from authsvc.policy.permissions import Permission
from authsvc.record_json import audit_fields, json_value


@click.group("roles", cls=Group)
def group() -> None:
    """List, create, change and delete roles."""


@group.command("list")
@click.option("--search", default="", help="Part of the name or description.")
@terminal.paged
@terminal.as_json
def list_roles(search: str, page: int, per_page: int, *, as_json: bool) -> None:
    """List roles, sorted by name."""
    with terminal.opened():
        found = roles.search(search, page, per_page)
    if as_json:
        terminal.print_page(found, _shown)
        return
    rows = ((role.name, "; ".join(map(str, role.permissions)), role.description) for role in found.items)
    print_table(("NAME", "PERMISSIONS", "DESCRIPTION"), rows)


@group.command()
@click.argument("name")
@terminal.as_json
def show(name: str, *, as_json: bool) -> None:
    """Show one role."""
    with terminal.opened():
        record = roles.get(name)
    _print(record, as_json=as_json)


@group.command()
@click.argument("name")
@click.option("--description", default="")
@terminal.permissions
@terminal.client_ids
@terminal.as_json
def create(
    name: str, description: str, permissions: tuple[str, ...], client_ids: tuple[str, ...], *, as_json: bool
) -> None:
    """Create a role."""
    with terminal.opened():
        record = roles.create(terminal.operator(), name, description, map(Permission.parse, permissions), client_ids)
    _print(record, as_json=as_json)


@group.command()
@click.argument("name")
@click.option("--description", default=None)
@terminal.add_permission
@terminal.remove_permission
@terminal.client_ids
@terminal.any_client_id
@terminal.as_json
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
    patterns = terminal.chosen_client_ids(client_ids, any_client_id=any_client_id)
    if patterns is not None:
        changes["client_ids"] = patterns
    with terminal.opened():
        if add_permission or remove_permission:
            stored = roles.get(name).permissions
            changes["permissions"] = terminal.changed_permissions(stored, add_permission, remove_permission)
        record = roles.change(terminal.operator(), name, changes)
    _print(record, as_json=as_json)


@group.command()
@click.argument("name")
def delete(name: str) -> None:
    """Delete a role that no user has."""
    with terminal.opened():
        roles.delete(terminal.operator(), name)
    click.echo(f"{name} deleted")


COMMANDS = (group,)


def _shown(record: roles.RoleRecord) -> dict[str, Any]:
    warnings = json_value(client_id_warnings.of_role(record))
    return {"name": record.name, "builtIn": record.built_in, **audit_fields(record), "warnings": warnings}


def _print(record: roles.RoleRecord, *, as_json: bool) -> None:
    if as_json:
        terminal.print_json(_shown(record))
        return
    click.echo(f"{record.name}  {record.description}")
    click.echo(f"  client ids   {', '.join(record.client_ids) or 'not restricted by this role'}")
    for permission in record.permissions:
        click.echo(f"  permission   {permission}")
    for damage in record.damage:
        click.echo(f"  damaged      {damage}; its users are denied everything")
    for warning in client_id_warnings.of_role(record):
        click.echo(f"  warning      {warning.message}")
