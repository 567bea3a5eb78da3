"""`authsvc broker-config`: a Mosquitto configuration that uses this service."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click
from jinja2 import Environment, PackageLoader, StrictUndefined

from authsvc.addresses import host_of
from authsvc.broker.plugin_protocol import MAX_BROKER_NAME
from authsvc.cli.terminal import read_settings

if TYPE_CHECKING:
    from authsvc.settings import Settings

PLACEHOLDER = "{{webhook_secret}}"
_GO_AUTH = "/mosquitto/go-auth.so"
_SECRET_FILE = "/run/secrets/webhook_secret"  # noqa: S105 - a path
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
@click.option("--plugin", callback=_one_line, metavar="FILE", help="Path of authsvc's own plugin, to use it.")
@click.option(
    "--go-auth",
    callback=_one_line,
    metavar="FILE",
    help=f"Path of the plugin go-auth, which is used without --plugin. [default: {_GO_AUTH}]",
)
@click.option(
    "--secret-file",
    callback=_one_line,
    metavar="FILE",
    help=f"With --plugin: file with the webhook secret, if there is one. [default: {_SECRET_FILE}]",
)
@click.option(
    "--ca-file",
    callback=_one_line,
    metavar="FILE",
    help="With --plugin: CA certificates of the TLS proxy before authsvc; the URL is then https.",
)
@click.option(
    "--name",
    callback=_one_line,
    help="With --plugin: name of this broker on the pages, up to 64 characters. [default: the host name]",
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
def command(*, placeholder: bool, **given: Any) -> None:
    """Print a complete Mosquitto configuration.

    With --plugin it is for authsvc's own plugin and names the file of the webhook secret. Otherwise it is for the
    plugin go-auth and contains the webhook secret.

    With AUTHSVC_MUTUAL_TLS=no, clients with passwords and clients with certificates use separate listeners. With yes,
    every client needs a certificate.
    """
    _check_plugin_options(given)
    settings = read_settings()
    bound = host_of(settings.broker_bind)
    has_secret = placeholder or settings.webhook_secret is not None
    filled_in = {
        "go_auth": given["go_auth"] or _GO_AUTH,
        "secret_file": given["secret_file"] or (_SECRET_FILE if has_secret else None),
        "scheme": "https" if given["ca_file"] else "http",
        "mutual_tls": settings.mutual_tls,
        "host": _in_url(given["host"] or ("127.0.0.1" if bound in _ANY_ADDRESS else bound)),
        "port": given["port"] or settings.broker_bind.rpartition(":")[2],
        "credentials": _credentials(settings, placeholder=placeholder),
        "placeholder": placeholder,
        "server_directory": given["server_directory"] or given["pki_directory"],
    }
    click.echo(_templates.get_template("mosquitto.conf").render(given | filled_in), nl=False)


def _check_plugin_options(given: dict[str, Any]) -> None:
    """Raise `UsageError` for options of both plugins at once, and for a name that the service would refuse."""
    if given["plugin"] and given["go_auth"]:
        raise click.UsageError("--plugin and --go-auth exclude each other: a broker uses one of the two plugins")
    for option in ("secret_file", "ca_file", "name"):
        if given[option] and not given["plugin"]:
            raise click.UsageError(f"--{option.replace('_', '-')} needs --plugin")
    if given["name"] and len(given["name"]) > MAX_BROKER_NAME:
        raise click.BadParameter(f"must be at most {MAX_BROKER_NAME} characters", param_hint="'--name'")


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
