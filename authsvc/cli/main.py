"""The command line `authsvc`, for accounts that may read the data directory."""

from __future__ import annotations

import sys
from importlib import import_module

import click
from click.shell_completion import CompletionItem

from authsvc import __version__
from authsvc.cli.console.groups import Group
from authsvc.errors import AuthsvcError

_SERVICE = "authsvc.cli.service"
_POLICY = "registry.cli.policy_file"
# The module of each command and the first sentence of its help, so that `--help` and completion need no module.
_COMMANDS = {
    "serve": ("authsvc.cli.serve", "Serve the API on AUTHSVC_BIND and brokers on AUTHSVC_BROKER_BIND until stopped."),
    "init": (_SERVICE, "Create the data directory, the database and the administrator, unless they exist."),
    "migrate": (_SERVICE, "Migrate the database to this version of authsvc."),
    "explain": (
        _SERVICE,
        "Show whether USERNAME may do OPERATION on TOPIC, and which permission decides; exit status 1 if denied.",
    ),
    "backup": (_SERVICE, "Write all tables to a new FILE, which contains secrets and is readable by you alone."),
    "restore": (_SERVICE, "Create a new database and fill it from a backup FILE; a database with users is refused."),
    "check": (
        "authsvc.cli.check",
        "List administrators that may log in to the broker, and users and roles with damaged rows.",
    ),
    "users": ("authsvc.cli.users", "List, create, change and delete users."),
    "roles": ("authsvc.cli.roles", "List, create, change and delete roles."),
    "tokens": ("authsvc.cli.tokens", "List, issue and revoke API tokens."),
    "sessions": ("authsvc.cli.tokens", "List and end the browser sessions of the web page."),
    "clients": ("authsvc.cli.clients", "List and disconnect the MQTT clients of brokers with authsvc's own plugin."),
    "certificates": (
        "authsvc.cli.certificates",
        "Issue, list and revoke client certificates, and issue server certificates for brokers.",
    ),
    "ca": ("authsvc.cli.certificates", "Show, replace or import the certificate authority."),
    "crl": ("authsvc.cli.crl", "Keep a broker's revocation list current."),
    "notifications": ("authsvc.cli.notifications", "List, create, test and delete webhooks and mails about events."),
    "broker-config": ("authsvc.cli.broker_config", "Print a complete Mosquitto configuration."),
    "audit": ("authsvc.cli.reports.audit", "List changes, newest first."),
    "denials": (
        "authsvc.cli.reports.denials",
        "List what the clients of all users were denied in the last 7 days, latest first, and how to allow it.",
    ),
    "status": (
        "authsvc.cli.reports.status",
        "Show versions, database, policy, listeners, brokers, certificate authorities and settings.",
    ),
    "import": ("authsvc.cli.imports.commands", "Import users, password hashes and rules of another system."),
    "export": (_POLICY, "Write users, roles and preauthorizations as YAML to FILE, or to standard output."),
    "apply": (_POLICY, "Make the database what FILE says, in one transaction, and print the changes."),
    "registry": ("registry.cli.registry", "List registrations; grant or deny access."),
    "register": ("registry.cli.register", "Register this device and wait until an administrator grants it."),
}


class _Commands(Group):
    """Commands whose modules are imported when they are used, because no command needs all libraries."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        if cmd_name not in _COMMANDS:
            return None
        module, _ = _COMMANDS[cmd_name]
        commands: tuple[click.Command, ...] = import_module(module).COMMANDS
        return next(command for command in commands if command.name == cmd_name)

    def first_sentences(self, ctx: click.Context) -> list[tuple[str, str]]:
        """Return the name and the first sentence of each command."""
        return [(name, _COMMANDS[name][1]) for name in self.list_commands(ctx)]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands and options that begin with what was typed."""
        names = [
            CompletionItem(name, help=sentence)
            for name, sentence in self.first_sentences(ctx)
            if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]


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
