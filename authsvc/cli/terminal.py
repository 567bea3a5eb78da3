"""What commands share: options, the open database, the actor, and output as JSON or table."""

from __future__ import annotations

import json
import os
import pwd
import sys
from contextlib import contextmanager
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from authsvc import settings
from authsvc.accounts import bootstrap
from authsvc.cli.console import suggestions
from authsvc.credentials.hashing import HashingPool
from authsvc.credentials.passwords import PasswordHasher, generate
from authsvc.errors import AuthsvcError, Conflict
from authsvc.exports.formats import csv_parts, json_parts
from authsvc.policy.actors import Actor, Via
from authsvc.policy.permissions import PERMISSION_FORM, Permission
from authsvc.record_json import rfc3339
from authsvc.storage import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

    from authsvc.credentials.passwords import PasswordPolicy
    from authsvc.settings import Settings
    from authsvc.storage.paging import Page

Command = TypeVar("Command", bound="Callable[..., Any]")
Record = TypeVar("Record")
ExportFormat = Literal["csv", "json"]


class _Time(click.DateTime):
    """A time, in UTC unless it has an offset."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        moment: datetime = super().convert(value, param, ctx)
        return moment.replace(tzinfo=moment.tzinfo or UTC)


TIME = _Time(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"])
"""The type of an option for a time."""

client_ids = click.option(
    "--client-id",
    "client_ids",
    multiple=True,
    metavar="PATTERN",
    help="Allowed client id: %u is the username, * any characters; may be repeated.",
)
any_client_id = click.option("--any-client-id", is_flag=True, help="Remove the allowed client ids.")

role_names = click.option("--role", "role_names", multiple=True, help="May be repeated.")
permissions = click.option(
    "--permission", "permissions", multiple=True, metavar="RULE", help=f"{PERMISSION_FORM}; may be repeated."
)
add_permission = click.option("--add-permission", multiple=True, metavar="RULE", help=PERMISSION_FORM)
remove_permission = click.option("--remove-permission", multiple=True, metavar="RULE")

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
"""The type of an option for an existing file."""

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
exported = click.option(
    "--export", type=click.Choice(["csv", "json"]), help="Print everything that matches, not one page."
)


def paged(command: Command) -> Command:
    """Add the options of a list: --page and --per-page."""
    command = click.option("--per-page", default=50, type=click.IntRange(1, 1000))(command)
    return click.option("--page", default=1, type=click.IntRange(1))(command)


def read_settings() -> Settings:
    """Return the settings of this process's environment."""
    return settings.from_environment(os.environ)


@contextmanager
def opened() -> Iterator[Settings]:
    """Connect to the prepared database and yield the settings.

    `NotFound` if there is no database, `Conflict` if a migration is pending.
    """
    chosen = read_settings()
    bootstrap.open_existing_database(chosen)
    if schema.pending():
        raise Conflict("the database is not prepared; run `authsvc init` first, or `authsvc migrate` after an upgrade")
    try:
        yield chosen
    except AuthsvcError as error:
        raise suggestions.completed(error, click.get_current_context().params) from None


def operator() -> Actor:
    """Return the actor for the audit trail: the system account that runs the command."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name  # not from the environment, which the caller can set
    except KeyError:
        name = str(os.getuid())
    return Actor(name[:64], Via.COMMAND)


def hasher(chosen: Settings) -> PasswordHasher:
    """Return a hasher with the password policy and bcrypt cost of these settings."""
    return PasswordHasher(chosen.password_policy, chosen.bcrypt_cost, HashingPool(1, 1))


def new_password(policy: PasswordPolicy, *, from_stdin: bool, generated: bool) -> str:
    """Return a generated password, or one from standard input or a prompt; other accounts could see an argument."""
    if generated and from_stdin:
        raise click.UsageError("--generate-password and --password-stdin exclude each other")
    if generated:
        return generate(policy)
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    answer: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    return answer


def chosen_client_ids(client_ids: tuple[str, ...], *, any_client_id: bool) -> tuple[str, ...] | None:
    """Return the new allowed client ids; None to keep the stored ones."""
    if client_ids and any_client_id:
        raise click.UsageError("--client-id and --any-client-id exclude each other")
    return client_ids if client_ids or any_client_id else None


def changed_permissions(
    stored: tuple[Permission, ...], added: tuple[str, ...], removed: tuple[str, ...]
) -> tuple[Permission, ...]:
    """Return the stored and added permissions without the removed ones."""
    wanted = (*stored, *map(Permission.parse, added))
    unwanted = set(map(Permission.parse, removed))
    return tuple(permission for permission in wanted if permission not in unwanted)


def spell_moment(moment: datetime | None) -> str:
    """Return a time as RFC 3339 in UTC; an empty text for None."""
    return rfc3339(moment) if moment else ""


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    click.echo(json.dumps(value, indent=2))


def print_page(found: Page[Record], show: Callable[[Record], dict[str, Any]]) -> None:
    """Print one page of a list as JSON."""
    items = list(map(show, found.items))
    print_json({"items": items, "page": found.page, "perPage": found.per_page, "total": found.total})


def print_total(found: Page[Any], noun: str) -> None:
    """Print how many of all matching records the page has, if it has not all of them."""
    if found.total > len(found.items):
        click.echo(f"page {found.page}: {len(found.items)} of {found.total} {noun}")


def print_export(
    export_format: ExportFormat,
    records: Iterable[Record],
    columns: Sequence[str],
    row: Callable[[Record], Sequence[str]],
    show: Callable[[Record], dict[str, Any]],
    limit: int,
) -> None:
    """Print all records as a CSV file with these columns, or as a JSON file, while they are read."""
    is_csv = export_format == "csv"
    for part in csv_parts(columns, map(row, records)) if is_csv else json_parts(map(show, records), limit):
        # As bytes: a line of CSV ends with a carriage return and a line feed on every system.
        click.echo(part.encode("utf-8", "replace"), nl=False)
