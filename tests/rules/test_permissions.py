"""Permissions: no permission, no access; deny wins over allow; nobody gives more than they hold."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from authsvc.errors import InvalidInput
from authsvc.policy.decision import Allowed, Decision, Denied, Reason
from authsvc.policy.permissions import Context, Effect, Operation, Permission, Request, Rule, decide, first_beyond
from authsvc.policy.topics import Identity, validate_topic_filter
from tests.actors import http, mqtt, own

BOB = Identity("bob", "sensor-1")
CHARLIE = Identity("charlie")


def ask(rules: list[Rule] | tuple[Rule, ...], operation: str, topic: str, *, shared: bool = False) -> Decision:
    """Ask whether Bob may do this on the broker."""
    return decide(rules, Request(Context.MQTT, Operation(operation), validate_topic_filter(topic), BOB, shared))


def call(rules: list[Rule] | tuple[Rule, ...], operation: str, path: str) -> Decision:
    """Ask whether Charlie may call this path."""
    return decide(rules, Request(Context.HTTP, Operation(operation), tuple(path.split("/")), CHARLIE))


def test_no_permission_no_access() -> None:
    assert ask([], "read", "sensors/1") == Denied(Reason.NO_PERMISSION)
    assert ask(own(mqtt("read", "sensors/1")), "read", "sensors/2") == Denied(Reason.NO_PERMISSION)


def test_a_decision_is_as_true_as_its_answer() -> None:
    assert ask(own(mqtt("read", "#")), "read", "a")
    assert not ask(own(mqtt("read", "#", "deny")), "read", "a")


@pytest.mark.parametrize(
    "rules",
    list(itertools.permutations(own(mqtt("read", "#"), mqtt("read", "secret/#", "deny"), mqtt("readWrite", "+/+")))),
)
def test_deny_wins_over_allow_in_whatever_order_they_were_given(rules: tuple[Rule, ...]) -> None:
    assert ask(rules, "read", "open/door")
    assert ask(rules, "read", "secret/door") == Denied(
        Reason.DENIED_BY_PERMISSION, mqtt("read", "secret/#", "deny"), None
    )


def test_a_denial_names_the_permission_and_the_role_it_came_through() -> None:
    forbidden = mqtt("write", "doors/#", "deny")
    rules = [Rule(mqtt("write", "#"), None), Rule(forbidden, "visitors")]
    assert ask(rules, "write", "doors/1") == Denied(Reason.DENIED_BY_PERMISSION, forbidden, "visitors")


def test_a_permission_names_itself_and_the_role_it_came_through() -> None:
    allowed = mqtt("write", "devices/%u/#")
    assert ask([Rule(allowed, "devices")], "write", "devices/bob/x") == Allowed(Reason.PERMISSION, allowed, "devices")
    assert ask(own(allowed), "write", "devices/bob/x") == Allowed(Reason.PERMISSION, allowed, None)


@pytest.mark.parametrize(
    ("granted", "asked", "expected"),
    [
        ("read", "read", True),
        ("read", "write", False),
        ("write", "write", True),
        ("write", "read", False),
        ("readWrite", "read", True),
        ("readWrite", "write", True),
    ],
)
@pytest.mark.parametrize("effect", ["allow", "deny"])
def test_a_permission_speaks_of_its_own_operation_and_read_write_of_both(
    effect: str, granted: str, asked: str, expected: bool
) -> None:
    everything = own(mqtt("readWrite", "#")) if effect == "deny" else ()
    decision = ask((*everything, *own(mqtt(granted, "#", effect))), asked, "a")
    assert bool(decision) is (expected if effect == "allow" else not expected)


def test_rights_on_the_broker_are_no_rights_over_the_service_nor_the_other_way_round() -> None:
    assert not call(own(mqtt("readWrite", "#"), mqtt("readWrite", "/#")), "read", "/api/users")
    assert not ask(own(http("readWrite", "/#")), "read", "/api/users")
    assert call(own(http("readWrite", "/#"), mqtt("readWrite", "#", "deny")), "read", "/api/users")


@pytest.mark.parametrize(
    ("resource", "path", "expected"),
    [
        ("/api/users/#", "/api/users", True),
        ("/api/users/#", "/api/users/bob", True),
        ("/api/users/#", "/api/users/bob/certificates", True),
        ("/api/users/#", "/api/usersandmore", False),
        ("/api/users/#", "/api/roles", False),
        ("/api/users/+", "/api/users/bob", True),
        ("/api/users/+", "/api/users", False),
        ("/api/users/+", "/api/users/bob/certificates", False),
        ("/api/users/%u", "/api/users/charlie", True),
        ("/api/users/%u", "/api/users/bob", False),
        ("/api/users/%c", "/api/users/", False),
        ("/api/me", "/api/me", True),
        ("/api/me", "/api/me/", False),
        ("/#", "/", True),
        ("/#", "/api/me", True),
    ],
)
def test_a_path_is_a_topic_whose_levels_are_its_segments(resource: str, path: str, expected: bool) -> None:
    assert bool(call(own(http("read", resource)), "read", path)) is expected


@pytest.mark.parametrize("resource", ["", "api/users", "#", "+/api", "%u", "/api/#/users", "/api/%ux", "/a\0"])
def test_an_http_permission_names_a_path(resource: str) -> None:
    with pytest.raises(InvalidInput) as error:
        http("read", resource)
    assert error.value.errors[0].field == "resource"


@pytest.mark.parametrize("resource", ["", "a/#/b", "a+", "%ux", "$share/group/a", "a" * 65_536])
def test_a_permission_that_is_not_well_formed_cannot_exist(resource: str) -> None:
    with pytest.raises(InvalidInput):
        mqtt("read", resource)


def test_a_plain_subscription_may_reach_denied_topics_for_these_are_held_back_at_delivery() -> None:
    rules = own(mqtt("read", "doors/#"), mqtt("read", "doors/vault/#", "deny"))
    assert ask(rules, "read", "doors/#")
    assert not ask(rules, "read", "doors/vault/1")


@pytest.mark.parametrize("reverse", [False, True])
def test_a_shared_subscription_must_not_reach_denied_topics_for_a_message_refused_there_is_lost(reverse: bool) -> None:
    vault = mqtt("read", "doors/vault/#", "deny")
    rules = [Rule(mqtt("read", "doors/#"), None), Rule(vault, "visitors")]
    rules = rules[::-1] if reverse else rules
    assert ask(rules, "read", "doors/#", shared=True) == Denied(Reason.SHARE_REACHES_DENIED, vault, "visitors")
    assert ask(rules, "read", "doors/+/+", shared=True) == Denied(Reason.SHARE_REACHES_DENIED, vault, "visitors")
    assert ask(rules, "read", "doors/front/#", shared=True)
    assert ask(rules, "read", "doors/+", shared=True) == Denied(Reason.SHARE_REACHES_DENIED, vault, "visitors")


def test_a_shared_subscription_within_denied_topics_is_denied_like_any_other() -> None:
    vault = mqtt("read", "doors/vault/#", "deny")
    rules = own(mqtt("read", "doors/#"), vault)
    assert ask(rules, "read", "doors/vault/+", shared=True) == Denied(Reason.DENIED_BY_PERMISSION, vault, None)


def test_who_may_not_publish_may_still_share_a_subscription() -> None:
    rules = own(mqtt("read", "doors/#"), mqtt("write", "doors/vault/#", "deny"))
    assert ask(rules, "read", "doors/#", shared=True)


def test_a_deny_rule_with_the_name_of_the_client_stops_its_shared_subscriptions() -> None:
    rules = own(mqtt("read", "devices/#"), mqtt("read", "devices/%u/keys", "deny"))
    assert not ask(rules, "read", "devices/+/keys", shared=True)
    assert not ask(rules, "read", "devices/bob/#", shared=True)
    assert ask(rules, "read", "devices/alice/#", shared=True)


@pytest.mark.parametrize(
    ("held", "given"),
    [
        ((http("readWrite", "/#"),), http("readWrite", "/#")),
        ((http("readWrite", "/#"),), http("read", "/api/me")),
        ((http("readWrite", "/#"),), http("read", "/api/users/%u")),
        ((http("readWrite", "/api/users/#"),), http("write", "/api/users/+")),
        ((http("read", "/api/me"), http("write", "/api/me")), http("readWrite", "/api/me")),
        ((http("read", "/api/users/%u"),), http("read", "/api/users/charlie")),
        ((), http("readWrite", "/#", "deny")),
        ((http("readWrite", "/#"), http("read", "/api/audit", "deny")), http("read", "/api/users/#")),
        ((http("readWrite", "/#"), http("read", "/api/audit", "deny")), http("write", "/api/audit")),
    ],
)
def test_charlie_may_give_what_he_holds(held: tuple[Permission, ...], given: Permission) -> None:
    assert first_beyond(own(*held), [given], CHARLIE) is None


@pytest.mark.parametrize(
    ("held", "given"),
    [
        ((), http("read", "/api/me")),
        ((http("read", "/#"),), http("readWrite", "/#")),
        ((http("write", "/#"),), http("readWrite", "/#")),
        ((http("readWrite", "/api/users/+"),), http("read", "/api/users/#")),
        ((http("readWrite", "/api/users/#"),), http("read", "/api/+")),
        ((http("read", "/api/users/bob"),), http("read", "/api/users/+")),
        ((http("read", "/api/users/charlie"),), http("read", "/api/users/%u")),
        ((http("read", "/api/users/%u"),), http("read", "/api/users/bob")),
        ((http("readWrite", "/#"), http("read", "/api/audit", "deny")), http("read", "/api/audit")),
        ((http("readWrite", "/#"), http("read", "/api/audit", "deny")), http("read", "/api/#")),
        ((http("readWrite", "/#"), http("read", "/api/audit", "deny")), http("readWrite", "/api/+")),
        ((mqtt("readWrite", "/#"),), http("read", "/api/me")),
    ],
)
def test_charlie_may_not_give_what_he_does_not_hold(held: tuple[Permission, ...], given: Permission) -> None:
    assert first_beyond(own(*held), [given], CHARLIE) is given


def test_a_permission_to_whoever_bears_a_name_reaches_the_names_that_charlie_is_denied() -> None:
    held = own(http("readWrite", "/#"), http("write", "/api/users/admin", "deny"))
    to_a_user_named_admin = http("write", "/api/users/%u")
    assert first_beyond(held, [to_a_user_named_admin], CHARLIE) is to_a_user_named_admin


def test_the_first_permission_beyond_is_the_one_that_is_named() -> None:
    given = [http("read", "/api/me"), http("read", "/api/audit"), http("read", "/api/roles")]
    assert first_beyond(own(http("read", "/api/me")), given, CHARLIE) is given[1]


_paths = ["/".join(("", *levels)) for depth in (1, 2, 3) for levels in itertools.product("ab", repeat=depth)]
_resources = st.lists(st.sampled_from(["a", "b", "+", "%u"]), max_size=3).flatmap(
    lambda levels: st.sampled_from(["/" + "/".join([*levels, *tail]) for tail in ((), ("#",)) if levels or tail])
)
_permissions = st.builds(
    Permission,
    st.just(Context.HTTP),
    st.sampled_from(Operation),
    _resources,
    st.sampled_from([Effect.ALLOW, Effect.ALLOW, Effect.DENY]),
)
_rules = st.lists(_permissions, min_size=1, max_size=4).map(lambda permissions: own(*permissions))


@given(st.data(), _rules, st.sampled_from(_paths), st.booleans())
def test_the_order_of_rules_changes_no_answer(
    data: st.DataObject, rules: tuple[Rule, ...], path: str, shared: bool
) -> None:
    request = Request(Context.HTTP, Operation.READ, tuple(path.split("/")), Identity("a"), shared)
    reordered = data.draw(st.permutations(rules))
    event(f"allowed: {bool(decide(rules, request))}")
    assert bool(decide(rules, request)) is bool(decide(reordered, request))


@given(_rules, _permissions, st.sampled_from(["a", "b", "c"]))
def test_whoever_is_given_a_right_that_is_not_beyond_can_call_nothing_that_its_giver_could_not(
    held: tuple[Rule, ...], given: Permission, receiver: str
) -> None:
    giver = Identity("a")
    may_be_given = first_beyond(held, [given], giver) is None
    event(f"may be given: {may_be_given}, {given.effect}")
    for path, operation in itertools.product(_paths, given.operation.parts):
        request = Request(Context.HTTP, operation, tuple(path.split("/")), giver)
        gets_through = decide(own(given), request._replace(identity=Identity(receiver)))
        assert not may_be_given or not gets_through or decide(held, request)
