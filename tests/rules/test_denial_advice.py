"""Remedies: the narrowest permission that cures a denial, or why none does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st

from authsvc.errors import InvalidInput
from authsvc.policy.access import READ, SUBSCRIBE, WRITE, requests_for
from authsvc.policy.decision import MAX_DENIED_CLIENT_ID, MAX_DENIED_TOPIC, Allowed, Denial, Denied, Reason, denial_of
from authsvc.policy.denial_advice import DenialAdvice, advice_for
from authsvc.policy.permissions import Effect, Permission, Rule, decide
from authsvc.policy.snapshot import GrantType, UserPolicy
from authsvc.policy.topics import Identity, covers
from tests.actors import mqtt, own
from tests.rules.filters import chains, rules_and_filters

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)
BOB = UserPolicy("bob", enabled=True, grant_types=frozenset({GrantType.PASSWORD}), password_hash="x")
DISABLED = UserPolicy("bob", enabled=False, grant_types=frozenset(), password_hash="x")
CERTIFIED = UserPolicy(
    "bob",
    enabled=True,
    grant_types=frozenset({GrantType.CERTIFICATE}),
    password_hash=None,
    certificate_until=NOW + timedelta(days=1),
)
CLIENT = "sensor-1"
ACCESSES = (READ, WRITE, READ | WRITE, SUBSCRIBE)


def remedy(
    topic: str,
    access: int,
    rules: Sequence[Rule] = (),
    reason: Reason = Reason.NO_PERMISSION,
    user: UserPolicy = BOB,
    *,
    whole: bool = True,
) -> DenialAdvice:
    requests = requests_for(topic, access, Identity("bob", CLIENT)) if topic else []
    return advice_for(Denial("bob", CLIENT, topic, access, reason, whole), requests, user, rules, NOW)


def is_allowed(rules: Sequence[Rule], topic: str, access: int) -> bool:
    return all(decide(rules, request) for request in requests_for(topic, access, Identity("bob", CLIENT)))


@pytest.mark.parametrize(
    ("topic", "access", "expected"),
    [
        ("machines/7/state", WRITE, mqtt("write", "machines/7/state")),
        ("machines/7/state", READ, mqtt("read", "machines/7/state")),
        ("machines/7/state", READ | WRITE, mqtt("readWrite", "machines/7/state")),
        ("machines/+/state", SUBSCRIBE, mqtt("read", "machines/+/state")),
        ("machines/#", SUBSCRIBE, mqtt("read", "machines/#")),
        ("machines/7", SUBSCRIBE, mqtt("read", "machines/7")),
        ("$share/readers/machines/#", SUBSCRIBE, mqtt("read", "machines/#")),
        ("$SYS/broker/uptime", READ, mqtt("read", "$SYS/broker/uptime")),
        ("devices/bob/x", WRITE, mqtt("write", "devices/bob/x")),
        ("/a//", WRITE, mqtt("write", "/a//")),
        ("100%", WRITE, mqtt("write", "100%")),
    ],
)
def test_the_remedy_is_the_very_thing_that_was_asked_for(topic: str, access: int, expected: Permission) -> None:
    assert remedy(topic, access).permission == expected


def test_of_reading_and_writing_at_once_only_the_part_that_is_lacking_is_given() -> None:
    assert remedy("a", READ | WRITE, own(mqtt("read", "a"))).permission == mqtt("write", "a")
    assert remedy("a", READ | WRITE, own(mqtt("write", "#"))).permission == mqtt("read", "a")


@pytest.mark.parametrize(
    ("topic", "access", "words"),
    [
        ("a", WRITE, "publish to this one topic"),
        ("a", READ, "read this one topic"),
        ("a", READ | WRITE, "read and publish to this one topic"),
        ("a/#", SUBSCRIBE, "every topic that a/# matches"),
        ("#", SUBSCRIBE, "every topic there is"),
        ("+/#", SUBSCRIBE, "every topic there is"),
    ],
)
def test_the_note_says_how_far_the_remedy_reaches(topic: str, access: int, words: str) -> None:
    assert words in remedy(topic, access).note


@pytest.mark.parametrize(
    ("topic", "words"),
    [
        ("devices/%u/x", "%u"),
        ("%c", "%c"),
        ("devices/a%ub", "%u"),
        ("$CONTROL/dynamic-security/v1", "$CONTROL"),
        ("$CONTROL", "$CONTROL"),
        ("$share/a/b", "cannot spell"),
    ],
)
def test_what_no_rule_can_spell_or_should_give_away_has_no_remedy(topic: str, words: str) -> None:
    told = remedy(topic, WRITE)
    assert told.permission is None
    assert words in told.note


def test_a_deny_rule_that_decides_is_named_with_its_role() -> None:
    vault = Rule(mqtt("read", "doors/vault/#", "deny"), "visitors")
    told = remedy("doors/vault/1", READ, [vault], Reason.DENIED_BY_PERMISSION)
    assert (told.permission, told.rule) == (None, vault)
    assert "`deny read doors/vault/#` of role visitors forbids it" in told.note
    own_rule = remedy("doors/vault/1", READ, own(vault.permission))
    assert "of the user's own" in own_rule.note


def test_a_shared_subscription_that_reaches_denied_topics_has_no_remedy() -> None:
    rules = own(mqtt("read", "doors/vault/#", "deny"))
    told = remedy("$share/g/doors/#", SUBSCRIBE, rules, Reason.SHARE_REACHES_DENIED)
    assert (told.permission, told.rule) == (None, rules[0])
    assert "shared subscription" in told.note
    assert remedy("doors/#", SUBSCRIBE, rules).permission == mqtt("read", "doors/#")


def test_what_is_allowed_by_now_is_said_to_be_cured() -> None:
    assert remedy("a", WRITE, own(mqtt("write", "+"))) == DenialAdvice(None, "it is allowed by now", cured=True)
    assert remedy("a", WRITE, own(mqtt("write", "+")), Reason.USER_DISABLED).cured


@pytest.mark.parametrize("reason", [Reason.USER_DISABLED, Reason.NO_PERMISSION, Reason.WRONG_PASSWORD])
def test_a_user_that_is_disabled_must_be_enabled_first(reason: Reason) -> None:
    topic = "" if reason is Reason.WRONG_PASSWORD else "a"
    told = remedy(topic, WRITE if topic else 0, own(mqtt("write", "a")), reason, DISABLED)
    assert told == DenialAdvice(None, "the user is disabled; enable it first")


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        (Reason.WRONG_PASSWORD, "password was wrong"),
        (Reason.INVALID_TOKEN, "token"),
        (Reason.GRANT_TYPE_MISSING, "grant type"),
        (Reason.USER_DISABLED, "enabled by now"),
    ],
)
def test_no_permission_cures_a_denied_login(reason: Reason, word: str) -> None:
    told = remedy("", 0, own(mqtt("readWrite", "#")), reason)
    assert (told.permission, told.cured) == (None, False)
    assert word in told.note


def test_who_lacks_a_certificate_is_told_so_and_who_has_one_by_now_is_judged_by_the_rules() -> None:
    told = remedy("a", WRITE, (), Reason.NO_VALID_CERTIFICATE)
    assert told.permission is None
    assert "certificate" in told.note
    assert remedy("a", WRITE, (), Reason.NO_VALID_CERTIFICATE, CERTIFIED).permission == mqtt("write", "a")


def test_a_topic_of_which_only_the_beginning_is_known_has_no_remedy() -> None:
    told = remedy("a" * MAX_DENIED_TOPIC, WRITE, whole=False)
    assert told.permission is None
    assert "too long" in told.note


_rules = st.lists(
    st.tuples(rules_and_filters(), st.sampled_from(["read", "write", "readWrite"]), st.sampled_from(Effect)), max_size=3
).map(lambda drawn: own(*(mqtt(operation, rule or "+", effect) for (rule, _), operation, effect in drawn)))


@given(chains(), rules_and_filters(), st.sampled_from(ACCESSES), st.booleans(), _rules)
def test_with_the_remedy_exactly_what_was_asked_for_is_allowed(
    others: tuple[str, ...], asked: tuple[str, str], access: int, shared: bool, rules: tuple[Rule, ...]
) -> None:
    topic = asked[1] if access == SUBSCRIBE else others[0]
    asked_for = f"$share/g/{topic}" if shared and access == SUBSCRIBE else topic
    assume(topic)
    was_allowed = is_allowed(rules, asked_for, access)
    told = remedy(asked_for, access, rules)
    event(f"allowed: {was_allowed}, remedy: {told.permission is not None}, stopped: {told.rule is not None}")
    assert told.cured is was_allowed
    if was_allowed or told.rule:
        assert told.permission is None
        return
    assert told.permission is not None
    cured = (*rules, *own(told.permission))
    assert is_allowed(cured, asked_for, access)
    assert told.permission.effect is Effect.ALLOW
    for other in (others[0], others[1], asked[0], asked[1]):
        _is_no_wider(rules, cured, other, topic, access)


def _is_no_wider(rules: Sequence[Rule], cured: Sequence[Rule], other: str, topic: str, asked: int) -> None:
    """Hold that what became allowed lies within what was asked for: its topic or topic filter, and its operation."""
    for access, part in ((READ, READ | SUBSCRIBE), (SUBSCRIBE, READ | SUBSCRIBE), (WRITE, WRITE)):
        try:
            newly = is_allowed(cured, other, access) and not is_allowed(rules, other, access)
        except InvalidInput:
            continue  # no such topic, or no topic filter
        assert not newly or (covers(topic, other) and asked & part)


@given(st.text(max_size=6), st.sampled_from(ACCESSES))
def test_whatever_a_client_asks_for_the_remedy_is_sound(topic: str, access: int) -> None:
    try:
        requests = requests_for(topic, access, Identity("bob", CLIENT))
    except InvalidInput:
        return
    told = advice_for(Denial("bob", CLIENT, topic, access, Reason.NO_PERMISSION), requests, BOB, (), NOW)
    assert told.note
    if told.permission:
        assert is_allowed(own(told.permission), topic, access)


def test_only_denials_of_users_are_worth_remembering() -> None:
    assert denial_of(Allowed(Reason.PERMISSION), "bob", CLIENT, "a", WRITE) is None
    for reason in (Reason.UNKNOWN_USER, Reason.VERIFYING, Reason.HASHING_BUSY, Reason.POLICY_NOT_LOADED):
        assert denial_of(Denied(reason), "bob", CLIENT) is None
    expected = Denial("bob", CLIENT, "a", WRITE, Reason.NO_PERMISSION)
    assert denial_of(Denied(Reason.NO_PERMISSION), "bob", CLIENT, "a", WRITE) == expected


def test_of_a_denial_not_more_is_kept_than_a_row_can_bear() -> None:
    denial = denial_of(Denied(Reason.NO_PERMISSION), "bob", "c" * 65_535, "t" * 65_535, WRITE)
    assert denial is not None
    assert (len(denial.client_id), len(denial.topic)) == (MAX_DENIED_CLIENT_ID, MAX_DENIED_TOPIC)
    assert not denial.whole
    longest = denial_of(Denied(Reason.NO_PERMISSION), "bob", "", "t" * MAX_DENIED_TOPIC, WRITE)
    assert longest is not None
    assert longest.whole
