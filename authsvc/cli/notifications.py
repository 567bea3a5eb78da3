"""`authsvc notifications`: webhooks and mails about events."""

from __future__ import annotations

import click

from authsvc.cli import terminal
from authsvc.cli.console.groups import Group
from authsvc.cli.console.tables import print_table
from authsvc.errors import AuthsvcError, Busy
from authsvc.notifications import outbox, subscriptions
from authsvc.notifications.outbox import EVENTS, Status
from authsvc.record_json import json_fields

_COLUMNS = ("ID", "NAME", "URL", "EVENTS", "ENABLED")
_DELIVERY_COLUMNS = ("ID", "EVENT", "STATUS", "ATTEMPTS", "CREATED", "NEXT ATTEMPT", "ERROR")


@click.group("notifications", cls=Group)
def group() -> None:
    """List, create, test and delete webhooks and mails about events."""


@group.command("list")
@click.option("--search", default="", help="Part of the name.")
@terminal.paged
@terminal.as_json
def list_notifications(search: str, page: int, per_page: int, *, as_json: bool) -> None:
    """List notifications, sorted by name."""
    with terminal.opened():
        found = subscriptions.search(search, page, per_page)
    if as_json:
        terminal.print_page(found, json_fields)
        return
    print_table(_COLUMNS, map(_row, found.items))


@group.command()
@click.argument("name")
@click.argument("url")
@click.option(
    "--event",
    "events",
    multiple=True,
    type=click.Choice([event.value for event in EVENTS]),
    help="May be repeated; all events unless given.",
)
@terminal.as_json
def create(name: str, url: str, events: tuple[str, ...], *, as_json: bool) -> None:
    """Create a notification and print the secret of its signature, which no other command shows.

    URL is https://..., http://... or mailto:ADDRESS.
    """
    with terminal.opened() as settings:
        created = subscriptions.create(terminal.operator(), name, url, events or EVENTS, settings)
    if as_json:
        terminal.print_json({**json_fields(created.record), "secret": created.secret})
    else:
        click.echo(created.secret or f"notification {name} created")


@group.command()
@click.argument("notification", metavar="NAME_OR_ID")
def delete(notification: str) -> None:
    """Delete a notification and its messages."""
    with terminal.opened():
        record = subscriptions.named(notification)
        subscriptions.delete(terminal.operator(), record.id)
    click.echo(f"{record.name} deleted")


@group.command("test")
@click.argument("notification", metavar="NAME_OR_ID")
def send_test(notification: str) -> None:
    """Have the running service send a test message, and wait up to 5 seconds for the result."""
    with terminal.opened():
        record = subscriptions.named(notification)
        delivery = subscriptions.wait_for_attempt(subscriptions.send_test(terminal.operator(), record.id))
    if delivery.error is not None:
        raise AuthsvcError(f"not delivered: {delivery.error}")
    if delivery.status != Status.DELIVERED:
        raise Busy("the message has not been sent within 5 seconds; check that `authsvc serve` is running")
    click.echo(f"delivered to {record.name}")


@group.command()
@click.argument("notification", metavar="NAME_OR_ID")
@click.option(
    "--status",
    default="",
    type=click.Choice(["", *(status.value for status in Status)]),
    help="pending, delivered or failed (given up).",
)
@terminal.paged
@terminal.as_json
def deliveries(notification: str, status: str, page: int, per_page: int, *, as_json: bool) -> None:
    """List the messages of the last days to a notification, newest first."""
    with terminal.opened():
        found = outbox.deliveries(subscriptions.named(notification).id, status, page, per_page)
    if as_json:
        terminal.print_page(found, json_fields)
        return
    print_table(_DELIVERY_COLUMNS, map(_delivery_row, found.items))


COMMANDS = (group,)


def _row(record: subscriptions.NotificationRecord) -> tuple[str, ...]:
    return (record.id, record.name, record.url, " ".join(record.events), "yes" if record.enabled else "no")


def _delivery_row(record: outbox.DeliveryRecord) -> tuple[str, ...]:
    next_attempt = terminal.spell_moment(record.next_attempt_at)
    created = terminal.spell_moment(record.created_at)
    return (record.id, record.event, record.status, str(record.attempts), created, next_attempt, record.error or "")
