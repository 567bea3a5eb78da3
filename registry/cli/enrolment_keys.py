"""`authsvc registry keys`: make, list and revoke enrolment keys."""

from __future__ import annotations

from datetime import UTC
from typing import Any

import click

from authsvc.cli.terminal import as_json, opened, operator, print_json, print_table, spell_moment
from registry import enrolment_keys


@click.group()
def keys() -> None:
    """Enrolment keys: secrets that vouch for so many registrations."""


@keys.command("create")
@click.argument("label")
@click.option("--uses", default=1, type=click.IntRange(1, enrolment_keys.MAX_USES), show_default=True)
@click.option("--expires", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S%z"]), help="A day or a time; UTC.")
@click.option("--approval-required", is_flag=True, help="Somebody still decides on each.")
@click.option("--role", "role_names", multiple=True, help="May be repeated.")
@as_json
def create_key(
    label: str, uses: int, expires: Any, role_names: tuple[str, ...], *, approval_required: bool, as_json: bool
) -> None:
    """Make an enrolment key and print its secret, this once."""
    expires_at = expires.replace(tzinfo=expires.tzinfo or UTC) if expires else None
    with opened():
        secret, record = enrolment_keys.create(
            operator(), label, uses, role_names, expires_at, approval_required=approval_required
        )
    if as_json:
        print_json({"secret": secret, **_key_facts(record)})
    else:
        click.echo(secret)


@keys.command("list")
@as_json
def list_keys(*, as_json: bool) -> None:
    """List enrolment keys, newest first."""
    with opened():
        found = enrolment_keys.search(1, 1000)
    if as_json:
        print_json(list(map(_key_facts, found.items)))
        return
    rows = ([str(value) for value in _key_facts(record).values()] for record in found.items)
    print_table(("ID", "LABEL", "USES", "USED", "ROLES", "APPROVAL", "EXPIRES", "REVOKED"), rows)


@keys.command("revoke")
@click.argument("key_id", metavar="ID")
def revoke_key(key_id: str) -> None:
    """End an enrolment key at once."""
    with opened():
        enrolment_keys.revoke(operator(), key_id)
    click.echo(f"{key_id} revoked")


def _key_facts(record: enrolment_keys.KeyRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "label": record.label,
        "uses": record.uses,
        "used": record.used,
        "roles": list(record.roles),
        "approvalRequired": record.approval_required,
        "expires": spell_moment(record.expires_at),
        "revoked": spell_moment(record.revoked_at),
    }
