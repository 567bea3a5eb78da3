"""Who lives in the service that these tests call; everybody differs from the rest in one way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from authsvc.accounts import roles, users
from authsvc.policy.snapshot import GrantType
from tests.actors import BOBS_PASSWORD, HASHER, OPERATOR, http, mqtt

if TYPE_CHECKING:
    from authsvc.accounts.users import UserChanges

ALICES_PASSWORD = "alice may do anything"
CHARLIES_PASSWORD = "charlie looks after users"
DOTS_PASSWORD = "dot may do nothing here"
BOBS_PERMISSIONS = (
    mqtt("readWrite", "devices/%u/#"),
    mqtt("read", "sensors/#"),
    mqtt("readWrite", "sensors/secret/#", "deny"),
    mqtt("write", "clients/%c/up"),
)
CHARLIES_PERMISSIONS = (http("readWrite", "/api/users/#"), http("read", "/api/me"))
_BOTH = frozenset({GrantType.PASSWORD, GrantType.TOKEN})


def settle() -> None:
    """Let everybody move in, beside the `admin` of the first start."""
    roles.create(OPERATOR, "line", "what every press may do", [mqtt("write", "lines/+")])
    _move_in("alice", password=ALICES_PASSWORD, roles=("admin",))
    _move_in("bob", roles=("line",), permissions=BOBS_PERMISSIONS)
    _move_in("charlie", password=CHARLIES_PASSWORD, permissions=CHARLIES_PERMISSIONS)
    _move_in("dot", password=DOTS_PASSWORD)
    _move_in("tom", grant_types=_BOTH)
    _move_in("tess", grant_types=frozenset({GrantType.TOKEN}))
    _move_in("carol", grant_types=frozenset({GrantType.CERTIFICATE}), permissions=BOBS_PERMISSIONS)
    _move_in("nick", password=None)
    _move_in("dora", enabled=False, grant_types=_BOTH, permissions=BOBS_PERMISSIONS)


def _move_in(username: str, **fields: Any) -> None:
    wanted = cast("UserChanges", {"password": BOBS_PASSWORD, **fields})
    users.create(OPERATOR, username, wanted, HASHER)
