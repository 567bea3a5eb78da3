"""`authsvc crl`: run beside a broker."""

from __future__ import annotations

import os
import shlex
import time
from datetime import UTC, datetime
from pathlib import Path

import click
import structlog

from authsvc.observability import logs
from authsvc.pki import crl_sync

log = structlog.get_logger()
_existing = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group("crl")
def group() -> None:
    """Keep a broker's revocation list fresh."""


@group.command()
@click.option(
    "--server", default="http://127.0.0.1:8080", show_default=True, metavar="URL", help="Where authsvc answers."
)
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The broker's crlfile.")
@click.option(
    "--ca", "ca_file", type=_existing, help="The broker's cafile, to check lists by; without it /pki/ca.pem is asked."
)
@click.option(
    "--ca-out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The broker's cafile, to be written from /pki/ca.pem; trust the way to the server, or bring it by hand.",
)
@click.option("--server-ca", "server_ca_file", type=_existing, help="The authority of the server's own certificate.")
@click.option(
    "--pid", "pid_file", type=click.Path(dir_okay=False, path_type=Path), help="Holds the broker's process id."
)
@click.option("--command", help="What to run instead of sending SIGHUP, such as 'systemctl reload mosquitto'.")
@click.option("--interval", type=click.FloatRange(0.1), metavar="SECONDS", help="Go on for ever, so often.")
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
    """Fetch the revocation lists, check them, put them in place, and tell the broker if they changed."""
    if ca_file and ca_out:
        raise click.UsageError("--ca is for a file that is brought by hand, --ca-out writes one")
    logs.configure(os.environ.get("AUTHSVC_LOG_LEVEL", "info"))
    words = tuple(shlex.split(command)) if command else ()
    target = crl_sync.Target(server, out, ca_file, server_ca_file, pid_file, words, ca_out)
    if interval is None:
        changed = crl_sync.sync(target, datetime.now(UTC))
        click.echo(f"{out} {'renewed' if changed else 'is up to date'}")
        return
    while True:
        _attempt(target)
        time.sleep(interval)


COMMANDS = (group,)


def _attempt(target: crl_sync.Target) -> None:
    now = datetime.now(UTC)
    try:
        if crl_sync.sync(target, now):
            log.info("revocation list renewed", file=str(target.out))
    except crl_sync.SyncError as error:
        log.warning("revocation list not renewed", reason=error.message)
        crl_sync.warn_before_expiry(target.out, now)
