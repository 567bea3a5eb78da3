"""`authsvc crl`: keep the revocation list of a broker current."""

from __future__ import annotations

import os
import shlex
import time
from datetime import UTC, datetime
from pathlib import Path

import click
import structlog

from authsvc.cli.console.groups import Group
from authsvc.observability import logs
from authsvc.pki import crl_sync

log = structlog.get_logger()
_existing = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group("crl", cls=Group)
def group() -> None:
    """Keep a broker's revocation list current."""


@group.command()
@click.option(
    "--server", default="http://127.0.0.1:8080", show_default=True, metavar="URL", help="Base URL of authsvc."
)
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The broker's crlfile.")
@click.option(
    "--ca",
    "ca_file",
    type=_existing,
    help="The broker's cafile, to verify lists with; the default is /pki/ca.pem of the server.",
)
@click.option(
    "--ca-out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write /pki/ca.pem to this file, the broker's cafile; use it only on a connection that you trust.",
)
@click.option("--server-ca", "server_ca_file", type=_existing, help="CA certificate to verify an https server with.")
@click.option("--pid", "pid_file", type=click.Path(dir_okay=False, path_type=Path), help="PID file of the broker.")
@click.option("--command", help="Command to run instead of sending SIGHUP, such as 'systemctl reload mosquitto'.")
@click.option(
    "--interval", type=click.FloatRange(0.1), metavar="SECONDS", help="Keep running and fetch every SECONDS seconds."
)
def sync(
    server: str,
    out: Path,
    ca_file: Path | None,
    ca_out: Path | None,
    server_ca_file: Path | None,
    pid_file: Path | None,
    command: str | None,
    interval: float | None,
) -> None:
    """Fetch and verify the revocation lists, write them, and reload the broker if they changed."""
    if ca_file and ca_out:
        raise click.UsageError(
            "--ca and --ca-out exclude each other: --ca reads the broker's cafile, --ca-out writes it"
        )
    logs.configure(os.environ.get("AUTHSVC_LOG_LEVEL", "info"))
    words = tuple(shlex.split(command)) if command else ()
    target = crl_sync.Target(server, out, ca_file, server_ca_file, pid_file, words, ca_out)
    if interval is None:
        changed = crl_sync.sync(target, datetime.now(UTC))
        click.echo(f"{out} {'updated' if changed else 'is up to date'}")
        return
    while True:
        _attempt(target)
        time.sleep(interval)


COMMANDS = (group,)


def _attempt(target: crl_sync.Target) -> None:
    now = datetime.now(UTC)
    try:
        if crl_sync.sync(target, now):
            log.info("revocation list updated", file=str(target.out))
    except crl_sync.SyncError as error:
        log.warning("revocation list not updated", reason=error.message)
        crl_sync.warn_before_expiry(target.out, now)
