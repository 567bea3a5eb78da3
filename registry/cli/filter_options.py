"""Command line options that build a registration filter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from authsvc.cli import terminal
from authsvc.errors import invalid
from registry import filters

if TYPE_CHECKING:
    from collections.abc import Callable

of_status = click.option(
    "--status",
    "wanted_status",
    default="pending",
    type=click.Choice(["pending", "denied", "expired"]),
    show_default=True,
    help="With a filter: the status of the registrations to delete.",
)


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a filter to a command."""
    for option in (
        click.option("--max-attempts", type=click.IntRange(1), help="At most this many attempts."),
        click.option("--before", type=terminal.TIME, help="First seen before this time, in UTC."),
        click.option("--after", type=terminal.TIME, help="First seen at this time or later, in UTC."),
        click.option("--address", help="From this IP address or network."),
        click.option("--client-id-pattern", help="With a client id that matches this pattern, such as 'mqttjs_*'."),
        click.option(
            "--username-pattern", help="With a username that matches this pattern, such as 'press_*'; '*' matches all."
        ),
    ):
        command = option(command)
    return command


def filter_from(ids: tuple[str, ...], wanted: dict[str, Any]) -> filters.Filter | None:
    """Return the filter of the options, or None if ids are given; exactly one of the two must be given."""
    given = {name: value for name, value in wanted.items() if value is not None}
    if bool(ids) == bool(given):
        raise invalid("", "give either IDs or a filter, such as --username-pattern 'press_*'")
    return filters.Filter(**given) if given else None
