"""`authsvc clients`: the MQTT clients that are connected now."""

from __future__ import annotations

from typing import Any

import click

from authsvc.activity import live_clients
from authsvc.cli.console.groups import Group
from authsvc.cli.console.tables import print_table
from authsvc.cli.terminal import as_json, opened, operator, paged, print_json, print_page, print_total, spell_moment
from authsvc.errors import Busy
from authsvc.record_json import json_fields

_COLUMNS = ("BROKER", "CLIENT ID", "USERNAME", "ADDRESS", "PROTOCOL", "CONNECTED", "CREDENTIAL")


@click.group("clients", cls=Group)
def group() -> None:
    """List and disconnect the MQTT clients of brokers with authsvc's own plugin."""


@group.command("list")
@click.option("--broker", default="", help="Only this broker's.")
@click.option("--username", default="", help="Only this user's.")
@click.option("--search", default="", help="Part of the username, client id or address.")
@paged
@as_json
def list_clients(broker: str, username: str, search: str, page: int, per_page: int, *, as_json: bool) -> None:
    """List connected clients, the latest connection first."""
    with opened():
        found = live_clients.search(live_clients.LiveClientFilter(broker, username, search), page, per_page)
    if as_json:
        print_page(found, _shown)
        return
    print_table(_COLUMNS, map(_row, found.items))
    print_total(found, "clients")


@group.command()
@click.argument("broker")
@click.argument("client_id")
@as_json
def disconnect(broker: str, client_id: str, *, as_json: bool) -> None:
    """End the connection of CLIENT_ID to BROKER; a client that may connect can reconnect at once."""
    with opened():
        disconnected = live_clients.disconnect(operator(), broker, client_id)
    if as_json:
        print_json({"broker": broker, "clientId": client_id, "disconnected": disconnected})
    elif not disconnected:
        raise Busy("the broker has not reported the end of the connection within 2 seconds; look with: clients list")
    else:
        click.echo(f"{client_id} disconnected")


COMMANDS = (group,)


def _shown(record: live_clients.LiveClientRecord) -> dict[str, Any]:
    """Return the fields as the API names them."""
    return json_fields(record)


def _row(record: live_clients.LiveClientRecord) -> tuple[str, ...]:
    connected_at = spell_moment(record.connected_at)
    return (
        *(record.broker, record.client_id, record.username, record.address or ""),
        *(record.protocol, connected_at, record.credential),
    )
