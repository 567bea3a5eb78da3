"""The users and the role of the service in these tests; each user differs from the others in one property."""

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


def create_users() -> None:
    """Create all users beside the `admin` of the first start."""
    roles.create(OPERATOR, "line", "what every press may do", [mqtt("write", "lines/+")])
    _create("alice", password=ALICES_PASSWORD, roles=("admin",))
    _create("bob", roles=("line",), permissions=BOBS_PERMISSIONS)
    _create("charlie", password=CHARLIES_PASSWORD, permissions=CHARLIES_PERMISSIONS)
    _create("dot", password=DOTS_PASSWORD)
    _create("tom", grant_types=_BOTH)
    _create("tess", grant_types=frozenset({GrantType.TOKEN}))
    _create("carol", grant_types=frozenset({GrantType.CERTIFICATE}), permissions=BOBS_PERMISSIONS)
    _create("nick", password=None)
    _create("dora", enabled=False, grant_types=_BOTH, permissions=BOBS_PERMISSIONS)


def _create(username: str, **fields: Any) -> None:
    wanted = cast("UserChanges", {"password": BOBS_PASSWORD, **fields})
    users.create(OPERATOR, username, wanted, HASHER)
