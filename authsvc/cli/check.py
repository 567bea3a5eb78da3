"""`authsvc check`: find what an administrator should change."""

from __future__ import annotations

import sys

import click

from authsvc.accounts.findings import findings
from authsvc.cli import terminal
from authsvc.cli.console.tables import print_table


@click.command()
@terminal.as_json
def check(*, as_json: bool) -> None:
    """List administrators that may log in to the broker, and users and roles with damaged rows.

    The exit status is 1 if there is any, otherwise 0.
    """
    with terminal.opened():
        found = findings()
    if as_json:
        terminal.print_json([finding._asdict() for finding in found])
    elif found:
        print_table(("FINDING", "TARGET", "ADVICE"), found)
    else:
        click.echo("nothing to change")
    sys.exit(1 if found else 0)


COMMANDS = (check,)
