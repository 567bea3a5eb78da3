"""`authsvc register`: run on a device, to become a user of a service elsewhere."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from registry.cli import client


@click.command("register")
@click.option("--server", required=True, metavar="URL", help="Where authsvc answers, such as https://auth.example.")
@click.option("--username", help="Who the device wants to be; not needed with --renew.")
@click.option(
    "--csr", "with_certificate", is_flag=True, help="Register for a certificate (the default without --password)."
)
@click.option(
    "--password", "with_password", is_flag=True, help="Register with a password; asked for, or from --password-stdin."
)
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option(
    "--enrolment-key-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Holds an enrolment key."
)
@click.option(
    "--ca-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The authority of the server's certificate.",
)
@click.option(
    "--out", "directory", default=".", type=click.Path(file_okay=False, path_type=Path), help="Where the files go."
)
@click.option(
    "--wait", type=click.FloatRange(0), metavar="SECONDS", help="Give up after so long; the default is to wait."
)
@click.option("--renew", is_flag=True, help="Renew the certificate in --out if it is time; for cron.")
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
    """Ask to become a user and wait for an administrator.

    Writes client.key, client.crt and ca.crt, ready for `mosquitto_pub --key --cert --cafile`. May be ended and started
    again at any time; a key that is there is used and never overwritten.
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
        click.echo("renewed; restart what uses the certificate" if renewed else "not due before two thirds of its life")
        return
    give_up_at = None if wait is None else time.monotonic() + wait
    answer = client.register(enrolment, lambda words: click.echo(words, err=True), give_up_at)
    click.echo(f"{username} may connect now")
    if "certificate" in answer:
        names = (client.KEY, client.CERTIFICATE, client.CA_CERTIFICATE)
        click.echo("key, certificate and its authority: " + ", ".join(str(directory / name) for name in names))


def _password(*, from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    # Asked once: it is the same when the command is started again.
    answer: str = click.prompt("Password", hide_input=True)
    return answer
