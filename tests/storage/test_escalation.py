"""No actor can give, change or take over more rights than it holds.

Charlie manages users and roles and has no other http permission.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from authsvc.accounts import roles, users
from authsvc.errors import Forbidden
from authsvc.policy.actors import Actor, Via
from authsvc.policy.permissions import Rule
from authsvc.policy.snapshot import GrantType
from tests.actors import ALICE, CHARLIE, CHARLIES_PERMISSIONS, HASHER, OPERATOR, http, mqtt, own
from tests.storage.environment import all_rows, create_role, create_user

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("prepared")

AUDIT = http("read", "/api/audit")
TOKEN = frozenset({GrantType.TOKEN})


@pytest.fixture(autouse=True)
def _scene(prepared: object) -> None:
    create_role("auditors", AUDIT)
    create_role("colleagues", *CHARLIES_PERMISSIONS)
    create_user("alice", roles=("admin",))
    create_user("dora", roles=("auditors",))
    create_user("erwin", permissions=(AUDIT,))
    create_user("bob", permissions=(mqtt("write", "devices/bob/#"),), roles=("minimum-access",))


class Attempt(NamedTuple):
    """A named change that an actor attempts."""

    words: str
    act: Callable[[Actor], object]


def change(username: str, **changes: object) -> Callable[[Actor], object]:
    return lambda actor: users.change(actor, username, changes, HASHER)  # type: ignore[arg-type]


def create(**wanted: object) -> Callable[[Actor], object]:
    return lambda actor: users.create(actor, "bertha", wanted, HASHER)  # type: ignore[arg-type]


BEYOND_CHARLIE = [
    Attempt("make an administrator", create(roles=("admin",))),
    Attempt("make somebody with a role that holds more", create(roles=("minimum-access", "auditors"))),
    Attempt("make somebody with more", create(permissions=(AUDIT,))),
    Attempt(
        "make somebody who may do all that Charlie may and write where he reads",
        create(permissions=(http("write", "/api/me"),)),
    ),
    Attempt(
        "make somebody with more, less a part", create(permissions=(http("read", "/#"), http("read", "/a", "deny")))
    ),
    Attempt("take over the administrator", change("alice", password="charlie's own")),
    Attempt("lock the administrator out", change("alice", enabled=False)),
    Attempt("take the administrator's password away", change("alice", password=None)),
    Attempt("take the administrator's role away", change("alice", roles=())),
    Attempt("bind the administrator's hands", change("alice", permissions=(http("write", "/#", "deny"),))),
    Attempt("change how the administrator logs in", change("alice", grant_types=TOKEN)),
    Attempt("touch the administrator at all", change("alice")),
    Attempt("delete the administrator", lambda actor: users.delete(actor, "alice")),
    Attempt("take over somebody with more through a role", change("dora", password="charlie's own")),
    Attempt("take over somebody with more of their own", change("erwin", password="charlie's own")),
    Attempt("take from somebody what he could not give", change("erwin", permissions=())),
    Attempt("delete somebody with more", lambda actor: users.delete(actor, "erwin")),
    Attempt("raise Bob by a permission", change("bob", permissions=(http("read", "/api/users/#"), AUDIT))),
    Attempt("raise Bob by a role", change("bob", roles=("auditors",))),
    Attempt("make a role that holds more", lambda actor: roles.create(actor, "friends", "", [AUDIT])),
    Attempt("change a role that holds more", lambda actor: roles.change(actor, "auditors", {"description": "mine"})),
    Attempt(
        "take from a role what he could not give", lambda actor: roles.change(actor, "auditors", {"permissions": ()})
    ),
    Attempt("raise a role", lambda actor: roles.change(actor, "colleagues", {"permissions": (AUDIT,)})),
]
WITHIN_CHARLIE = [
    Attempt("make a device", create(permissions=(mqtt("readWrite", "#"), mqtt("readWrite", "$SYS/#")))),
    Attempt("make a colleague", create(permissions=CHARLIES_PERMISSIONS)),
    Attempt("make a colleague by a role", create(roles=("colleagues", "minimum-access"))),
    Attempt("make somebody with a part of his rights", create(permissions=(http("read", "/api/users/bob"),))),
    Attempt("forbid somebody everything", create(permissions=(http("readWrite", "/#", "deny"),))),
    Attempt("give Bob another password", change("bob", password="bob's next secret")),
    Attempt("give Bob everything on the broker", change("bob", permissions=(mqtt("readWrite", "#"),))),
    Attempt("raise Bob to a colleague", change("bob", roles=("colleagues",))),
    Attempt("delete Bob", lambda actor: users.delete(actor, "bob")),
    Attempt("make a role", lambda actor: roles.create(actor, "devices", "", [mqtt("readWrite", "#")])),
    Attempt("change a role", lambda actor: roles.change(actor, "colleagues", {"permissions": ()})),
    Attempt("delete a role", lambda actor: roles.delete(actor, "colleagues")),
]


@pytest.mark.parametrize("attempt", BEYOND_CHARLIE, ids=lambda attempt: attempt.words)
def test_actor_with_few_rights_cannot(attempt: Attempt) -> None:
    before = all_rows()
    with pytest.raises(Forbidden) as error:
        attempt.act(CHARLIE)
    assert error.value.code == "beyond-own-rights"
    assert all_rows() == before


@pytest.mark.parametrize("attempt", WITHIN_CHARLIE, ids=lambda attempt: attempt.words)
def test_actor_with_few_rights_can(attempt: Attempt) -> None:
    before = all_rows()
    attempt.act(CHARLIE)
    assert all_rows() != before


def test_actor_cannot_delete_a_role_with_more_rights() -> None:
    users.delete(ALICE, "dora")
    before = all_rows()
    with pytest.raises(Forbidden):
        roles.delete(CHARLIE, "auditors")
    assert all_rows() == before


@pytest.mark.parametrize("attempt", BEYOND_CHARLIE, ids=lambda attempt: attempt.words)
def test_actor_with_all_rights_can(attempt: Attempt) -> None:
    before = all_rows()
    attempt.act(ALICE)
    assert all_rows() != before


def test_operator_at_the_command_line_needs_no_permission() -> None:
    users.create(OPERATOR, "bertha", {"roles": ("admin",), "permissions": (http("readWrite", "/#"),)}, HASHER)
    users.delete(OPERATOR, "alice")


def test_rights_of_a_role_count_as_held() -> None:
    by_role = Actor("charlie", Via.API, tuple(Rule(permission, "colleagues") for permission in CHARLIES_PERMISSIONS))
    users.create(by_role, "bertha", {"permissions": CHARLIES_PERMISSIONS}, HASHER)


def test_actor_cannot_give_what_it_is_denied() -> None:
    almost_all = Actor("charlie", Via.API, own(http("readWrite", "/#"), http("read", "/api/audit", "deny")))
    for beyond in (AUDIT, http("read", "/api/#"), http("readWrite", "/#")):
        with pytest.raises(Forbidden):
            users.create(almost_all, "bertha", {"permissions": (beyond,)}, HASHER)
    users.create(almost_all, "bertha", {"permissions": (http("readWrite", "/api/users/#"),)}, HASHER)


def test_actor_without_http_rights_can_give_mqtt_rights() -> None:
    dispatcher = Actor("charlie", Via.API, ())
    users.create(dispatcher, "bertha", {"permissions": (mqtt("readWrite", "#"),)}, HASHER)
    with pytest.raises(Forbidden):
        users.change(dispatcher, "bob", {"roles": ("minimum-access",)}, HASHER)


def test_refusal_names_the_missing_permission() -> None:
    with pytest.raises(Forbidden, match="your account needs the permission `http read /api/audit` to do this"):
        users.create(CHARLIE, "bertha", {"permissions": (AUDIT,)}, HASHER)
