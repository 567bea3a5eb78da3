"""`authsvc status`: what the page of the same name shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from authsvc.accounts import users
from authsvc.cli import terminal
from authsvc.cli.console.tables import print_table
from authsvc.record_json import json_fields
from authsvc.storage.changes import current_version
from authsvc.storage.database import session
from authsvc.storage.policy_cache import STALE_AFTER_SECONDS
from authsvc.storage.propagation import Propagation
from authsvc.web.status import PolicyStatus, ServiceStatus, status_of

if TYPE_CHECKING:
    from authsvc.web.status import Listener


@click.command("status")
@terminal.as_json
def command(*, as_json: bool) -> None:
    """Show versions, database, policy, listeners, brokers, certificate authorities and settings.

    The settings are those of this command's environment; a running service may have others.
    """
    with terminal.opened() as settings:
        propagation = Propagation(settings.run_dir)
        with session():
            version, count = current_version(), users.search(users.UserFilter(), 1, 1).total
        policy = PolicyStatus(version, round(propagation.age, 3), propagation.age > STALE_AFTER_SECONDS, count)
        found = status_of(settings, policy, propagation)
    if as_json:
        terminal.print_json(json_fields(found))
    else:
        _print(found)


COMMANDS = (command,)


def _print(found: ServiceStatus) -> None:
    followed = "up to date" if found.broker_processes_follow and not found.policy.stale else "behind"
    has_brokers = any(one.processes for one in found.listeners if one.name == "broker")
    click.echo(f"authsvc {found.version}, Python {found.python}")
    click.echo(f"{found.database.version}, schema {found.database.migration}")
    click.echo(f"policy version {found.policy.version}, {found.policy.users} users")
    click.echo(f"broker processes: {followed if has_brokers else 'none in this data directory'}\n")
    print_table(("LISTENER", "STATE", "ADDRESS", "PROCESSES", "RUNNING SINCE"), map(_listener, found.listeners))
    click.echo()
    if found.brokers:
        columns = ("BROKER", "STATE", "PLUGIN", "CLIENTS", "LAST REPORT")
        print_table(
            columns,
            (
                (
                    one.name,
                    "reports" if one.is_live else "silent",
                    one.plugin_version,
                    one.clients,
                    terminal.spell_moment(one.reported_at),
                )
                for one in found.brokers
            ),
        )
    else:
        click.echo("no broker with authsvc's plugin has reported in the last hour")
    click.echo()
    print_table(
        ("AUTHORITY", "STATE", "VALID UNTIL", "LIST", "NEXT UPDATE"),
        (
            (
                one.subject,
                f"trusted until {terminal.spell_moment(one.retires_at)}" if one.retires_at else "active",
                terminal.spell_moment(one.not_after),
                one.crl_number,
                terminal.spell_moment(one.crl_next_update),
            )
            for one in found.authorities
        ),
    )
    click.echo()
    print_table(
        ("SETTING", "VALUE"),
        ((one.name, ("set" if one.is_set else "not set") if one.secret else one.value) for one in found.settings),
    )


def _listener(one: Listener) -> tuple[object, ...]:
    running = len(one.processes)
    addresses = dict.fromkeys(address for each in one.processes for address in each.addresses)
    state = "running" if running >= one.configured_processes else f"{running} of {one.configured_processes} processes"
    return (
        one.name,
        state if running else "not running here",
        tuple(addresses) or f"{one.configured_address} (configured)",
        [each.pid for each in one.processes],
        terminal.spell_moment(one.processes[0].started_at if running else None),
    )
