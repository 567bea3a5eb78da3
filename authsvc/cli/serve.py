"""`authsvc serve`: prepare the service on its first start, then run both listeners or one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from authsvc.server import directory_lock, environment

if TYPE_CHECKING:
    from authsvc.settings import Settings


@click.command("serve")
@click.option(
    "--only",
    type=click.Choice(["api", "broker"]),
    help="Run one listener by itself, for separate units or containers. [default: both]",
)
def serve_command(only: str | None) -> None:
    """Serve the API on AUTHSVC_BIND and brokers on AUTHSVC_BROKER_BIND until stopped.

    The first start creates the data directory, the database and the administrator. One service at a time runs each
    listener of a data directory.
    """
    # Before the libraries are imported, because the program that is started again imports them too.
    environment.restart_without_secrets()
    from authsvc.server import serve  # noqa: PLC0415
    from authsvc.settings import from_environment  # noqa: PLC0415
    from authsvc.storage.database import close_all_connections  # noqa: PLC0415

    settings = from_environment(environment.with_secrets())
    listener = serve.Listener(only) if only else None
    serve.check(settings, listener)
    with directory_lock.locked(settings.data_dir, [listener] if listener else serve.Listener):
        prepare(settings)
        close_all_connections()
        if listener is not serve.Listener.BROKER:
            click.echo(
                f"Sign in at http://{settings.bind}/admin   to read about the API: http://{settings.bind}/api/docs"
            )
        if listener is not serve.Listener.API:
            click.echo(f"Brokers are answered at http://{settings.broker_bind}")
        sys.stdout.flush()
        serve.run(settings, listener)


COMMANDS = (serve_command,)


def prepare(settings: Settings) -> None:
    """Create what is missing of data directory, database and administrator; print a generated password."""
    from authsvc.accounts import bootstrap  # noqa: PLC0415

    generated = bootstrap.prepare(settings)
    if generated:
        click.echo(
            "\nFirst start. Sign in as the administrator:\n"
            f"    username  {bootstrap.ADMINISTRATOR}\n"
            f"    password  {generated}\n"
            "This password is not shown again; set another with: authsvc users set-password admin\n"
        )
