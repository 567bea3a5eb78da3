"""Permissions: text and JSON forms, decisions, and the limit on giving them to others."""

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
    """Return the decision on an MQTT request of Bob."""
    return decide(rules, Request(Context.MQTT, Operation(operation), validate_topic_filter(topic), BOB, shared))


def call(rules: list[Rule] | tuple[Rule, ...], operation: str, path: str) -> Decision:
    """Return the decision on an HTTP request of Charlie."""
    return decide(rules, Request(Context.HTTP, Operation(operation), tuple(path.split("/")), CHARLIE))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("read a/b", mqtt("read", "a/b")),
        ("allow mqtt write a", mqtt("write", "a")),
        ("deny readWrite devices/%u/#", mqtt("readWrite", "devices/%u/#", "deny")),
        ("http read /api/#", http("read", "/api/#")),
        ("deny http write /api/users/+", http("write", "/api/users/+", "deny")),
        ("  deny  http  read  /api/me", http("read", "/api/me", "deny")),
        ("read my  topic", mqtt("read", "my  topic")),
        ("read mqtt", mqtt("read", "mqtt")),
        ("write allow", mqtt("write", "allow")),
    ],
)
def test_parse_reads_the_text_form(text: str, expected: Permission) -> None:
    assert Permission.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "read", "read ", "a/b", "READ a", "mqtt deny read a", "allow deny read a", "subscribe a"]
)
def test_parse_error_shows_the_text_form(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"permission: must be \[allow\|deny\]"):
        Permission.parse(text)


@pytest.mark.parametrize("text", ["read a/#/b", "http read api/users", "write a+", "read $share/g/a"])
def test_parse_error_for_an_invalid_resource_names_the_resource(text: str) -> None:
    with pytest.raises(InvalidInput) as error:
        Permission.parse(text)
    assert error.value.errors[0].field == "permission.resource"


@pytest.mark.parametrize("field", ["context", "operation", "resource", "effect"])
def test_from_fields_names_the_wrong_field(field: str) -> None:
    fields = mqtt("read", "a").fields() | {field: "a/#/b"}
    with pytest.raises(InvalidInput) as error:
        Permission.from_fields(**fields)
    assert [wrong.field for wrong in error.value.errors] == [field]


_topic_filters = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="+#%\0"), min_size=1).filter(
    lambda text: not text[0].isspace() and not text.startswith("$share")
)


@given(st.sampled_from(Context), st.sampled_from(Operation), _topic_filters, st.sampled_from(Effect))
def test_both_forms_of_a_permission_are_read_back_unchanged(
    context: Context, operation: Operation, topic_filter: str, effect: Effect
) -> None:
    permission = Permission(context, operation, ("/" if context is Context.HTTP else "") + topic_filter, effect)
    assert Permission.parse(str(permission)) == permission
    assert Permission.from_fields(**permission.fields()) == permission


def test_a_request_without_a_matching_permission_is_denied() -> None:
    assert ask([], "read", "sensors/1") == Denied(Reason.NO_PERMISSION)
    assert ask(own(mqtt("read", "sensors/1")), "read", "sensors/2") == Denied(Reason.NO_PERMISSION)


def test_an_allowed_decision_is_true_and_a_denied_one_is_false() -> None:
    assert ask(own(mqtt("read", "#")), "read", "a")
    assert not ask(own(mqtt("read", "#", "deny")), "read", "a")


@pytest.mark.parametrize(
    "rules",
    list(itertools.permutations(own(mqtt("read", "#"), mqtt("read", "secret/#", "deny"), mqtt("readWrite", "+/+")))),
)
def test_deny_wins_over_allow_in_any_order(rules: tuple[Rule, ...]) -> None:
    assert ask(rules, "read", "open/door")
    assert ask(rules, "read", "secret/door") == Denied(
        Reason.DENIED_BY_PERMISSION, mqtt("read", "secret/#", "deny"), None
    )


def test_denied_decision_names_the_deny_rule_and_its_role() -> None:
    forbidden = mqtt("write", "doors/#", "deny")
    rules = [Rule(mqtt("write", "#"), None), Rule(forbidden, "visitors")]
    assert ask(rules, "write", "doors/1") == Denied(Reason.DENIED_BY_PERMISSION, forbidden, "visitors")


def test_allowed_decision_names_the_permission_and_its_role() -> None:
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
def test_read_write_includes_both_operations_and_others_only_themselves(
    effect: str, granted: str, asked: str, expected: bool
) -> None:
    everything = own(mqtt("readWrite", "#")) if effect == "deny" else ()
    decision = ask((*everything, *own(mqtt(granted, "#", effect))), asked, "a")
    assert bool(decision) is (expected if effect == "allow" else not expected)


def test_mqtt_permissions_do_not_apply_to_http_nor_http_ones_to_mqtt() -> None:
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
def test_http_paths_match_by_segment_like_topic_levels(resource: str, path: str, expected: bool) -> None:
    assert bool(call(own(http("read", resource)), "read", path)) is expected


@pytest.mark.parametrize("resource", ["", "api/users", "#", "+/api", "%u", "/api/#/users", "/api/%ux", "/a\0"])
def test_http_permission_with_a_resource_that_is_not_a_path_filter_is_rejected(resource: str) -> None:
    with pytest.raises(InvalidInput) as error:
        http("read", resource)
    assert error.value.errors[0].field == "resource"


@pytest.mark.parametrize("resource", ["", "a/#/b", "a+", "%ux", "$share/group/a", "a" * 65_536])
def test_mqtt_permission_with_an_invalid_topic_filter_is_rejected(resource: str) -> None:
    with pytest.raises(InvalidInput):
        mqtt("read", resource)


def test_plain_subscription_that_overlaps_a_deny_rule_is_allowed_because_delivery_is_checked() -> None:
    rules = own(mqtt("read", "doors/#"), mqtt("read", "doors/vault/#", "deny"))
    assert ask(rules, "read", "doors/#")
    assert not ask(rules, "read", "doors/vault/1")


@pytest.mark.parametrize("reverse", [False, True])
def test_shared_subscription_that_overlaps_a_deny_rule_is_refused(reverse: bool) -> None:
    vault = mqtt("read", "doors/vault/#", "deny")
    rules = [Rule(mqtt("read", "doors/#"), None), Rule(vault, "visitors")]
    rules = rules[::-1] if reverse else rules
    assert ask(rules, "read", "doors/#", shared=True) == Denied(Reason.SHARE_REACHES_DENIED, vault, "visitors")
    assert ask(rules, "read", "doors/+/+", shared=True) == Denied(Reason.SHARE_REACHES_DENIED, vault, "visitors")
    assert ask(rules, "read", "doors/front/#", shared=True)
    assert ask(rules, "read", "doors/+", shared=True) == Denied(Reason.SHARE_REACHES_DENIED, vault, "visitors")


def test_shared_subscription_that_a_deny_rule_covers_is_denied_by_permission() -> None:
    vault = mqtt("read", "doors/vault/#", "deny")
    rules = own(mqtt("read", "doors/#"), vault)
    assert ask(rules, "read", "doors/vault/+", shared=True) == Denied(Reason.DENIED_BY_PERMISSION, vault, None)


def test_a_deny_rule_for_write_does_not_refuse_a_shared_subscription() -> None:
    rules = own(mqtt("read", "doors/#"), mqtt("write", "doors/vault/#", "deny"))
    assert ask(rules, "read", "doors/#", shared=True)


def test_a_deny_rule_with_a_placeholder_refuses_overlapping_shared_subscriptions() -> None:
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
def test_a_permission_that_the_giver_holds_may_be_given(held: tuple[Permission, ...], given: Permission) -> None:
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
def test_a_permission_beyond_what_the_giver_holds_may_not_be_given(
    held: tuple[Permission, ...], given: Permission
) -> None:
    assert first_beyond(own(*held), [given], CHARLIE) is given


def test_a_permission_with_a_placeholder_is_beyond_if_the_giver_is_denied_any_name() -> None:
    held = own(http("readWrite", "/#"), http("write", "/api/users/admin", "deny"))
    to_a_user_named_admin = http("write", "/api/users/%u")
    assert first_beyond(held, [to_a_user_named_admin], CHARLIE) is to_a_user_named_admin


def test_first_beyond_returns_the_first_of_several() -> None:
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
def test_the_order_of_rules_does_not_change_the_decision(
    data: st.DataObject, rules: tuple[Rule, ...], path: str, shared: bool
) -> None:
    request = Request(Context.HTTP, Operation.READ, tuple(path.split("/")), Identity("a"), shared)
    reordered = data.draw(st.permutations(rules))
    event(f"allowed: {bool(decide(rules, request))}")
    assert bool(decide(rules, request)) is bool(decide(reordered, request))


@given(_rules, _permissions, st.sampled_from(["a", "b", "c"]))
def test_a_receiver_of_a_given_permission_can_call_only_what_the_giver_could(
    held: tuple[Rule, ...], given: Permission, receiver: str
) -> None:
    giver = Identity("a")
    may_be_given = first_beyond(held, [given], giver) is None
    event(f"may be given: {may_be_given}, {given.effect}")
    for path, operation in itertools.product(_paths, given.operation.parts):
        request = Request(Context.HTTP, operation, tuple(path.split("/")), giver)
        gets_through = decide(own(given), request._replace(identity=Identity(receiver)))
        assert not may_be_given or not gets_through or decide(held, request)
