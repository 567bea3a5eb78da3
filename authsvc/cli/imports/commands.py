"""`authsvc import mosquitto|dynsec|go-auth`: users and rules of another system, all or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from authsvc.cli import terminal
from authsvc.cli.console.groups import Group
from authsvc.cli.imports.output import print_result, progress
from authsvc.errors import AuthsvcError, InvalidInput
from authsvc.importing import dynsec, go_auth, mosquitto
from authsvc.importing.go_auth_tables import read_tables
from authsvc.importing.moving_in import move_in

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from authsvc.importing.imported import Imported

_OPTIONS = {
    "file": "FILE",
    "database": "--database",
    "userQuery": "--user-query",
    "aclQuery": "--acl-query",
}


def _shared(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that every import has."""
    for option in (
        terminal.as_json,
        click.option("--update", is_flag=True, help="Change users and roles that exist; otherwise leave them alone."),
        click.option("--dry-run", is_flag=True, help="Only print what would be done."),
    ):
        command = option(command)
    return command


_passwords = click.option("--passwords", type=terminal.FILE, help="The password file.")
_acl = click.option("--acl", type=terminal.FILE, help="The ACL file.")


@click.group("import", cls=Group)
def group() -> None:
    """Import users, password hashes and rules of another system.

    All or nothing is imported, in one transaction. Users and roles that exist are left alone without --update, so an
    import can be repeated.
    """


@group.command("mosquitto")
@_passwords
@_acl
@_shared
def import_mosquitto(passwords: Path | None, acl: Path | None, **options: bool) -> None:
    """Import Mosquitto's password_file and acl_file."""
    if not (passwords or acl):
        raise click.UsageError("give --passwords, --acl or both")
    _run(lambda: mosquitto.read(_content(passwords), _content(acl)), **options)


@group.command("dynsec")
@click.argument("file", type=terminal.FILE)
@_shared
def import_dynsec(file: Path, **options: bool) -> None:
    """Import the JSON file of Mosquitto's dynamic-security plugin."""
    _run(lambda: dynsec.read(file.read_bytes()), **options)


@group.command("go-auth")
@_passwords
@_acl
@click.option(
    "--database", metavar="URL", help="sqlite:///PATH or postgresql://...; the password may be in PGPASSWORD."
)
@click.option("--user-query", metavar="SQL", help="Selects all users: username, hash, and perhaps superuser.")
@click.option("--acl-query", metavar="SQL", help="Selects all rules: username, topic, rw.")
@click.option(
    "--salt-encoding",
    type=click.Choice(["base64", "utf-8"]),
    default="base64",
    help="go-auth's hasher_salt_encoding.",
)
@_shared
def import_go_auth(
    passwords: Path | None,
    acl: Path | None,
    database: str | None,
    user_query: str | None,
    acl_query: str | None,
    salt_encoding: str,
    **options: bool,
) -> None:
    """Import the files of go-auth's files backend, or the tables of its SQL backends."""
    from_files, from_tables = passwords or acl, database or user_query or acl_query
    if bool(from_files) == bool(from_tables) or bool(database) != bool(user_query):
        raise click.UsageError("give --passwords and --acl, or --database, --user-query and --acl-query")
    salt_is_text = salt_encoding == "utf-8"
    if database and user_query:
        _run(
            lambda: go_auth.read_rows(*read_tables(database, user_query, acl_query), salt_is_text=salt_is_text),
            **options,
        )
    else:
        _run(lambda: go_auth.read_files(_content(passwords), _content(acl), salt_is_text=salt_is_text), **options)


def _content(file: Path | None) -> bytes | None:
    return file.read_bytes() if file else None


def _run(read: Callable[[], Imported], *, update: bool, dry_run: bool, as_json: bool) -> None:
    with terminal.opened(), progress() as step:
        step("reading")
        try:
            imported = read()
        except InvalidInput as error:
            (wrong,) = error.errors
            raise AuthsvcError(f"{_OPTIONS.get(wrong.field, wrong.field)}: {wrong.message}") from None
        step(f"{'comparing' if dry_run else 'importing'} {len(imported.document.users):,} users")
        result = move_in(terminal.operator(), imported, update=update, dry_run=dry_run)
    print_result(result, done=not dry_run, as_json=as_json)


COMMANDS = (group,)
