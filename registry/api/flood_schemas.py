"""How a flood of unknown usernames is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from authsvc.api.schemas import View

if TYPE_CHECKING:
    from registry.mqtt_registration.unknown_names import Flood


class AddressView(View):
    """An address, or the /64 network of IPv6 addresses, with its attempts in the last minute."""

    address: str
    attempts: int


class FloodView(View):
    """Many unknown usernames arrive: how many in the last minute, and what most of them have in common."""

    attempts: int
    names: int
    username_pattern: str = Field(description="fits most of the names; * if they have nothing in common")
    client_id_prefix: str | None
    addresses: list[AddressView] = Field(description="those with the most attempts, if callers tell them")


def view_flood(found: Flood | None) -> FloodView | None:
    """Show a flood, if there is one."""
    if found is None:
        return None
    return FloodView(
        attempts=found.attempts,
        names=found.names,
        username_pattern=found.username_pattern,
        client_id_prefix=found.client_id_prefix,
        addresses=[AddressView(address=address, attempts=attempts) for address, attempts in found.addresses],
    )
