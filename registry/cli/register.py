"""`authsvc register`: run on a device, to register it at a remote service."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from registry.cli import client

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("register")
@click.option("--server", required=True, metavar="URL", help="URL of authsvc, such as https://auth.example.")
@click.option("--username", help="Username of the device; not needed with --renew.")
@click.option(
    "--csr", "with_certificate", is_flag=True, help="Register for a certificate (the default without --password)."
)
@click.option(
    "--password", "with_password", is_flag=True, help="Register with a password, from a prompt or --password-stdin."
)
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--enrolment-key-file", type=_FILE, help="File that contains an enrolment key.")
@click.option("--ca-file", type=_FILE, help="CA certificate of the server.")
@click.option(
    "--out", "directory", default=".", type=click.Path(file_okay=False, path_type=Path), help="Directory for the files."
)
@click.option(
    "--wait",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Give up after this time; waits without limit by default.",
)
@click.option("--renew", is_flag=True, help="Renew the certificate in --out if it is due; for cron.")
def command(
    server: str,
    username: str | None,
    directory: Path,
    enrolment_key_file: Path | None,
    ca_file: Path | None,
    wait: float | None,
    *,
    with_certificate: bool,
    with_password: bool,
    password_stdin: bool,
    renew: bool,
) -> None:
    """Register this device and wait until an administrator grants it.

    Writes client.key and client.crt for `mosquitto_pub --key --cert`, unless only a password is registered, and ca.crt
    for its `--cafile`. ca.crt has the authorities of authsvc. It verifies a broker whose certificate was made with
    `authsvc certificates issue-server`; for any other broker use the authority of its certificate.

    You can stop the command and start it again at any time: it uses an existing key and never overwrites it.
    """
    if not renew and not username:
        raise click.UsageError("--username is needed")
    enrolment = client.Enrolment(
        server=server,
        username=username or "",
        directory=directory,
        with_certificate=with_certificate or not (with_password or password_stdin),
        password=_password(from_stdin=password_stdin) if with_password or password_stdin else None,
        enrolment_key=enrolment_key_file.read_text().strip() if enrolment_key_file else None,
        ca_file=ca_file,
    )
    if renew:
        renewed = client.renew(enrolment, datetime.now(UTC))
        click.echo(
            "renewed; restart the programs that use the certificate"
            if renewed
            else "not renewed: the certificate is due after two thirds of its lifetime"
        )
        return
    give_up_at = None if wait is None else time.monotonic() + wait
    answer = client.register(enrolment, lambda message: click.echo(message, err=True), give_up_at)
    click.echo(f"{username} can connect now")
    if "certificate" in answer:
        click.echo(f"key and certificate: {directory / client.KEY}, {directory / client.CERTIFICATE}")
    if (directory / client.CA_CERTIFICATE).exists():
        click.echo(f"authorities to verify the broker with: {directory / client.CA_CERTIFICATE}")


def _password(*, from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    # No confirmation: the user types the same password again when the command is restarted.
    answer: str = click.prompt("Password", hide_input=True)
    return answer


COMMANDS = (command,)
