"""The command line `authsvc`, for accounts that may read the data directory."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from authsvc import __version__
from authsvc.cli.console.groups import Group
from authsvc.errors import AuthsvcError

_MODULES = {
    "serve": "authsvc.cli.serve",
    **dict.fromkeys(("init", "migrate", "explain", "backup", "restore"), "authsvc.cli.service"),
    "check": "authsvc.cli.check",
    "users": "authsvc.cli.users",
    "roles": "authsvc.cli.roles",
    **dict.fromkeys(("tokens", "sessions"), "authsvc.cli.tokens"),
    "clients": "authsvc.cli.clients",
    **dict.fromkeys(("certificates", "ca"), "authsvc.cli.certificates"),
    "crl": "authsvc.cli.crl",
    "notifications": "authsvc.cli.notifications",
    "broker-config": "authsvc.cli.broker_config",
    "audit": "authsvc.cli.audit",
    **dict.fromkeys(("export", "apply"), "registry.cli.policy_file"),
    "registry": "registry.cli.registry",
    "register": "registry.cli.register",
}


class _Commands(Group):
    """Commands whose modules are imported when they are used, because no command needs all libraries."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        return sorted(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        if cmd_name not in _MODULES:
            return None
        commands: tuple[click.Command, ...] = import_module(_MODULES[cmd_name]).COMMANDS
        return next(command for command in commands if command.name == cmd_name)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="authsvc")
def commands() -> None:
    """Access control for Mosquitto.

    Settings are environment variables AUTHSVC_*. Every command except `serve` uses the database directly, whether or
    not the service runs. A running service applies the change within a second.
    """


def main() -> None:
    """Run one command; an error is one line on standard error and exit status 1."""
    try:
        commands(prog_name="authsvc")
    except AuthsvcError as error:
        sys.exit(f"authsvc: {error.message}")
    except OSError as error:
        sys.exit(f"authsvc: {error.filename or 'the system'}: {error.strerror or type(error).__name__}")
    except UnicodeEncodeError:
        sys.exit("authsvc: an argument is not valid Unicode")
    except Exception as error:
        from authsvc.storage.database import DATABASE_ERRORS  # noqa: PLC0415 - not every command needs a database

        if isinstance(error, DATABASE_ERRORS):
            sys.exit(f"authsvc: the database cannot be used: {type(error).__name__}")
        raise
