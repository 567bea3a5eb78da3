"""Commands for the whole service: init, migrate, explain, backup, restore."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
import requests
from cryptography import x509

from authsvc.accounts import bootstrap
from authsvc.cli import terminal
from authsvc.cli.serve import prepare
from authsvc.pki import authorities
from authsvc.policy.access import access_number, decide_access
from authsvc.storage import backup as backups
from authsvc.storage import models as storage_models
from authsvc.storage.database import sqlite_file
from authsvc.storage.policy_cache import snapshot_of
from registry import models as registry_models

if TYPE_CHECKING:
    from collections.abc import Iterator

    from authsvc.policy.access import AccessName
    from authsvc.policy.decision import Decision
    from authsvc.settings import Settings


@click.command()
def init() -> None:
    """Create the data directory, the database and the administrator, unless they exist.

    Says so if a service with another database answers on AUTHSVC_BIND.
    """
    settings = terminal.read_settings()
    prepare(settings)
    _warn_of_another_service(settings)


@click.command()
def migrate() -> None:
    """Migrate the database to this version of authsvc."""
    settings = terminal.read_settings()
    bootstrap.open_existing_database(settings)
    applied = bootstrap.migrate(settings)
    click.echo("\n".join(f"applied {name}" for name in applied) or "nothing to do")


@click.command()
@click.argument("username")
@click.argument("operation", type=click.Choice(["read", "write", "readWrite", "subscribe"]))
@click.argument("topic")
@click.option("--client-id", default="", help="The client id for %c; if given, checked against the allowed client ids.")
@terminal.as_json
def explain(username: str, operation: AccessName, topic: str, client_id: str, *, as_json: bool) -> None:
    """Show whether USERNAME may do OPERATION on TOPIC, and which permission decides; exit status 1 if denied.

    `read` of a topic filter with wildcards means SUBSCRIBE.
    """
    with terminal.opened():
        snapshot = snapshot_of(username)
    decision = decide_access(snapshot, username, client_id or None, topic, access_number(operation, topic))
    if as_json:
        terminal.print_json(_shown(decision))
    else:
        click.echo(_words(decision))
    sys.exit(0 if decision else 1)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def backup(file: Path) -> None:
    """Write all tables to a new FILE, which contains secrets and is readable by you alone.

    FILE appears when the backup is complete; an interrupted backup leaves no file.
    """
    with terminal.opened(), _interrupted_by_sigterm():
        rows = backups.backup(file, _TABLES)
    click.echo(f"{rows} rows written to {file}")


@click.command()
@click.argument("file", type=terminal.FILE)
def restore(file: Path) -> None:
    """Create a new database and fill it from a backup FILE; a database with users is refused.

    Use it in place of `authsvc init`.
    """
    settings = terminal.read_settings()
    bootstrap.open_database(settings)
    bootstrap.migrate(settings)
    rows = backups.restore(file, _TABLES)
    database_file = sqlite_file(settings.database_url)
    click.echo(f"{rows} rows restored from {file}" + (f" into {database_file}" if database_file else ""))


_LOOPBACK = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
_TIMEOUT_SECONDS = 2
_TABLES = (*storage_models.ALL, *registry_models.ALL)
COMMANDS = (init, migrate, explain, backup, restore)


def _warn_of_another_service(settings: Settings) -> None:
    """Print a warning if the service on AUTHSVC_BIND has other certificate authorities, and so another database."""
    host, _, port = settings.bind.rpartition(":")
    address = f"{_LOOPBACK.get(host, host)}:{port}"
    try:
        found = x509.load_pem_x509_certificates(_fetch_authorities(f"http://{address}/pki/ca.pem"))
    except (requests.RequestException, ValueError):
        return  # no authsvc
    if not set(found) & set(x509.load_pem_x509_certificates(authorities.certificates_pem().encode())):
        click.echo(
            f"A service with another database runs on {address}. Commands with this environment do not affect it: "
            f"they use {sqlite_file(settings.database_url) or 'the database in AUTHSVC_DATABASE_URL'}.",
            err=True,
        )


def _fetch_authorities(url: str) -> bytes:
    with requests.Session() as session:
        session.trust_env = False  # no proxy for an address of this machine
        return session.get(url, timeout=_TIMEOUT_SECONDS).content


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Make SIGTERM raise `KeyboardInterrupt` in a block, so that the block removes its incomplete files."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _shown(decision: Decision) -> dict[str, object]:
    return {
        "allowed": bool(decision),
        "reason": decision.reason.value,
        "permission": str(decision.permission) if decision.permission else None,
        "role": decision.role,
    }


def _words(decision: Decision) -> str:
    words = f"{'allowed' if decision else 'denied'}: {decision.reason}"
    if decision.permission:
        words += f" `{decision.permission}`"
        words += f" of role {decision.role}" if decision.role else " of the user's own"
    return words
