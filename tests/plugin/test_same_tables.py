"""Every row of the tables in tests/rules about topics, permissions and client ids also holds in C."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from authsvc.policy.access import READ, SUBSCRIBE, WRITE
from authsvc.policy.allowed_client_ids import allows
from authsvc.policy.decision import Reason
from authsvc.policy.permissions import Context, Permission
from authsvc.policy.sharded_map import ShardedMap
from authsvc.policy.snapshot import Snapshot, UserPolicy
from tests.actors import mqtt
from tests.plugin.native import reason_in_policy, user_fields
from tests.rules import test_allowed_client_ids as client_ids
from tests.rules import test_permissions as permissions
from tests.rules import test_topics as topics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from authsvc.policy.permissions import Rule
    from tests.plugin.native import Native

SHARE = "$share/g/"


def table(test: Callable[..., object], number: int = 0) -> pytest.MarkDecorator:
    """Return the parameters of another test, without the rows that no C string can hold; its last table is 0."""
    marks: Sequence[pytest.Mark] = [mark for mark in test.pytestmark if mark.name == "parametrize"]  # type: ignore[attr-defined]
    names, rows = marks[number].args[:2]
    return pytest.mark.parametrize(names, [row for row in rows if "\0" not in str(row)])


def is_allowed(native: Native, access: int, topic: str, *rules: str, username: str = "", client_id: str = "") -> bool:
    """Return whether C allows the access; rules that are not valid are left out."""
    with native.rules() as ruleset:
        for rule in rules:
            ruleset.add(rule)
        return ruleset.decide(access, topic, username, client_id) is Reason.PERMISSION


@table(topics.test_rule_matches_a_topic_level_by_level)
def test_rule_matches_a_topic_level_by_level(native: Native, rule: str, topic: str, expected: bool) -> None:
    assert is_allowed(native, READ, topic, f"read {rule}") is expected
    assert is_allowed(native, WRITE, topic, f"write {rule}") is expected


@table(topics.test_only_a_rule_that_begins_with_dollar_matches_dollar_topics)
def test_only_a_rule_that_begins_with_dollar_matches_dollar_topics(
    native: Native, rule: str, topic: str, expected: bool
) -> None:
    assert is_allowed(native, READ, topic, f"read {rule}") is expected


@table(topics.test_rule_covers_a_filter_if_it_matches_every_topic_of_the_filter)
def test_rule_covers_a_filter_if_it_matches_every_topic_of_the_filter(
    native: Native, rule: str, requested: str, expected: bool
) -> None:
    assert is_allowed(native, SUBSCRIBE, requested, f"read {rule}") is expected
    assert is_allowed(native, SUBSCRIBE, SHARE + requested, f"read {rule}") is expected


@table(topics.test_percent_u_and_percent_c_are_one_literal_level)
def test_percent_u_and_percent_c_are_one_literal_level(
    native: Native, rule: str, requested: str, username: str, client_id: str, expected: bool
) -> None:
    rule = f"read {rule}"
    assert is_allowed(native, SUBSCRIBE, requested, rule, username=username, client_id=client_id) is expected


@table(topics.test_empty_too_long_or_invalid_text_is_refused_everywhere)
def test_empty_too_long_or_invalid_text_is_refused_everywhere(native: Native, malformed: str) -> None:
    with native.rules("readWrite #") as rules:
        for access in (READ, WRITE, SUBSCRIBE):
            assert rules.decide(access, malformed) is Reason.MALFORMED
        assert rules.decide(SUBSCRIBE, SHARE + malformed) is Reason.MALFORMED
        assert not rules.add(f"read {malformed}")


@table(topics.test_wildcard_must_be_a_whole_level_and_hash_the_last)
def test_wildcard_must_be_a_whole_level_and_hash_the_last(native: Native, malformed: str) -> None:
    with native.rules("readWrite #") as rules:
        assert rules.decide(SUBSCRIBE, malformed) is Reason.MALFORMED
        assert not rules.add(f"read {malformed}")


@table(topics.test_concrete_topic_with_a_wildcard_is_refused)
def test_concrete_topic_with_a_wildcard_is_refused(native: Native, topic: str) -> None:
    with native.rules("readWrite #") as rules:
        assert rules.decide(READ, topic) is Reason.MALFORMED
        assert rules.decide(WRITE, topic) is Reason.MALFORMED


@table(topics.test_topic_of_the_maximum_size_is_valid)
def test_topic_of_the_maximum_size_is_valid(native: Native, longest: str) -> None:
    for access in (READ, SUBSCRIBE):
        assert is_allowed(native, access, longest, "read #")
        assert is_allowed(native, access, longest, f"read {longest}")
    assert is_allowed(native, SUBSCRIBE, SHARE + longest, f"read {longest}")


@table(topics.test_rule_with_partial_placeholders_or_share_prefix_is_refused)
def test_rule_with_partial_placeholders_or_share_prefix_is_refused(native: Native, refused: str) -> None:
    with native.rules() as rules:
        assert not rules.add(f"read {refused}")


@table(topics.test_valid_rules)
def test_valid_rules(native: Native, accepted: str) -> None:
    with native.rules() as rules:
        assert rules.add(f"deny readWrite {accepted}")


@table(topics.test_shared_subscription_has_a_group_and_a_filter)
def test_shared_subscription_has_a_group_and_a_filter(
    native: Native, requested: str, group: str | None, topic_filter: str
) -> None:
    if topic_filter.startswith("$share/"):  # no rule can allow it
        assert not is_allowed(native, SUBSCRIBE, requested, "read #", f"read {topic_filter}")
        return
    assert is_allowed(native, SUBSCRIBE, requested, f"read {topic_filter}")
    if topic_filter.endswith("#"):
        overlapping = f"deny read {topic_filter.replace('+', 'c').removesuffix('#')}d"
        assert is_allowed(native, SUBSCRIBE, requested, f"read {topic_filter}", overlapping) is (group is None)


@table(topics.test_malformed_shared_subscription_is_refused)
def test_malformed_shared_subscription_is_refused(native: Native, malformed: str) -> None:
    with native.rules("read #") as rules:
        assert rules.decide(SUBSCRIBE, malformed) is Reason.MALFORMED


@table(topics.test_two_filters_overlap_if_a_topic_matches_both)
def test_deny_rule_that_overlaps_a_shared_subscription_refuses_it(
    native: Native, first: str, second: str, expected: bool
) -> None:
    rules = (f"read {second}", f"deny read {first}")
    bob = {"username": topics.BOB.username, "client_id": topics.BOB.client_id}
    assert is_allowed(native, SUBSCRIBE, SHARE + second, *rules, **bob) is not expected


@table(permissions.test_parse_reads_the_text_form)
def test_c_accepts_the_written_form_of_mqtt_permissions(native: Native, text: str, expected: Permission) -> None:
    with native.rules() as rules:
        assert rules.add(str(expected)) is (expected.context is Context.MQTT)
        assert rules.add(text) is (text == str(expected) and expected.context is Context.MQTT)


@table(permissions.test_parse_error_shows_the_text_form)
def test_c_refuses_other_forms(native: Native, text: str) -> None:
    with native.rules() as rules:
        assert not rules.add(text)


@table(permissions.test_parse_error_for_an_invalid_resource_names_the_resource)
def test_c_refuses_invalid_resources(native: Native, text: str) -> None:
    with native.rules() as rules:
        assert not rules.add(text)


@table(permissions.test_mqtt_permission_with_an_invalid_topic_filter_is_rejected)
def test_mqtt_permission_with_an_invalid_topic_filter_is_rejected(native: Native, resource: str) -> None:
    with native.rules() as rules:
        assert not rules.add(f"read {resource}")


@table(permissions.test_deny_wins_over_allow_in_any_order)
def test_deny_wins_over_allow_in_any_order(native: Native, rules: tuple[Rule, ...]) -> None:
    with native.rules(*(str(rule.permission) for rule in rules)) as ruleset:
        assert ruleset.decide(READ, "open/door") is Reason.PERMISSION
        assert ruleset.decide(READ, "secret/door") is Reason.DENIED_BY_PERMISSION


@table(permissions.test_read_write_includes_both_operations_and_others_only_themselves, 0)
@table(permissions.test_read_write_includes_both_operations_and_others_only_themselves, 1)
def test_read_write_includes_both_operations_and_others_only_themselves(
    native: Native, effect: str, granted: str, asked: str, expected: bool
) -> None:
    everything = ["readWrite #"] if effect == "deny" else []
    access = {"read": READ, "write": WRITE}[asked]
    allowed = is_allowed(native, access, "a", *everything, str(mqtt(granted, "#", effect)))
    assert allowed is (expected if effect == "allow" else not expected)


@table(permissions.test_http_paths_match_by_segment_like_topic_levels)
def test_paths_match_like_topics(native: Native, resource: str, path: str, expected: bool) -> None:
    assert is_allowed(native, READ, path, f"read {resource}", username="charlie") is expected


@pytest.mark.parametrize("rules", [("a/b", "a/+"), ("a/+", "a/b")])
def test_first_of_two_deny_rules_gives_the_reason_for_a_shared_subscription(
    native: Native, rules: tuple[str, ...]
) -> None:
    denied = [mqtt("read", rule, "deny") for rule in rules]
    user = UserPolicy("bob", True, frozenset(), None, (mqtt("read", "#"), *denied))
    snapshot = Snapshot(users=ShardedMap([("bob", user)]), version=1)
    with native.rules("read #", *map(str, denied)) as ruleset:
        reason = ruleset.decide(SUBSCRIBE, "$share/g/a/+", "bob")
    assert reason is reason_in_policy(snapshot, "bob", "", "$share/g/a/+", SUBSCRIBE)
    assert reason is (Reason.SHARE_REACHES_DENIED if rules[0] == "a/b" else Reason.DENIED_BY_PERMISSION)


@table(client_ids.test_pattern_matches_the_whole_client_id)
def test_pattern_matches_the_whole_client_id(native: Native, pattern: str, client_id: str, allowed: bool) -> None:
    assert native.client_id_allowed([pattern], "bob", client_id) is allowed


@table(client_ids.test_user_may_use_client_ids_of_its_own_and_its_roles_patterns)
def test_user_may_use_client_ids_of_its_own_and_its_roles_patterns(
    native: Native,
    own: tuple[str, ...],
    of_roles: tuple[tuple[str, ...], ...],
    allowed: list[str],
    refused: list[str],
) -> None:
    user = native.user(user_fields(rules=["read a"], clientIds=[*own, *sum(of_roles, ())]))
    assert user
    with user:
        reasons = {client_id: user.decide(client_id, READ, "a") for client_id in allowed + refused}
    assert reasons == {
        **dict.fromkeys(allowed, Reason.PERMISSION),
        **dict.fromkeys(refused, Reason.CLIENT_ID_NOT_ALLOWED),
    }


@table(client_ids.test_client_id_that_can_be_literal_matches_only_itself)
def test_literal_client_id_matches_only_itself(native: Native, client_id: str) -> None:
    assert native.client_id_allowed([client_id], "bob", client_id)
    assert not native.client_id_allowed([client_id], "bob", client_id + "x")


@table(client_ids.test_matching_does_not_backtrack)
def test_matching_does_not_backtrack(native: Native, pattern: str, client_id: str) -> None:
    # A match that backtracks would not end.
    assert native.client_id_allowed([pattern], "bob", client_id) is allows([pattern], "bob", client_id)


def test_tables_have_rows() -> None:
    parameters: list[Any] = [table(topics.test_valid_rules), table(client_ids.test_matching_does_not_backtrack)]
    assert all(len(mark.args[1]) > 3 for mark in parameters)
