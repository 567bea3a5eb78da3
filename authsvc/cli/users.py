"""`authsvc users`: list, show, create, change, delete; denials and passwords."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import click

from authsvc.accounts import client_id_warnings, users
from authsvc.accounts.sign_in import second_factor as second_factors
from authsvc.activity import denials
from authsvc.cli import terminal
from authsvc.cli.console.groups import Group
from authsvc.cli.console.tables import print_table
from authsvc.cli.reports import denials as denials_command
from authsvc.errors import invalid
from authsvc.exports.rows import USER_COLUMNS, of_user
from authsvc.policy.permissions import Permission
from authsvc.policy.snapshot import GrantType
from authsvc.record_json import json_fields, json_value

if TYPE_CHECKING:
    from datetime import datetime

_grant_type = click.Choice([grant_type.value for grant_type in GrantType])
_grant_types = click.option(
    "--grant-type",
    "grant_types",
    multiple=True,
    type=_grant_type,
    help="May be repeated.",
)
_no_grant_types = click.option(
    "--no-grant-types", is_flag=True, help="Deny the user the broker; it may only sign in to this service."
)
_from_stdin = click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
_generated = click.option(
    "--generate-password",
    is_flag=True,
    help="Generate a random password and print it once. Best for devices: it is checked without a slow hash, "
    "so that a fleet is connected within seconds after a power cut.",
)


@click.group("users", cls=Group)
def group() -> None:
    """List, create, change and delete users."""


@group.command("list")
@click.option("--search", default="", help="Part of the name.")
@click.option("--role", default="", help="Only users that have this role.")
@click.option("--enabled/--disabled", "enabled", default=None, help="Only enabled users, or only disabled ones.")
@click.option("--grant-type", type=_grant_type, help="Only users that have this grant type.")
@click.option(
    "--origin",
    type=click.Choice([origin.value for origin in users.Origin]),
    help="Only users that an administrator created, or only those that registered.",
)
@click.option("--seen-after", type=terminal.TIME, help="Last seen at this time or later, in UTC.")
@click.option("--seen-before", type=terminal.TIME, help="Last seen before this time, or never.")
@click.option("--created-before", type=terminal.TIME, help="Created before this time, in UTC.")
@click.option(
    "--administrators-on-broker",
    is_flag=True,
    help="Only users that may change something in this service and log in to the broker.",
)
@click.option("--second-factor/--no-second-factor", default=None, help="Only users with one, or only those without.")
@click.option(
    "--sort",
    type=click.Choice(get_args(users.Sort)),
    default="username",
    metavar="FIELD",
    help="username, createdAt, updatedAt or lastSeen; with - in front, descending.",
)
@terminal.paged
@terminal.exported
@terminal.as_json
def list_users(
    *,
    search: str,
    role: str,
    enabled: bool | None,
    grant_type: str | None,
    origin: str | None,
    seen_after: datetime | None,
    seen_before: datetime | None,
    created_before: datetime | None,
    sort: users.Sort,
    page: int,
    per_page: int,
    export: terminal.ExportFormat | None,
    administrators_on_broker: bool,
    second_factor: bool | None,
    as_json: bool,
) -> None:
    """List users, sorted by name unless asked otherwise. An export is always sorted by name."""
    wanted = users.UserFilter(
        search,
        role,
        enabled,
        GrantType(grant_type) if grant_type else None,
        users.Origin(origin) if origin else None,
        seen_after,
        seen_before,
        administrators_on_broker,
        created_before,
        second_factor,
    )
    with terminal.opened():
        if export:
            every = users.export(wanted)
            terminal.print_export(export, every, USER_COLUMNS, of_user, json_fields, users.MAX_EXPORTED)
            return
        found = users.search(wanted, page, per_page, sort)
        warnings = client_id_warnings.of_users(found.items)
    if as_json:
        terminal.print_page(
            found, lambda record: json_fields(record) | {"warnings": json_value(warnings[record.username])}
        )
        return
    print_table(("USERNAME", "ENABLED", "GRANT TYPES", "ROLES", "PERMISSIONS", "LAST SEEN"), map(_row, found.items))
    terminal.print_total(found, "users")


@group.command()
@click.argument("username")
@terminal.as_json
def show(username: str, *, as_json: bool) -> None:
    """Show one user."""
    with terminal.opened():
        record = users.get(username)
        _print(record, as_json=as_json)


@group.command()
@click.argument("username")
@_from_stdin
@_generated
@click.option("--no-password", is_flag=True, help="For a user that needs none, such as one with a certificate.")
@_grant_types
@_no_grant_types
@terminal.role_names
@terminal.permissions
@terminal.client_ids
@click.option("--disabled", is_flag=True)
@terminal.as_json
def create(
    username: str,
    *,
    password_stdin: bool,
    generate_password: bool,
    no_password: bool,
    grant_types: tuple[str, ...],
    no_grant_types: bool,
    role_names: tuple[str, ...],
    permissions: tuple[str, ...],
    client_ids: tuple[str, ...],
    disabled: bool,
    as_json: bool,
) -> None:
    """Create a user; prompts for the password without --password-stdin, --generate-password or --no-password."""
    if generate_password and no_password:
        raise click.UsageError("--generate-password and --no-password exclude each other")
    wanted = users.UserChanges(
        enabled=not disabled,
        roles=role_names,
        permissions=tuple(map(Permission.parse, permissions)),
        client_ids=client_ids,
    )
    if grant_types or no_grant_types:
        wanted["grant_types"] = _chosen(grant_types, none=no_grant_types)
    with terminal.opened() as settings:
        if not no_password:
            wanted["password"] = terminal.new_password(
                settings.password_policy, from_stdin=password_stdin, generated=generate_password
            )
        record = users.create(terminal.operator(), username, wanted, terminal.hasher(settings))
        _print(record, as_json=as_json, generated=wanted["password"] if generate_password else None)


@group.command()
@click.argument("username")
@click.option("--enable/--disable", "enabled", default=None)
@_grant_types
@_no_grant_types
@click.option("--add-grant-type", "added_types", multiple=True, type=_grant_type, help="May be repeated.")
@click.option("--remove-grant-type", "removed_types", multiple=True, type=_grant_type, help="May be repeated.")
@click.option("--add-role", multiple=True, help="May be repeated.")
@click.option("--remove-role", multiple=True, help="May be repeated.")
@terminal.add_permission
@terminal.remove_permission
@terminal.client_ids
@terminal.any_client_id
@terminal.as_json
def change(
    username: str,
    *,
    enabled: bool | None,
    grant_types: tuple[str, ...],
    no_grant_types: bool,
    added_types: tuple[str, ...],
    removed_types: tuple[str, ...],
    add_role: tuple[str, ...],
    remove_role: tuple[str, ...],
    add_permission: tuple[str, ...],
    remove_permission: tuple[str, ...],
    client_ids: tuple[str, ...],
    any_client_id: bool,
    as_json: bool,
) -> None:
    """Change a user; fields without an option keep their values."""
    changes = users.UserChanges()
    if enabled is not None:
        changes["enabled"] = enabled
    if grant_types or no_grant_types:
        changes["grant_types"] = _chosen(grant_types, none=no_grant_types)
        if added_types or removed_types:
            raise click.UsageError("--add-grant-type and --remove-grant-type change what --grant-type would replace")
    patterns = terminal.chosen_client_ids(client_ids, any_client_id=any_client_id)
    if patterns is not None:
        changes["client_ids"] = patterns
    with terminal.opened() as settings:
        before = users.get(username)
        if added_types or removed_types:
            changes["grant_types"] = before.grant_types.union(map(GrantType, added_types)) - set(
                map(GrantType, removed_types)
            )
        if add_role or remove_role:
            changes["roles"] = tuple(name for name in (*before.roles, *add_role) if name not in remove_role)
        if add_permission or remove_permission:
            changes["permissions"] = terminal.changed_permissions(before.permissions, add_permission, remove_permission)
        record = users.change(terminal.operator(), username, changes, terminal.hasher(settings))
        _print(record, as_json=as_json)


@group.command("denials")
@click.argument("username")
def list_denials(username: str) -> None:
    """Show what a user's clients were denied in the last 7 days, and how to allow it."""
    with terminal.opened():
        found = denials.of_user(username)
    print_table(denials_command.COLUMNS, map(denials_command.row, found))


@group.command("set-password")
@click.argument("username")
@_from_stdin
@_generated
@click.option(
    "--revoke-others/--keep-others",
    default=False,
    show_default=True,
    help="Also revoke all API tokens and certificates of the user, as after a theft. "
    "Any new password ends the browser sessions.",
)
def set_password(username: str, *, password_stdin: bool, generate_password: bool, revoke_others: bool) -> None:
    """Set a new password; the old one stops working within a second."""
    with terminal.opened() as settings:
        users.get(username)
        password = terminal.new_password(
            settings.password_policy, from_stdin=password_stdin, generated=generate_password
        )
        changes = users.UserChanges(password=password, revoke_others=revoke_others)
        users.change(terminal.operator(), username, changes, terminal.hasher(settings))
    revoked = "; its tokens and certificates are revoked" if revoke_others else ""
    click.echo(f"password of {username} set{revoked}")
    if generate_password:
        click.echo(f"  password     {password}")


@group.command("remove-second-factor")
@click.argument("username")
def remove_second_factor(username: str) -> None:
    """Remove a user's second factor, as after the loss of a phone; the password is then enough to sign in."""
    with terminal.opened():
        second_factors.remove(terminal.operator(), username)
    click.echo(f"{username} has no second factor any more")


@group.command()
@click.argument("username")
def delete(username: str) -> None:
    """Delete a user and its tokens, and revoke its certificates."""
    with terminal.opened():
        users.delete(terminal.operator(), username)
    click.echo(f"{username} deleted")


COMMANDS = (group,)


def _chosen(grant_types: tuple[str, ...], *, none: bool) -> frozenset[GrantType]:
    if grant_types and none:
        raise invalid("--no-grant-types", "cannot be combined with --grant-type")
    return frozenset(map(GrantType, grant_types))


def _row(record: users.UserRecord) -> tuple[object, ...]:
    return (
        record.username,
        record.enabled,
        sorted(record.grant_types),
        record.all_roles,
        "; ".join(map(str, record.permissions[:3])) + (" ..." if len(record.permissions) > 3 else ""),  # noqa: PLR2004
        terminal.spell_moment(record.last_seen),
    )


def _print(record: users.UserRecord, *, as_json: bool, generated: str | None = None) -> None:
    warnings = client_id_warnings.of_user(record)
    if as_json:
        password = {} if generated is None else {"password": generated}
        terminal.print_json(json_fields(record) | password | {"warnings": json_value(warnings)})
        return
    click.echo(f"{record.username}  {'enabled' if record.enabled else 'disabled'}")
    click.echo(f"  grant types  {', '.join(sorted(record.grant_types)) or 'none'}")
    click.echo(f"  password     {generated or ('set' if record.has_password else 'none')}")
    click.echo(f"  2nd factor   {'set' if record.second_factor else 'none'}")
    click.echo(f"  origin       {record.origin}")
    click.echo(f"  roles        {', '.join(record.roles) or 'none'}")
    if record.group_roles:
        click.echo(f"  group roles  {', '.join(record.group_roles)}")
    click.echo(f"  client ids   {', '.join(record.client_ids) or 'any, unless a role restricts them'}")
    for permission in record.permissions:
        click.echo(f"  permission   {permission}")
    for damage in record.damage:
        click.echo(f"  damaged      {damage}; everything is denied")
    if record.administrator_on_broker:
        click.echo("  warning      may change something in this service and log in to the broker")
    for warning in warnings:
        click.echo(f"  warning      {warning.message}")
