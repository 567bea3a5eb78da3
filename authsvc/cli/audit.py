"""`authsvc audit`: the audit trail."""

from __future__ import annotations

import json

import click

from authsvc.activity import audit
from authsvc.cli import terminal
from authsvc.cli.console.tables import print_table
from authsvc.record_json import json_fields


@click.command("audit")
@click.option("--actor", default="")
@click.option("--action", default="", help="Such as user.create.")
@click.option("--target", default="", help="Such as user:press-7.")
@terminal.paged
@terminal.as_json
def command(actor: str, action: str, target: str, page: int, per_page: int, *, as_json: bool) -> None:
    """List changes, newest first."""
    with terminal.opened():
        found = audit.events(page, per_page, audit.AuditFilter(actor, action, target))
    if as_json:
        terminal.print_page(found, json_fields)
        return
    print_table(("AT", "ACTOR", "VIA", "ACTION", "TARGET", "BEFORE", "AFTER"), map(_row, found.items))


COMMANDS = (command,)


def _row(event: audit.Event) -> tuple[str, ...]:
    before, after = (json.dumps(fields) if fields else "" for fields in (event.before, event.after))
    return (terminal.spell_moment(event.at), event.actor, event.via, event.action, event.target, before, after)
