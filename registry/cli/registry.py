"""`authsvc registry`: who wants in, and letting them."""

from __future__ import annotations

import dataclasses
import shlex
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from pydantic.alias_generators import to_camel, to_snake
from rich.console import Console
from rich.live import Live
from rich.table import Table

from authsvc.cli.terminal import (
    as_json,
    client_ids,
    opened,
    operator,
    print_json,
    print_table,
    printable,
    spell_moment,
)
from authsvc.pki.authorities import signing_policy
from authsvc.policy.permissions import PERMISSION_FORM, Permission
from registry import decisions, filters, preauthorizations, records
from registry import lock as window
from registry.cli import enrolment_keys
from registry.cli.filter_options import filter_from, filtered, of_status
from registry.mqtt_registration import unknown_names
from registry.states import Status

_COLUMNS = ("ID", "USERNAME", "KIND", "STATUS", "CLIENT IDS", "ATTEMPTS", "LAST SEEN", "CODE", "REQUESTS", "NOTES")
_ROLE_HELP = "May be repeated."
_roles = click.option("--role", "role_names", multiple=True, help=_ROLE_HELP)
_permissions = click.option(
    "--permission", "permissions", multiple=True, metavar="RULE", help=f"{PERMISSION_FORM}; may be repeated."
)


@click.group("registry")
def group() -> None:
    """See who wants in; grant or deny."""


@group.command()
@as_json
def status(*, as_json: bool) -> None:
    """Show whether the registry is locked, and how much is pending."""
    with opened():
        _print_state(window.state(), as_json=as_json)


@group.command()
@click.option(
    "--seconds", default=window.DEFAULT_SECONDS, type=click.IntRange(1, window.MAX_SECONDS), show_default=True
)
@click.option(
    "--max-registrations",
    type=click.IntRange(1),
    help="How many registrations are granted at most; attempts do not count.",
)
@click.option("--username-pattern", help="A glob, such as 'press_*'.")
@_roles
@as_json
def unlock(
    seconds: int,
    max_registrations: int | None,
    username_pattern: str | None,
    role_names: tuple[str, ...],
    *,
    as_json: bool,
) -> None:
    """Open the registry for a while; it locks itself again."""
    with opened():
        limits = window.Limits(max_registrations, username_pattern, role_names)
        _print_state(window.unlock(operator(), seconds, limits), as_json=as_json)


@group.command()
def lock() -> None:
    """Close the registry at once."""
    with opened():
        _print_state(window.lock(operator()), as_json=False)


@group.command("list")
@click.option(
    "--status", "wanted", default="pending", type=click.Choice(["pending", "granted", "denied", "expired", "all"])
)
@click.option("--search", default="", help="Part of the username.")
@click.option("--page", default=1, type=click.IntRange(1))
@click.option("--per-page", default=50, type=click.IntRange(1, 1000))
@click.option("--watch", is_flag=True, help="Refresh every second until interrupted.")
@as_json
def list_registrations(wanted: str, search: str, page: int, per_page: int, *, watch: bool, as_json: bool) -> None:
    """List registrations, latest contact first; the pending ones unless told otherwise."""
    chosen = ("" if wanted == "all" else wanted, search, page, per_page)
    with opened():
        if watch:
            _watch(chosen)
            return
        found = records.search(*chosen)
    if as_json:
        print_json({"items": list(map(_facts, found.items)), "page": page, "perPage": per_page, "total": found.total})
        return
    print_table(_COLUMNS, map(_row, found.items))


@group.command()
@click.argument("registration_id", metavar="ID")
def show(registration_id: str) -> None:
    """Show one registration, as JSON."""
    with opened():
        print_json(_facts(records.get(registration_id)))


@group.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@_roles
@_permissions
@click.option("--accept-requested", is_flag=True, help="Also give what the client asked for.")
@client_ids
@click.option("--accept-conflicts", is_flag=True, help="Grant one although another device may be meant.")
@click.option(
    "--accept-http-rights", is_flag=True, help="Also give one rights over this service that are not named here."
)
def grant(
    ids: tuple[str, ...],
    role_names: tuple[str, ...],
    permissions: tuple[str, ...],
    client_ids: tuple[str, ...],
    *,
    accept_requested: bool,
    accept_conflicts: bool,
    accept_http_rights: bool,
) -> None:
    """Make users of registrations, with what is named here and nothing else.

    Several at once get no rights over this service, none with conflicts is among them, and what they request is given
    only if all request the same.
    """
    if len(ids) > 1 and (accept_conflicts or accept_http_rights):
        raise click.UsageError("--accept-conflicts and --accept-http-rights are for one registration at a time")
    rules = tuple(map(Permission.parse, permissions))
    given = decisions.Grant(
        role_names, rules, accept_requested, accept_conflicts, accept_http_rights, client_ids=client_ids
    )
    with opened() as settings:
        issuing = signing_policy(settings)
        if len(ids) == 1:
            click.echo(f"{decisions.grant(operator(), ids[0], given, issuing).username} granted")
            return
        done, failed = decisions.grant_many(operator(), dict.fromkeys(ids, given), issuing)
    for record in done:
        click.echo(f"{record.username} granted")
    for registration_id, error in failed:
        click.echo(printable(f"{registration_id} not granted: {error.message}"), err=True)
    if failed:
        raise click.exceptions.Exit(1)


@group.command()
@click.argument("ids", metavar="ID...", nargs=-1)
@click.option("--reason")
@filtered
def deny(ids: tuple[str, ...], reason: str | None, **wanted: Any) -> None:
    """Refuse registrations by ID, or all pending ones that fit every option given; remembered until deleted."""
    with opened():
        chosen = filter_from(ids, wanted)
        if chosen:
            click.echo(f"{filters.deny(operator(), chosen, reason)} denied")
        for registration_id in ids:
            click.echo(f"{decisions.deny(operator(), registration_id, reason).username} denied")


@group.command()
@click.argument("ids", metavar="ID...", nargs=-1)
@of_status
@filtered
def delete(ids: tuple[str, ...], wanted_status: str, **wanted: Any) -> None:
    """Forget registrations by ID, or all of a status that fit every option given; their names may ask again."""
    with opened():
        chosen = filter_from(ids, wanted)
        if chosen:
            click.echo(f"{filters.delete(operator(), chosen, Status(wanted_status))} forgotten")
        for registration_id in ids:
            decisions.delete(operator(), registration_id)
            click.echo(f"{registration_id} forgotten")


@group.command()
@click.argument("usernames", metavar="USERNAME...", nargs=-1)
@_roles
@_permissions
@click.option(
    "--csv",
    "csv_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="username,roles,csrFingerprint",
)
@click.option(
    "--with-secret",
    is_flag=True,
    help="Bind each that names no key to a one-time secret, and print `username,secret` lines, this once.",
)
def preauthorize(
    usernames: tuple[str, ...],
    role_names: tuple[str, ...],
    permissions: tuple[str, ...],
    csv_file: Path | None,
    *,
    with_secret: bool,
) -> None:
    """Let names in at their first contact, also while the registry is locked; once each.

    Without a key or secret a name goes to whoever comes first, and waits for approval if somebody tried it earlier.
    """
    rules = tuple(map(Permission.parse, permissions))
    advances = [
        preauthorizations.NewPreauthorization(name, role_names, rules, with_secret=with_secret) for name in usernames
    ]
    if csv_file:
        advances += preauthorizations.read_csv(csv_file.read_text(encoding="utf-8-sig"), with_secrets=with_secret)
    with opened() as settings:
        created = preauthorizations.create(operator(), advances, settings.password_policy)
    for record, secret in created:
        if secret:
            click.echo(f"{record.advance.username},{secret}")
        elif record.held_reason:
            click.echo(f"{record.advance.username} was tried earlier, so its first contact needs approval", err=True)
    if not with_secret:
        click.echo(f"{len(created)} preauthorized")


group.add_command(enrolment_keys.keys)


def _watch(chosen: tuple[str, str, int, int]) -> None:
    with Live(console=Console(markup=False, highlight=False), screen=False, auto_refresh=False) as live:
        try:
            while True:
                live.update(_table(chosen), refresh=True)
                time.sleep(1)
        except KeyboardInterrupt:
            return


def _table(chosen: tuple[str, str, int, int]) -> Table:
    now = window.state()
    title = "locked" if now.locked else f"unlocked for {now.seconds_left} s"
    table = Table(*_COLUMNS, title=f"client registry: {title}", box=None, pad_edge=False)
    for record in records.search(*chosen).items:
        table.add_row(*map(printable, _row(record)))
    return table


def _print_state(now: window.LockState, *, as_json: bool) -> None:
    pending = records.count_pending()
    if as_json:
        until = spell_moment(now.unlocked_until) or None
        print_json({"locked": now.locked, "unlockedUntil": until, "secondsLeft": now.seconds_left, "pending": pending})
        return
    places = "" if now.locked or now.granted is None else f", {now.granted} of at most {now.max_registrations} granted"
    click.echo(f"{'locked' if now.locked else f'unlocked for {now.seconds_left} s'}{places}, {pending} pending")
    if flood := unknown_names.flood():
        like = f", most like '{flood.username_pattern}'" if flood.name_prefix else ""
        click.echo(f"{flood.names} unknown usernames a minute{like}{_advice(flood.suggested_filter)}")


def _advice(suggested: dict[str, str | int] | None) -> str:
    if suggested is None:
        return ""
    words = " ".join(
        f"--{to_snake(name).replace('_', '-')} {shlex.quote(str(value))}" for name, value in suggested.items()
    )
    return f"; to forget them: authsvc registry delete {words}"


def _row(record: records.Record) -> tuple[str, ...]:
    notes = ["while locked"] if record.recorded_while_locked else []
    notes += [f"{record.conflicts} conflicts"] if record.conflicts else []
    notes += [f"damaged: {', '.join(record.damage)}"] if record.damage else []
    requested = [Permission.from_fields(**fields) for fields in record.requested_permissions]
    notes += [f"held: {record.held_reason}"] if record.held_reason else []
    notes += [f"looks like {', '.join(record.similar_to)}"] if record.similar_to else []
    return (
        record.id,
        record.username,
        record.kind,
        record.status,
        ", ".join(record.client_ids),
        str(record.attempts),
        spell_moment(record.last_seen),
        record.pairing_code or (record.csr_fingerprint or "")[:12],
        ", ".join((*record.requested_roles, *map(str, requested))),
        ", ".join(notes),
    )


def _facts(record: records.Record) -> dict[str, Any]:
    facts = dataclasses.asdict(record)
    return {
        to_camel(name): spell_moment(value) if isinstance(value, datetime) else value for name, value in facts.items()
    }
