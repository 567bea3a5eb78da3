"""`authsvc audit`: the audit trail."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from authsvc.activity import audit
from authsvc.cli import terminal
from authsvc.cli.console.tables import print_table
from authsvc.exports.rows import AUDIT_COLUMNS, of_audit_event
from authsvc.record_json import json_fields

if TYPE_CHECKING:
    from datetime import datetime

    from authsvc.cli.terminal import ExportFormat


@click.command("audit")
@click.option("--actor", default="", help="Such as admin. A * at the end matches any ending, here and below.")
@click.option("--action", default="", help="Such as user.create or user.*.")
@click.option("--target", default="", help="Such as user:press-7 or user:press-*.")
@click.option("--after", type=terminal.TIME, help="At this time or later, in UTC.")
@click.option("--before", type=terminal.TIME, help="Before this time, in UTC.")
@click.option("--oldest-first", is_flag=True, help="Sort by time, ascending.")
@terminal.paged
@terminal.exported
@terminal.as_json
def command(
    actor: str,
    action: str,
    target: str,
    after: datetime | None,
    before: datetime | None,
    page: int,
    per_page: int,
    export: ExportFormat | None,
    *,
    oldest_first: bool,
    as_json: bool,
) -> None:
    """List changes, newest first."""
    wanted = audit.AuditFilter(actor, action, target, after, before)
    with terminal.opened():
        if export:
            found = audit.export(wanted)
            terminal.print_export(export, found, AUDIT_COLUMNS, of_audit_event, json_fields, audit.MAX_EXPORTED)
            return
        events = audit.events(page, per_page, wanted, oldest_first=oldest_first)
    if as_json:
        terminal.print_page(events, json_fields)
        return
    print_table(("AT", "ACTOR", "VIA", "ACTION", "TARGET", "BEFORE", "AFTER"), map(_row, events.items))
    terminal.print_total(events, "changes")


COMMANDS = (command,)


def _row(event: audit.Event) -> tuple[str, ...]:
    before, after = (json.dumps(fields) if fields else "" for fields in (event.before, event.after))
    return (terminal.spell_moment(event.at), event.actor, event.via, event.action, event.target, before, after)
