"""`authsvc tokens`: API tokens and their signing keys."""

from __future__ import annotations

import math
from typing import Any

import click

from authsvc.accounts import api_tokens, signing_keys
from authsvc.cli import terminal
from authsvc.record_json import json_fields


@click.group("tokens")
def group() -> None:
    """List, issue and revoke API tokens."""


@group.command("list")
@click.option("--user", "username", default="", help="Only this user's.")
@click.option("--search", default="", help="Part of the label or username.")
@terminal.paged
@terminal.as_json
def list_tokens(username: str, search: str, page: int, per_page: int, *, as_json: bool) -> None:
    """List API tokens, newest first, without their secrets."""
    with terminal.opened():
        found = api_tokens.list_tokens(username, search, page, per_page)
    if as_json:
        terminal.print_page(found, _shown)
        return
    rows = (tuple(_shown(record).values()) for record in found.items)
    terminal.print_table(("ID", "USERNAME", "LABEL", "CREATED", "EXPIRES", "LAST USED"), rows)


def _finite(_context: click.Context, _option: click.Parameter, hours: float) -> float:
    if not math.isfinite(hours):
        raise click.BadParameter("must be a number of hours")
    return hours


@group.command()
@click.argument("username")
@click.option("--label", default="")
@click.option(
    "--hours",
    callback=_finite,
    default=api_tokens.DEFAULT_HOURS,
    type=click.FloatRange(0, api_tokens.MAX_HOURS, min_open=True),
    show_default=True,
)
@terminal.as_json
def create(username: str, label: str, hours: float, *, as_json: bool) -> None:
    """Issue a token with the rights of USERNAME; no other command shows it."""
    with terminal.opened() as settings:
        limits = api_tokens.TokenLimits(settings.tokens_per_minute, settings.token_max_days)
        issued = api_tokens.issue_token(terminal.operator(), username, label, hours, limits)
    if as_json:
        terminal.print_json({"token": issued.token, **_shown(issued.record)})
        return
    click.echo(issued.token)


@group.command()
@click.argument("token_id", metavar="ID")
def revoke(token_id: str) -> None:
    """Revoke a token, effective within a second."""
    with terminal.opened():
        api_tokens.revoke_token(terminal.operator(), token_id)
    click.echo(f"token {token_id} revoked")


@group.command("rotate-key")
def rotate_key() -> None:
    """Sign new tokens with a new key; older tokens stay valid until revoked or expired."""
    with terminal.opened():
        kid = signing_keys.rotate(terminal.operator())
    click.echo(f"new tokens are signed with key {kid}")


COMMANDS = (group,)


def _shown(record: api_tokens.TokenRecord) -> dict[str, Any]:
    return json_fields(record) | {
        "lastUsedAt": terminal.spell_moment(record.last_used_at)
    }  # empty, not null, if never used
