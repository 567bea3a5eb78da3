"""The command line `authsvc`, for accounts that may read the data directory."""

from __future__ import annotations

import sys

import click

from authsvc import __version__
from authsvc.cli import audit, broker_config, certificates, check, crl, roles, service, tokens, users
from authsvc.errors import AuthsvcError
from authsvc.storage.database import DATABASE_ERRORS
from registry.cli import register, registry


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="authsvc")
def commands() -> None:
    """Access control for Mosquitto.

    Settings are environment variables AUTHSVC_*. Every command except `serve` uses the database directly, whether or
    not the service runs. A running service applies the change within a second.
    """


commands.add_command(registry.group)
commands.add_command(register.command)
for module in (service, check, users, roles, tokens, certificates, crl, broker_config, audit):
    for command in module.COMMANDS:
        commands.add_command(command)


def main() -> None:
    """Run one command; an error is one line on standard error and exit status 1."""
    try:
        commands()
    except AuthsvcError as error:
        sys.exit(f"authsvc: {error.message}")
    except DATABASE_ERRORS as error:
        sys.exit(f"authsvc: the database cannot be used: {type(error).__name__}")
    except OSError as error:
        sys.exit(f"authsvc: {error.filename or 'the system'}: {error.strerror or type(error).__name__}")
    except UnicodeEncodeError:
        sys.exit("authsvc: an argument is not valid Unicode")
