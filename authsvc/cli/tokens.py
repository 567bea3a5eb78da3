"""`authsvc tokens` and `authsvc sessions`: API tokens, their signing keys, and browser sessions."""

from __future__ import annotations

import math
from typing import Any

import click

from authsvc.accounts import api_tokens, browser_sessions, signing_keys
from authsvc.cli import terminal
from authsvc.cli.console.groups import Group
from authsvc.cli.console.tables import print_table
from authsvc.record_json import json_fields


@click.group("tokens", cls=Group)
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
    print_table(("ID", "USERNAME", "LABEL", "CREATED", "EXPIRES", "LAST USED"), rows)


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
@click.argument("given", metavar="ID")
def revoke(given: str) -> None:
    """Revoke a token, effective within a second.

    ID is the id, at least its first 4 characters, or a username that has a single token.
    """
    with terminal.opened():
        token_id = api_tokens.find(given)
        api_tokens.revoke_token(terminal.operator(), token_id)
    click.echo(f"token {token_id} revoked")


@group.command("rotate-key")
def rotate_key() -> None:
    """Sign new tokens with a new key; older tokens stay valid until revoked or expired."""
    with terminal.opened():
        kid = signing_keys.rotate(terminal.operator())
    click.echo(f"new tokens are signed with key {kid}")


@click.group("sessions", cls=Group)
def sessions_group() -> None:
    """List and end the browser sessions of the web page."""


@sessions_group.command("list")
@click.option("--user", "username", default="", help="Only this user's.")
@terminal.paged
@terminal.as_json
def list_sessions(username: str, page: int, per_page: int, *, as_json: bool) -> None:
    """List browser sessions, latest use first."""
    with terminal.opened() as settings:
        found = browser_sessions.search(username, settings.session_lifetime, page, per_page)
    if as_json:
        terminal.print_page(found, json_fields)
        return
    columns = ("ID", "USERNAME", "CREATED", "LAST SEEN", "EXPIRES", "ADDRESS", "BY TOKEN", "BROWSER")
    print_table(columns, map(_session_row, found.items))
    terminal.print_total(found, "sessions")


@sessions_group.command("delete")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
def delete_sessions(ids: tuple[str, ...]) -> None:
    """End browser sessions by the beginning of their ID, or a user's only session by the username.

    The browser has to sign in again at its next request.
    """
    with terminal.opened() as settings:
        for session_id in [browser_sessions.find(given, settings.session_lifetime) for given in ids]:
            browser_sessions.end(terminal.operator(), session_id)
            click.echo(f"session {session_id} ended")


COMMANDS = (group, sessions_group)


def _session_row(record: browser_sessions.SessionRecord) -> tuple[object, ...]:
    moments = map(terminal.spell_moment, (record.created_at, record.last_seen, record.expires_at))
    return (record.id, record.username, *moments, record.address, record.by_token, record.browser)


def _shown(record: api_tokens.TokenRecord) -> dict[str, Any]:
    return json_fields(record) | {
        "lastUsedAt": terminal.spell_moment(record.last_used_at)
    }  # empty, not null, if never used
