"""`authsvc registry keys`: create, list, revoke and delete enrolment keys."""

from __future__ import annotations

from datetime import UTC
from typing import Any

import click

from authsvc.cli import terminal
from authsvc.cli.console.groups import Group
from authsvc.cli.console.tables import print_table
from registry import enrolment_keys


@click.group(cls=Group)
def keys() -> None:
    """Enrolment keys: secrets that let a limited number of devices register while the registry is locked."""


@keys.command("create")
@click.argument("label")
@click.option(
    "--uses",
    default=1,
    type=click.IntRange(1, enrolment_keys.MAX_USES),
    show_default=True,
    help="Maximum number of registrations.",
)
@click.option("--expires", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S%z"]), help="A date or a time, in UTC.")
@click.option("--approval-required", is_flag=True, help="An administrator must approve each registration.")
@click.option("--role", "role_names", multiple=True, help="Role of every device; may be repeated.")
@terminal.as_json
def create_key(
    label: str, uses: int, expires: Any, role_names: tuple[str, ...], *, approval_required: bool, as_json: bool
) -> None:
    """Create an enrolment key and print its secret, which is shown only once."""
    expires_at = expires.replace(tzinfo=expires.tzinfo or UTC) if expires else None
    with terminal.opened():
        secret, record = enrolment_keys.create(
            terminal.operator(), label, uses, role_names, expires_at, approval_required=approval_required
        )
    if as_json:
        terminal.print_json({"secret": secret, **_fields(record)})
    else:
        click.echo(secret)


@keys.command("list")
@terminal.as_json
def list_keys(*, as_json: bool) -> None:
    """List enrolment keys, newest first."""
    with terminal.opened():
        found = enrolment_keys.search(1, 1000)
    if as_json:
        terminal.print_json(list(map(_fields, found.items)))
        return
    rows = (list(_fields(record).values()) for record in found.items)
    print_table(("ID", "LABEL", "USES", "USED", "ROLES", "APPROVAL", "EXPIRES", "REVOKED"), rows)


@keys.command("revoke")
@click.argument("given", metavar="ID")
def revoke_key(given: str) -> None:
    """Revoke an enrolment key; devices that registered with it stay.

    ID is the id, at least its first 4 characters, or a label that a single key has.
    """
    with terminal.opened():
        key_id = enrolment_keys.find(given)
        enrolment_keys.revoke(terminal.operator(), key_id)
    click.echo(f"{key_id} revoked")


@keys.command("delete")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
def delete_keys(ids: tuple[str, ...]) -> None:
    """Delete enrolment keys, also from the list; devices that registered with them stay.

    ID is the id, at least its first 4 characters, or a label that a single key has.
    """
    with terminal.opened():
        for key_id in [enrolment_keys.find(given) for given in ids]:
            enrolment_keys.delete(terminal.operator(), key_id)
            click.echo(f"{key_id} deleted")


def _fields(record: enrolment_keys.EnrolmentKeyRecord) -> dict[str, Any]:
    return {
        **{name: getattr(record, name) for name in ("id", "label", "uses", "used", "roles")},
        "approvalRequired": record.approval_required,
        "expiresAt": terminal.spell_moment(record.expires_at),
        "revokedAt": terminal.spell_moment(record.revoked_at),
    }
