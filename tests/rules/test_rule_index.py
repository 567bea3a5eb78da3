"""The rule index finds the rules that can match a topic and never changes a decision."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import event, given
from hypothesis import strategies as st

from authsvc.policy import snapshot as snapshots
from authsvc.policy.permissions import Context, Effect, Operation, Permission, Request, decide
from authsvc.policy.rule_index import MAX_SCANNED, RuleIndex
from authsvc.policy.sharded_map import ShardedMap
from authsvc.policy.snapshot import RolePolicy, Snapshot, UserPolicy
from authsvc.policy.topics import Identity, validate_topic_filter
from tests.actors import mqtt
from tests.rules.filters import LITERALS, chains, personal_requests

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest

FILLING = tuple(mqtt("read", f"filling/{n}") for n in range(MAX_SCANNED + 1))

_filters = chains().flatmap(st.sampled_from)
_permissions = st.builds(
    Permission,
    st.just(Context.MQTT),
    st.sampled_from([Operation.READ, Operation.READ_WRITE]),
    _filters | personal_requests().map(lambda request: request[0]),
    st.sampled_from([Effect.ALLOW, Effect.ALLOW, Effect.DENY]),
)
_many = st.lists(_permissions, max_size=4).map(lambda permissions: (*permissions, *FILLING))
_identities = st.builds(Identity, st.sampled_from(LITERALS), st.sampled_from(LITERALS))


def user(permissions: Iterable[Permission] = (), roles: tuple[str, ...] = ()) -> UserPolicy:
    return UserPolicy("bob", True, frozenset(), None, tuple(permissions), roles)


def request_for(topic_filter: str, identity: Identity = Identity("bob"), *, shared: bool = False) -> Request:  # noqa: B008
    return Request(Context.MQTT, Operation.READ, validate_topic_filter(topic_filter), identity, shared)


@given(_many, _many, _filters, _identities, st.booleans())
def test_indexed_decision_equals_the_decision_by_all_rules(
    own: tuple[Permission, ...], of_role: tuple[Permission, ...], requested: str, identity: Identity, shared: bool
) -> None:
    snapshot = Snapshot(roles={"devices": RolePolicy(of_role)})
    bob = user(own, roles=("devices",))
    request = request_for(requested, identity, shared=shared)
    thorough = decide(snapshot.rules_of(bob), request)
    narrowed = decide(snapshot.rules_for(bob, request), request)
    event(f"{thorough.reason}")
    assert (bool(narrowed), narrowed.reason) == (bool(thorough), thorough.reason)


def test_index_finds_few_of_many_rules() -> None:
    rooms = [mqtt("read", f"rooms/{n}/#") for n in range(10_000)]
    everybodys = mqtt("read", "rooms/+/door")
    index = RuleIndex([*rooms, everybodys, mqtt("read", "rooms/%u/door"), mqtt("read", "cellars/#")])
    found = set(index.candidates(("rooms", "77", "door")))
    assert found == {rooms[77], everybodys, mqtt("read", "rooms/%u/door")}


def test_changed_role_is_found_by_its_new_rules() -> None:
    snapshot = Snapshot(roles={"devices": RolePolicy((*FILLING, mqtt("read", "old")))})
    bob = user(roles=("devices",))
    assert decide(snapshot.rules_for(bob, request_for("old")), request_for("old"))
    snapshot.roles["devices"] = RolePolicy((*FILLING, mqtt("read", "new")))
    assert not decide(snapshot.rules_for(bob, request_for("old")), request_for("old"))
    assert decide(snapshot.rules_for(bob, request_for("new")), request_for("new"))


def test_changed_user_is_found_by_its_new_rules() -> None:
    snapshot = Snapshot()
    before, after = user((*FILLING, mqtt("read", "old"))), user((*FILLING, mqtt("read", "new")))
    assert decide(snapshot.rules_for(before, request_for("old")), request_for("old"))
    assert not decide(snapshot.rules_for(after, request_for("old")), request_for("old"))
    assert decide(snapshot.rules_for(after, request_for("new")), request_for("new"))


def test_rule_is_found_with_its_role() -> None:
    allowed = mqtt("read", "devices/#")
    snapshot = Snapshot(roles={"devices": RolePolicy((*FILLING, allowed))})
    decision = decide(snapshot.rules_for(user(roles=("devices",)), request_for("devices/1")), request_for("devices/1"))
    assert (decision.permission, decision.role) == (allowed, "devices")


def test_number_of_indexes_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "MAX_INDEXES", 10)
    snapshot = Snapshot()
    for number in range(50):
        name = f"press-{number}"
        bob = UserPolicy(name, True, frozenset(), None, (*FILLING, mqtt("read", "news")))
        # Like the policy cache at each change: a new snapshot shares the indexes of the one before.
        snapshot = replace(snapshot, users=snapshot.users.replaced([name], {name: bob}))
        assert decide(snapshot.rules_for(bob, request_for("news")), request_for("news"))
        assert len(snapshot._indexes) <= 10


def test_existing_users_keep_their_indexes() -> None:
    names = [f"press-{number}" for number in range(50)]
    users = {name: UserPolicy(name, True, frozenset(), None, (*FILLING, mqtt("read", name))) for name in names}
    snapshot = Snapshot(users=ShardedMap(users.items()))
    kept = []
    for _ in range(2):
        for bob in users.values():
            # Like a user that is unpacked again.
            bob_again = replace(bob, permissions=(*bob.permissions[:1], *bob.permissions[1:]))
            snapshot.rules_for(bob_again, request_for("news"))
        kept.append([index for _, index in snapshot._indexes.values()])
    assert len(kept[0]) == len(names)
    assert all(before is after for before, after in zip(*kept, strict=True))
