"""The options of a command line that name all registrations that match a filter."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

import click

from authsvc.errors import invalid
from registry import filters

if TYPE_CHECKING:
    from collections.abc import Callable

_MOMENTS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]


of_status = click.option(
    "--status",
    "wanted_status",
    default="pending",
    type=click.Choice(["pending", "denied", "expired"]),
    show_default=True,
    help="With a filter: the status of the registrations to delete.",
)


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a filter."""
    for option in (
        click.option("--max-attempts", type=click.IntRange(1), help="Those with at most this many attempts."),
        click.option("--before", type=click.DateTime(_MOMENTS), help="Those first seen before this time; UTC."),
        click.option("--after", type=click.DateTime(_MOMENTS), help="Those first seen at this time or later; UTC."),
        click.option("--address", help="Those from this IP address or network."),
        click.option("--client-id-pattern", help="Those with a client id like this, such as 'mqttjs_*'."),
        click.option("--username-pattern", help="Those with a username like this, such as 'press_*'; * fits all."),
    ):
        command = option(command)
    return command


def filter_from(ids: tuple[str, ...], wanted: dict[str, Any]) -> filters.Filter | None:
    """Return the filter that the options spell, None for ids; exactly one of both must be given."""
    given = {name: value for name, value in wanted.items() if value is not None}
    if bool(ids) == bool(given):
        raise invalid("", "name either IDs or a filter, such as --username-pattern 'press_*'")
    for name in ("after", "before"):
        if name in given:
            given[name] = given[name].replace(tzinfo=given[name].tzinfo or UTC)
    return filters.Filter(**given) if given else None
