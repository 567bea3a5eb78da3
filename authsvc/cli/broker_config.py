"""`authsvc broker-config`: a Mosquitto configuration that uses this service."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import TYPE_CHECKING
from urllib.parse import quote

import click
from jinja2 import Environment, PackageLoader, StrictUndefined

from authsvc.addresses import host_of
from authsvc.cli.terminal import read_settings

if TYPE_CHECKING:
    from authsvc.settings import Settings

PLACEHOLDER = "{{webhook_secret}}"
_ANY_ADDRESS = {"0.0.0.0", "::"}
_templates = Environment(
    loader=PackageLoader("authsvc.cli"),
    autoescape=False,  # noqa: S701 - no HTML, and every value was checked
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    undefined=StrictUndefined,
)


def _one_line(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """Refuse control characters: Mosquitto would read the next line as another option."""
    if value is not None and (not value.strip() or re.search(r"[\x00-\x1f\x7f]", value)):
        raise click.BadParameter("must be one line of text")
    return value


def _address(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value is not None and re.search(r"[\s@/?#]", value):
        raise click.BadParameter("must be a host name or an address")
    return _one_line(context, option, value)


_port = click.IntRange(1, 65_535)


@click.command("broker-config")
@click.option("--host", callback=_address, help="Where the broker finds authsvc. [default: as in AUTHSVC_BROKER_BIND]")
@click.option("--port", type=_port, help="[default: as in AUTHSVC_BROKER_BIND]")
@click.option(
    "--plugin",
    default="/mosquitto/go-auth.so",
    show_default=True,
    callback=_one_line,
    metavar="FILE",
    help="Path of the go-auth plugin.",
)
@click.option(
    "--pki",
    "pki_directory",
    default="/etc/mosquitto/pki",
    show_default=True,
    callback=_one_line,
    metavar="DIRECTORY",
    help="Directory of ca.pem, crl.pem, server.crt and server.key.",
)
@click.option(
    "--server-pki",
    "server_directory",
    callback=_one_line,
    metavar="DIRECTORY",
    help="Directory of server.crt and server.key, if it is another one.",
)
@click.option(
    "--pid",
    "pid_file",
    default="/run/mosquitto/mosquitto.pid",
    show_default=True,
    callback=_one_line,
    metavar="FILE",
    help="PID file of the broker.",
)
@click.option("--password-port", default=1883, show_default=True, type=_port)
@click.option("--tls-port", default=8883, show_default=True, type=_port)
@click.option("--placeholder", is_flag=True, help=f"Print {PLACEHOLDER} in place of the webhook secret.")
def command(
    host: str | None, port: int | None, server_directory: str | None, *, placeholder: bool, **given: str
) -> None:
    """Print a complete Mosquitto configuration, which contains the webhook secret.

    With AUTHSVC_MUTUAL_TLS=no, clients with passwords and clients with certificates use separate listeners. With yes,
    every client needs a certificate.
    """
    settings = read_settings()
    bound = host_of(settings.broker_bind)
    filled_in = {
        "mutual_tls": settings.mutual_tls,
        "host": _in_url(host or ("127.0.0.1" if bound in _ANY_ADDRESS else bound)),
        "port": port or settings.broker_bind.rpartition(":")[2],
        "credentials": _credentials(settings, placeholder=placeholder),
        "placeholder": placeholder,
        "server_directory": server_directory or given["pki_directory"],
    }
    click.echo(_templates.get_template("mosquitto.conf").render(given | filled_in), nl=False)


COMMANDS = (command,)


def _in_url(host: str) -> str:
    """Return the host as a URL has it: an IPv6 address in brackets."""
    try:
        return f"[{IPv6Address(host.strip('[]'))}]"
    except ValueError:
        return host


def _credentials(settings: Settings, *, placeholder: bool) -> str:
    """Return the user and password of a URL; empty without a webhook secret."""
    if placeholder:
        return f"broker:{PLACEHOLDER}@"
    if settings.webhook_secret is None:
        return ""
    return f"broker:{quote(settings.webhook_secret, safe='')}@"
