"""`authsvc denials`: what clients of all users were denied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import click

from authsvc.activity import denials
from authsvc.cli import terminal
from authsvc.cli.console.tables import print_table
from authsvc.policy.decision import Reason
from authsvc.record_json import json_fields, json_value

if TYPE_CHECKING:
    from datetime import datetime

COLUMNS = ("LAST SEEN", "COUNT", "CLIENT ID", "DENIED", "REASON", "ADVICE")


@click.command("denials")
@click.option("--search", default="", help="Part of a username, client id or topic.")
@click.option("--username", default="", help="Only this user's.")
@click.option("--reason", type=click.Choice([reason.value for reason in Reason]), help="Only for this reason.")
@click.option("--kind", type=click.Choice(["login", "topic"]), help="Only denied logins, or only denied topics.")
@click.option("--after", type=terminal.TIME, help="Last seen at this time or later, in UTC.")
@click.option("--before", type=terminal.TIME, help="Last seen before this time, in UTC.")
@terminal.paged
@terminal.as_json
def command(
    search: str,
    username: str,
    reason: str | None,
    kind: Literal["login", "topic"] | None,
    after: datetime | None,
    before: datetime | None,
    page: int,
    per_page: int,
    *,
    as_json: bool,
) -> None:
    """List what the clients of all users were denied in the last 7 days, latest first, and how to allow it."""
    wanted = denials.DenialFilter(username, search, reason or "", kind or "", after, before)
    with terminal.opened():
        found = denials.search(wanted, page, per_page)
    if as_json:
        terminal.print_page(found, _fields)
        return
    print_table(("USERNAME", *COLUMNS), ((record.denial.username, *row(record)) for record in found.items))
    terminal.print_total(found, "denials")


COMMANDS = (command,)


def row(record: denials.DenialRecord) -> tuple[str, ...]:
    """Return the cells of `COLUMNS`."""
    denial, advice = record.denial, record.advice
    denied = f"{record.operation} {record.topic}" if record.topic else "login"
    suggestion = str(advice.permission or advice.note)
    last_seen = terminal.spell_moment(record.last_seen)
    return (last_seen, str(record.count), denial.client_id, denied, denial.reason, suggestion)


def _fields(record: denials.DenialRecord) -> dict[str, Any]:
    """Return a denial as the API shows it."""
    denial, advice = record.denial, record.advice
    return {
        "clientId": denial.client_id,
        "topic": record.topic,
        "operation": record.operation,
        "reason": denial.reason,
        "count": record.count,
        "firstSeen": json_value(record.first_seen),
        "lastSeen": json_value(record.last_seen),
        "suggestedPermission": advice.permission and json_fields(advice.permission),
        "advice": advice.note,
        "username": denial.username,
    }
