"""`authsvc registry keys`: create, list and revoke enrolment keys."""

from __future__ import annotations

from datetime import UTC
from typing import Any

import click

from authsvc.cli import terminal
from registry import enrolment_keys


@click.group()
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
    rows = ([str(value) for value in _fields(record).values()] for record in found.items)
    terminal.print_table(("ID", "LABEL", "USES", "USED", "ROLES", "APPROVAL", "EXPIRES", "REVOKED"), rows)


@keys.command("revoke")
@click.argument("key_id", metavar="ID")
def revoke_key(key_id: str) -> None:
    """Revoke an enrolment key. Devices that registered with it stay."""
    with terminal.opened():
        enrolment_keys.revoke(terminal.operator(), key_id)
    click.echo(f"{key_id} revoked")


def _fields(record: enrolment_keys.EnrolmentKeyRecord) -> dict[str, Any]:
    return {
        **{name: getattr(record, name) for name in ("id", "label", "uses", "used", "roles")},
        "approvalRequired": record.approval_required,
        "expiresAt": terminal.spell_moment(record.expires_at),
        "revokedAt": terminal.spell_moment(record.revoked_at),
    }
