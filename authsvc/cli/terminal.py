"""What commands share: the database they work on, who they act as, and how they print."""

from __future__ import annotations

import json
import os
import pwd
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from authsvc import settings
from authsvc.accounts import bootstrap
from authsvc.credentials.hashing import HashingPool
from authsvc.credentials.passwords import PasswordHasher
from authsvc.errors import Conflict
from authsvc.policy.actors import Actor, Via
from authsvc.storage import schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from authsvc.accounts.client_id_warnings import PolicyWarning
    from authsvc.settings import Settings


client_ids = click.option(
    "--client-id",
    "client_ids",
    multiple=True,
    metavar="PATTERN",
    help="Allowed client id: %u is the username, * any characters; may be repeated.",
)
any_client_id = click.option("--any-client-id", is_flag=True, help="Remove the allowed client ids.")

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


def read_settings() -> Settings:
    """Return the settings that the environment asks for."""
    return settings.from_environment(os.environ)


@contextmanager
def opened() -> Iterator[Settings]:
    """Work on a database that `authsvc init` or `serve` has prepared."""
    chosen = read_settings()
    bootstrap.open_database(chosen)
    if schema.pending():
        raise Conflict("the database is not prepared; run `authsvc init` first, or `authsvc migrate` after an upgrade")
    yield chosen


def operator() -> Actor:
    """Return whoever runs the command, by the system's account, for the audit trail."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name  # the environment would say whatever it was told to
    except KeyError:
        name = str(os.getuid())
    return Actor(name[:64], Via.COMMAND)


def hasher(chosen: Settings) -> PasswordHasher:
    """Return what makes stored passwords under these settings."""
    return PasswordHasher(chosen.password_policy, chosen.bcrypt_cost, HashingPool(1, 1))


def ask_password(*, from_stdin: bool) -> str:
    """Return a new password from standard input or a prompt; never from an argument, which other users could see."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    answer: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    return answer


def chosen_client_ids(client_ids: tuple[str, ...], *, any_client_id: bool) -> tuple[str, ...] | None:
    """Return the allowed client ids that a command names in place of those there are; None to keep them."""
    if client_ids and any_client_id:
        raise click.UsageError("--client-id and --any-client-id exclude each other")
    return client_ids if client_ids or any_client_id else None


def spell_warnings(warnings: Iterable[PolicyWarning]) -> list[dict[str, str]]:
    """Return warnings in the words of the API."""
    return [{"code": code, "message": message} for code, message in warnings]


def spell_moment(moment: datetime | None) -> str:
    """Write a time as RFC 3339 in UTC; nothing for none."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment else ""


def printable(text: str) -> str:
    """Return text with every control character spelled out: names come from strangers, and terminals obey."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def print_json(value: Any) -> None:
    """Print a value for scripts."""
    click.echo(json.dumps(value, indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table for people: to a terminal as wide as it is, elsewhere without cutting anything."""
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*map(printable, row))
    console = Console(width=None if sys.stdout.isatty() else 10_000, markup=False, highlight=False)
    console.print(table)
