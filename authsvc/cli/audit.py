"""`authsvc audit`: who changed what, and when."""

from __future__ import annotations

import json
from typing import Any

import click

from authsvc.activity import audit
from authsvc.cli.terminal import as_json, opened, print_json, print_table, spell_moment


@click.command("audit")
@click.option("--actor", default="")
@click.option("--action", default="", help="Such as user.create.")
@click.option("--target", default="", help="Such as user:press-7.")
@click.option("--page", default=1, type=click.IntRange(1))
@click.option("--per-page", default=50, type=click.IntRange(1, 1000))
@as_json
def command(actor: str, action: str, target: str, page: int, per_page: int, *, as_json: bool) -> None:
    """List changes, newest first."""
    wanted = {"actor": actor, "action": action, "target": target}
    with opened():
        found = audit.events(page, per_page, {name: value for name, value in wanted.items() if value})
    if as_json:
        print_json({"items": list(map(_facts, found.items)), "page": page, "perPage": per_page, "total": found.total})
        return
    print_table(("AT", "ACTOR", "VIA", "ACTION", "TARGET", "BEFORE", "AFTER"), map(_row, found.items))


COMMANDS = (command,)


def _facts(event: audit.Event) -> dict[str, Any]:
    return {
        "id": event.id,
        "at": spell_moment(event.at),
        "actor": event.actor,
        "via": event.via,
        "address": event.address,
        "requestId": event.request_id,
        "action": event.action,
        "target": event.target,
        "before": event.before,
        "after": event.after,
    }


def _row(event: audit.Event) -> tuple[str, ...]:
    before, after = (json.dumps(facts) if facts else "" for facts in (event.before, event.after))
    return (spell_moment(event.at), event.actor, event.via, event.action, event.target, before, after)
