"""`authsvc registry`: unlock the registry, list registrations, grant and deny."""

from __future__ import annotations

import dataclasses
import shlex
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, get_args

import click
from pydantic.alias_generators import to_camel, to_snake
from rich.console import Console
from rich.live import Live
from rich.table import Table

from authsvc.cli import terminal
from authsvc.cli.console.groups import Group
from authsvc.cli.console.tables import cell, print_table, printable
from authsvc.errors import invalid
from authsvc.pki.authorities import signing_policy
from authsvc.policy.permissions import Permission
from authsvc.record_json import json_fields
from registry import decisions, filters, preauthorizations, records
from registry import lock as registry_lock
from registry.cli import enrolment_keys
from registry.cli.filter_options import filter_from, filtered, of_status
from registry.mqtt_registration import refused_names, unknown_names
from registry.states import Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from authsvc.storage.paging import Page

_COLUMNS = ("ID", "USERNAME", "KIND", "STATUS", "CLIENT IDS", "ATTEMPTS", "LAST SEEN", "CODE", "REQUESTS", "NOTES")


@click.group("registry", cls=Group)
def group() -> None:
    """List registrations; grant or deny access."""


@group.command()
@terminal.as_json
def status(*, as_json: bool) -> None:
    """Show whether the registry is locked, and the number of pending registrations."""
    with terminal.opened():
        _print_state(registry_lock.state(), as_json=as_json)


@group.command()
@click.option(
    "--seconds",
    default=registry_lock.DEFAULT_SECONDS,
    type=click.IntRange(1, registry_lock.MAX_SECONDS),
    show_default=True,
    help="Length of the unlock window.",
)
@click.option(
    "--max-registrations",
    type=click.IntRange(1),
    help="Maximum number of granted registrations; attempts do not count.",
)
@click.option("--username-pattern", help="Only usernames that match, such as 'press_*'.")
@terminal.role_names
@terminal.as_json
def unlock(
    seconds: int,
    max_registrations: int | None,
    username_pattern: str | None,
    role_names: tuple[str, ...],
    *,
    as_json: bool,
) -> None:
    """Unlock the registry for a limited time."""
    with terminal.opened():
        limits = registry_lock.Limits(max_registrations, username_pattern, role_names)
        _print_state(registry_lock.unlock(terminal.operator(), seconds, limits), as_json=as_json)


@group.command()
def lock() -> None:
    """Lock the registry at once."""
    with terminal.opened():
        _print_state(registry_lock.lock(terminal.operator()), as_json=False)


@group.command("list")
@click.option(
    "--status", "wanted", default="pending", type=click.Choice(["pending", "granted", "denied", "expired", "all"])
)
@click.option("--search", default="", help="Part of the username.")
@click.option("--kind", type=click.Choice(["implicit", "explicit"]), help="Registered over MQTT, or over REST.")
@click.option("--after", type=terminal.TIME, help="First seen at this time or later, in UTC.")
@click.option("--before", type=terminal.TIME, help="First seen before this time, in UTC.")
@click.option(
    "--sort",
    type=click.Choice(get_args(records.RegistrationSort)),
    default="-lastSeen",
    metavar="FIELD",
    help="lastSeen, firstSeen, username or attempts; with - in front, descending.",
)
@terminal.paged
@click.option("--watch", is_flag=True, help="Refresh every second until interrupted.")
@terminal.as_json
def list_registrations(
    *,
    wanted: str,
    search: str,
    kind: str | None,
    after: datetime | None,
    before: datetime | None,
    sort: records.RegistrationSort,
    page: int,
    per_page: int,
    watch: bool,
    as_json: bool,
) -> None:
    """List registrations, latest contact first unless asked otherwise; pending ones by default."""
    matching = records.RegistrationFilter("" if wanted == "all" else wanted, search, kind or "", after, before)

    def listed() -> Page[records.RegistrationRecord]:
        return records.search(matching, page, per_page, sort)

    with terminal.opened():
        if watch:
            _watch(listed)
            return
        found = listed()
    if as_json:
        terminal.print_page(found, _fields)
        return
    print_table(_COLUMNS, map(_row, found.items))
    terminal.print_total(found, "registrations")


@group.command("refused-names")
@terminal.paged
@terminal.as_json
def list_refused_names(page: int, per_page: int, *, as_json: bool) -> None:
    """List usernames of the last 7 days that cannot register, and why, latest attempt first."""
    with terminal.opened():
        found = refused_names.search(page, per_page)
    if as_json:
        terminal.print_page(found, json_fields)
        return
    rows = (
        (one.name, one.reason, one.client_id, one.attempts, terminal.spell_moment(one.last_seen)) for one in found.items
    )
    print_table(("USERNAME", "REASON", "CLIENT ID", "ATTEMPTS", "LAST SEEN"), rows)


@group.command()
@click.argument("registration_id", metavar="ID")
def show(registration_id: str) -> None:
    """Show one registration, as JSON.

    ID is the id, at least its first 4 characters, or the username.
    """
    with terminal.opened():
        terminal.print_json(_fields(records.get(records.find(registration_id))))


@group.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@terminal.role_names
@terminal.permissions
@click.option("--accept-requested", is_flag=True, help="Also give the requested rights.")
@terminal.client_ids
@click.option("--accept-conflicts", is_flag=True, help="Grant although another device may be meant; for a single ID.")
@click.option(
    "--accept-http-rights",
    is_flag=True,
    help="Also give rights over this service that no option names; for a single ID.",
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
    """Grant registrations: create users with the given rights and their starting rights.

    ID is the id, at least its first 4 characters, or the username.

    With several IDs, registrations with conflicts and rights over this service are refused, and requested rights are
    given only if all registrations request the same.
    """
    if len(ids) > 1 and (accept_conflicts or accept_http_rights):
        raise click.UsageError("--accept-conflicts and --accept-http-rights are for one registration at a time")
    rules = tuple(map(Permission.parse, permissions))
    given = decisions.Grant(
        role_names, rules, accept_requested, accept_conflicts, accept_http_rights, client_ids=client_ids
    )
    with terminal.opened() as settings:
        signing = signing_policy(settings)
        ids = tuple(map(records.find, ids))
        if len(ids) == 1:
            click.echo(f"{decisions.grant(terminal.operator(), ids[0], given, signing).username} granted")
            return
        done, failed = decisions.grant_many(terminal.operator(), dict.fromkeys(ids, given), signing)
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
    """Deny registrations by ID, or all pending ones that match every given option.

    ID is the id, at least its first 4 characters, or the username.
    """
    with terminal.opened():
        chosen = filter_from(ids, wanted)
        if chosen:
            click.echo(f"{filters.deny(terminal.operator(), chosen, reason)} denied")
        for registration_id in [records.find(given) for given in ids]:
            click.echo(f"{decisions.deny(terminal.operator(), registration_id, reason).username} denied")


@group.command()
@click.argument("ids", metavar="ID...", nargs=-1)
@of_status
@filtered
def delete(ids: tuple[str, ...], wanted_status: str, **wanted: Any) -> None:
    """Delete registrations by ID, or all of a status that match every given option.

    Their usernames can register again. ID is the id, at least its first 4 characters, or the username.
    """
    with terminal.opened():
        chosen = filter_from(ids, wanted)
        if chosen:
            click.echo(f"{filters.delete(terminal.operator(), chosen, Status(wanted_status))} deleted")
        for registration_id in [records.find(given) for given in ids]:
            decisions.delete(terminal.operator(), registration_id)
            click.echo(f"{registration_id} deleted")


@group.command()
@click.argument("usernames", metavar="USERNAME...", nargs=-1)
@terminal.role_names
@terminal.permissions
@click.option(
    "--csv",
    "csv_file",
    type=terminal.FILE,
    help="File of username,roles,csrFingerprint lines, also with semicolons as Excel writes them.",
)
@click.option(
    "--with-secret",
    is_flag=True,
    help="Bind each name without a key to a one-time secret; print `username,secret` lines, only once.",
)
def preauthorize(
    usernames: tuple[str, ...],
    role_names: tuple[str, ...],
    permissions: tuple[str, ...],
    csv_file: Path | None,
    *,
    with_secret: bool,
) -> None:
    """Preauthorize usernames: their first contact is granted, also while the registry is locked.

    Without a key or secret, the first device that uses the name is granted. If somebody tried the name earlier, an
    administrator must approve it.
    """
    rules = tuple(map(Permission.parse, permissions))
    wanted = [
        preauthorizations.NewPreauthorization(name, role_names, rules, with_secret=with_secret) for name in usernames
    ]
    if csv_file:
        wanted += preauthorizations.read_csv(_text_of(csv_file), with_secrets=with_secret)
    with terminal.opened() as settings:
        created = preauthorizations.create(
            terminal.operator(), wanted, settings.password_policy, names=settings.registration_usernames
        )
    for record, secret in created:
        if secret:
            click.echo(f"{record.username},{secret}")
        elif record.held_reason:
            click.echo(f"{record.username} was tried earlier, so its first contact needs an approval", err=True)
    if not with_secret:
        click.echo(f"{len(created)} preauthorized")


@group.group("preauthorizations", cls=Group)
def preauthorizations_group() -> None:
    """List and delete preauthorizations that are not used yet."""


@preauthorizations_group.command("list")
@click.option("--search", default="", help="Part of the username.")
@terminal.paged
@terminal.as_json
def list_preauthorizations(search: str, page: int, per_page: int, *, as_json: bool) -> None:
    """List unused preauthorizations, sorted by username."""
    with terminal.opened():
        found = preauthorizations.search(search, page, per_page)
    if as_json:
        terminal.print_page(found, _preauthorization_fields)
        return
    columns = ("ID", "USERNAME", "ROLES", "PERMISSIONS", "SECRET", "KEY", "EXPIRES", "HELD")
    print_table(columns, map(_preauthorization_row, found.items))
    terminal.print_total(found, "preauthorizations")


@preauthorizations_group.command("delete")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
def delete_preauthorizations(ids: tuple[str, ...]) -> None:
    """Delete unused preauthorizations; users that were created by them stay.

    ID is the id, at least its first 4 characters, or the username.
    """
    with terminal.opened():
        for preauthorization_id in [preauthorizations.find(given) for given in ids]:
            preauthorizations.delete(terminal.operator(), preauthorization_id)
            click.echo(f"{preauthorization_id} deleted")


group.add_command(enrolment_keys.keys)


def _text_of(csv_file: Path) -> str:
    try:
        return csv_file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise invalid("csv", f"{csv_file} is not UTF-8 text; in Excel save it as 'CSV UTF-8'") from None


def _preauthorization_fields(record: preauthorizations.PreauthorizationRecord) -> dict[str, Any]:
    return {name: value for name, value in json_fields(record).items() if name != "line"}


def _preauthorization_row(record: preauthorizations.PreauthorizationRecord) -> tuple[object, ...]:
    expires = terminal.spell_moment(record.expires_at)
    binding = (record.with_secret, (record.csr_fingerprint or "")[:12])
    return (record.id, record.username, record.roles, record.permissions, *binding, expires, record.held_reason)


def _watch(listed: Callable[[], Page[records.RegistrationRecord]]) -> None:
    with Live(console=Console(markup=False, highlight=False), screen=False, auto_refresh=False) as live:
        try:
            while True:
                live.update(_table(listed()), refresh=True)
                time.sleep(1)
        except KeyboardInterrupt:
            return


def _table(found: Page[records.RegistrationRecord]) -> Table:
    now = registry_lock.state()
    title = "locked" if now.locked else f"unlocked for {now.seconds_left} s"
    table = Table(*_COLUMNS, title=f"client registry: {title}", box=None, pad_edge=False)
    for record in found.items:
        table.add_row(*map(cell, _row(record)))
    return table


def _print_state(now: registry_lock.LockState, *, as_json: bool) -> None:
    pending = records.count_pending()
    if as_json:
        until = terminal.spell_moment(now.unlocked_until) or None
        terminal.print_json(
            {"locked": now.locked, "unlockedUntil": until, "secondsLeft": now.seconds_left, "pending": pending}
        )
        return
    limit = "" if now.locked or now.granted is None else f", {now.granted} of at most {now.max_registrations} granted"
    click.echo(f"{'locked' if now.locked else f'unlocked for {now.seconds_left} s'}{limit}, {pending} pending")
    if flood := unknown_names.flood():
        like = f", most like '{flood.username_pattern}'" if flood.name_prefix else ""
        click.echo(f"{flood.names} unknown usernames per minute{like}{_advice(flood.suggested_filter)}")


def _advice(suggested: dict[str, str | int] | None) -> str:
    if suggested is None:
        return ""
    options = " ".join(
        f"--{to_snake(name).replace('_', '-')} {shlex.quote(str(value))}" for name, value in suggested.items()
    )
    return f"; to delete them: authsvc registry delete {options}"


def _row(record: records.RegistrationRecord) -> tuple[str, ...]:
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
        terminal.spell_moment(record.last_seen),
        record.pairing_code or (record.csr_fingerprint or "")[:12],
        ", ".join((*record.requested_roles, *map(str, requested))),
        ", ".join(notes),
    )


def _fields(record: records.RegistrationRecord) -> dict[str, Any]:
    fields = dataclasses.asdict(record)
    return {
        to_camel(name): terminal.spell_moment(value) if isinstance(value, datetime) else value
        for name, value in fields.items()
    }


COMMANDS = (group,)
