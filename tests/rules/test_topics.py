"""Topics and topic filters: examples, and comparison with an oracle made of regular expressions."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from functools import cache, lru_cache

import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from authsvc.errors import InvalidInput
from authsvc.policy.topics import (
    MAX_BYTES,
    MAX_LEVELS,
    Identity,
    Subscription,
    intersection,
    levels_cover,
    levels_overlap,
    parse_subscription,
    split,
    typical_topics,
    validate_rule,
    validate_topic,
    validate_topic_filter,
)
from tests.rules.filters import (
    LITERALS,
    NAMES,
    chains,
    covers,
    matches,
    personal_overlaps,
    personal_requests,
    rules_and_filters,
    rules_and_topics,
)

BOB = Identity("bob", "sensor-1")
LONGEST = "a" * MAX_BYTES
DEEPEST = "/".join("a" * MAX_LEVELS)
LONE_SURROGATE = "a/\udc80"


@pytest.mark.parametrize(
    ("rule", "topic", "expected"),
    [
        ("a", "a", True),
        ("a", "A", False),
        ("a", "b", False),
        ("a", "a/", False),
        ("a", "/a", False),
        ("a/", "a/", True),
        ("/a", "/a", True),
        ("/", "/", True),
        ("//", "/", False),
        ("a//b", "a//b", True),
        ("a//b", "a/b", False),
        ("+", "a", True),
        ("+", "/", False),
        ("+/+", "/", True),
        ("/+", "/a", True),
        ("+", "/a", False),
        ("a/+", "a/", True),
        ("a/+", "a", False),
        ("a/+", "a/b/c", False),
        ("a/+/b", "a//b", True),
        ("a/+/b", "a/x/b", True),
        ("a/+/b", "a/b", False),
        ("+/+/+", "a/b/c", True),
        ("#", "a", True),
        ("#", "/", True),
        ("#", "a/b/c", True),
        ("a/#", "a", True),
        ("a/#", "a/", True),
        ("a/#", "a/b/c", True),
        ("a/#", "ab", False),
        ("a/#", "b/a", False),
        ("a/+/#", "a", False),
        ("a/+/#", "a/b", True),
        ("/#", "/", True),
        ("/#", "a", False),
        ("+/#", "a", True),
        ("ü/+", "ü/ß", True),
        ("%u", "%u", False),
        ("a b", "a b", True),
        ("a\n", "a\n", True),
        ("a", "a\n", False),
    ],
)
def test_rule_matches_a_topic_level_by_level(rule: str, topic: str, expected: bool) -> None:
    assert matches(rule, topic) is expected


@pytest.mark.parametrize(
    ("rule", "topic", "expected"),
    [
        ("#", "$SYS/broker/uptime", False),
        ("+/#", "$SYS/broker/uptime", False),
        ("+/broker/uptime", "$SYS/broker/uptime", False),
        ("$SYS/#", "$SYS/broker/uptime", True),
        ("$SYS/#", "$SYS", True),
        ("$SYS/+/uptime", "$SYS/broker/uptime", True),
        ("$SYS/#", "$CONTROL/dynamic-security/v1", False),
        ("#", "$CONTROL/dynamic-security/v1", False),
        ("$CONTROL/#", "$CONTROL/dynamic-security/v1", True),
        ("$/#", "$SYS/broker", False),
        ("#", "$", False),
        ("a/+", "a/$SYS", True),
        ("/#", "/$SYS", True),
    ],
)
def test_only_a_rule_that_begins_with_dollar_matches_dollar_topics(rule: str, topic: str, expected: bool) -> None:
    assert matches(rule, topic) is expected


@pytest.mark.parametrize(
    ("rule", "requested", "expected"),
    [
        ("a/#", "a", True),
        ("a/#", "a/#", True),
        ("a/#", "a/+", True),
        ("a/#", "a/+/b", True),
        ("a/#", "#", False),
        ("a/#", "+/#", False),
        ("a/#", "b/#", False),
        ("a/+", "a/b", True),
        ("a/+", "a/+", True),
        ("a/+", "a/#", False),
        ("a/+", "a", False),
        ("a/+", "a/+/#", False),
        ("a/+/b", "a//b", True),
        ("a/+/b", "a/+/+", False),
        ("a/b", "a/+", False),
        ("a/b", "a/#", False),
        ("a/b", "a/b", True),
        ("#", "#", True),
        ("#", "+", True),
        ("#", "+/#", True),
        ("#", "/", True),
        ("+/#", "#", False),
        ("+/#", "+/#", True),
        ("+/#", "+", True),
        ("+", "#", False),
        ("#", "$SYS/#", False),
        ("+/#", "$SYS/#", False),
        ("$SYS/#", "#", False),
        ("$SYS/#", "$SYS/+", True),
        ("$CONTROL/#", "$SYS/#", False),
        ("$SYS/+", "$SYS/#", False),
    ],
)
def test_rule_covers_a_filter_if_it_matches_every_topic_of_the_filter(
    rule: str, requested: str, expected: bool
) -> None:
    assert covers(rule, requested) is expected


@pytest.mark.parametrize(
    ("rule", "requested", "username", "client_id", "expected"),
    [
        ("devices/%u/state", "devices/bob/state", "bob", "", True),
        ("devices/%u/state", "devices/charlie/state", "bob", "", False),
        ("devices/%c/#", "devices/sensor-1/x/y", "bob", "sensor-1", True),
        ("devices/%c/#", "devices/sensor-2", "bob", "sensor-1", False),
        ("%u/%c", "bob/sensor-1", "bob", "sensor-1", True),
        ("%u/%c", "sensor-1/bob", "bob", "sensor-1", False),
        ("devices/%c", "devices/", "bob", "", False),
        ("devices/%c", "devices/+", "bob", "+", False),
        ("devices/%c", "devices/+", "bob", "sensor-1", False),
        ("devices/%c", "devices/#", "bob", "#", False),
        ("devices/%c", "devices/#", "bob", "sensor-1", False),
        ("devices/%c", "devices/a", "bob", "+", False),
        ("devices/%c/#", "devices/a/b", "bob", "#", False),
        ("devices/%c", "devices/a/b", "bob", "a/b", False),
        ("devices/%c/b", "devices/a/b/b", "bob", "a/b", False),
        ("%c/#", "$SYS/broker", "bob", "$SYS", False),
        ("%c", "$SYS", "bob", "$SYS", False),
        ("devices/%c", "devices/$SYS", "bob", "$SYS", True),
        ("$SYS/%c", "$SYS/sensor-1", "bob", "sensor-1", True),
        ("devices/%c", "devices/%c", "bob", "sensor-1", False),
        ("devices/%c", "devices/%c", "bob", "%c", True),
        ("devices/%u", "devices/sensor-1", "%c", "sensor-1", False),
        ("devices/%u", "devices/Bob", "bob", "", False),
        ("devices/%ux", "devices/bobx", "bob", "", False),
        ("devices/%U", "devices/bob", "bob", "", False),
    ],
)
def test_percent_u_and_percent_c_are_one_literal_level(
    rule: str, requested: str, username: str, client_id: str, expected: bool
) -> None:
    assert covers(rule, requested, Identity(username, client_id)) is expected


@pytest.mark.parametrize(
    "malformed",
    ["", "\0", "a/\0/b", LONE_SURROGATE, LONGEST + "a", "é" * (MAX_BYTES // 2 + 1), DEEPEST + "/a", "/" * MAX_LEVELS],
    ids=["empty", "NUL", "NUL within", "lone surrogate", "long", "long in bytes", "deep", "deep and empty"],
)
def test_empty_too_long_or_invalid_text_is_refused_everywhere(malformed: str) -> None:
    for validate in (validate_topic, validate_topic_filter, validate_rule):
        with pytest.raises(InvalidInput):
            validate(malformed)
    assert not matches("#", malformed)
    assert not matches(malformed, "a")
    assert not covers("#", malformed)
    assert not covers(malformed, malformed)


@pytest.mark.parametrize("malformed", ["a+", "+a", "a/b+/c", "#/", "#/a", "a/#/b", "a#", "##", "++", "+#", "a/#b"])
def test_wildcard_must_be_a_whole_level_and_hash_the_last(malformed: str) -> None:
    with pytest.raises(InvalidInput):
        validate_topic_filter(malformed)
    with pytest.raises(InvalidInput):
        validate_rule(malformed)
    assert not covers("#", malformed)
    assert not matches(malformed, "a")


@pytest.mark.parametrize("topic", ["+", "#", "a/+/b", "a/#", "a+b", "a#"])
def test_concrete_topic_with_a_wildcard_is_refused(topic: str) -> None:
    with pytest.raises(InvalidInput):
        validate_topic(topic)
    assert not matches("#", topic)


@pytest.mark.parametrize(
    "longest",
    [LONGEST, "é" * (MAX_BYTES // 2) + "a", DEEPEST, "/" * (MAX_LEVELS - 1)],
    ids=["bytes", "bytes of two", "levels", "empty levels"],
)
def test_topic_of_the_maximum_size_is_valid(longest: str) -> None:
    assert validate_topic(longest) == validate_topic_filter(longest) == validate_rule(longest)
    assert matches("#", longest)
    assert covers("#", longest)


@pytest.mark.parametrize(
    "refused", ["%ux", "x%u", "a/%cx/b", "%u%c", "%%u", "%u+", "$share", "$share/group/a", "$share/%u/a"]
)
def test_rule_with_partial_placeholders_or_share_prefix_is_refused(refused: str) -> None:
    with pytest.raises(InvalidInput) as error:
        validate_rule(refused)
    assert error.value.errors[0].field == "resource"


@pytest.mark.parametrize(
    "accepted", ["%u", "%c/#", "a/%u/+", "$CONTROL/#", "$shared/a", "100%", "%/u", "%x", "a/$share/b"]
)
def test_valid_rules(accepted: str) -> None:
    assert validate_rule(accepted) == tuple(accepted.split("/"))


@pytest.mark.parametrize(
    ("requested", "group", "topic_filter"),
    [
        ("a/b", None, "a/b"),
        ("#", None, "#"),
        ("$share/g/a", "g", "a"),
        ("$share/g/a/+/#", "g", "a/+/#"),
        ("$share/g//a", "g", "/a"),
        ("$share/g//", "g", "/"),
        ("$share/g/#", "g", "#"),
        ("$share/g/$SYS/#", "g", "$SYS/#"),
        ("$share/%u/a", "%u", "a"),
        ("$share/$share/a", "$share", "a"),
        ("$share/g/$share/h/a", "g", "$share/h/a"),
        ("$shared/g/a", None, "$shared/g/a"),
        ("$SHARE/g/a", None, "$SHARE/g/a"),
        ("/$share/g/a", None, "/$share/g/a"),
        ("a/$share/g", None, "a/$share/g"),
    ],
)
def test_shared_subscription_has_a_group_and_a_filter(requested: str, group: str | None, topic_filter: str) -> None:
    assert parse_subscription(requested) == Subscription(group, topic_filter)


@pytest.mark.parametrize(
    "malformed",
    ["$share", "$share/", "$share//", "$share/g", "$share/g/", "$share//a", "$share/+/a", "$share/#/a", "$share/g+/a"],
)
def test_malformed_shared_subscription_is_refused(malformed: str) -> None:
    with pytest.raises(InvalidInput):
        parse_subscription(malformed)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a/+", "+/b", True),
        ("a/+", "b/+", False),
        ("a/#", "a", True),
        ("a/#", "+/b/c", True),
        ("a/+/#", "a", False),
        ("a/b", "a/b/c", False),
        ("#", "$SYS/#", False),
        ("+/a", "$SYS/a", False),
        ("$SYS/+", "$SYS/#", True),
        ("#", "+/+/+", True),
        ("a/%u", "a/+", True),
        ("a/%u", "a/bob", True),
        ("a/%u", "a/charlie", False),
        ("%c/#", "sensor-1", True),
    ],
)
def test_two_filters_overlap_if_a_topic_matches_both(first: str, second: str, expected: bool) -> None:
    assert overlap(first, second, BOB) is expected


def test_strategies_produce_both_answers_often() -> None:
    answers: Counter[tuple[str, bool]] = Counter()

    @settings(max_examples=200, derandomize=True, database=None)
    @given(rules_and_topics(), rules_and_filters(), chains(), personal_requests(), personal_overlaps())
    def draw(
        topic: tuple[str, str],
        requested: tuple[str, str],
        chain: tuple[str, str, str, str],
        personal: tuple[str, str, Identity],
        meeting: tuple[str, str, str, Identity],
    ) -> None:
        answers["matches", matches(*topic)] += 1
        answers["covers", covers(*requested)] += 1
        answers["overlap", overlap(*requested)] += 1
        answers["chain", covers(chain[3], chain[2]) and covers(chain[2], chain[1])] += 1
        answers["personal", covers(*personal)] += 1
        answers["meeting", matches(meeting[2], meeting[0], meeting[3]) and matches(meeting[1], meeting[0])] += 1

    draw()
    for question in {question for question, _ in answers}:
        assert min(answers[question, True], answers[question, False]) >= 20, (question, answers)


@settings(max_examples=300)
@given(rules_and_topics())
def test_matches_agrees_with_a_regular_expression(pair: tuple[str, str]) -> None:
    rule, topic = pair
    event(f"matches: {matches(rule, topic)}")
    assert matches(rule, topic) is oracle(rule, topic)


@settings(max_examples=300)
@given(rules_and_filters())
def test_covers_agrees_with_enumerated_topics(pair: tuple[str, str]) -> None:
    rule, requested = pair
    # `#` and `+/#` match the same topics, but for Mosquitto the second does not cover the first.
    assume(pair != ("+/#", "#"))
    event(f"covers: {covers(rule, requested)}")
    assert covers(rule, requested) is (topics_matching(requested) <= topics_matching(rule))


@given(chains())
def test_rule_matches_every_topic_of_a_covered_filter(chain: tuple[str, str, str, str]) -> None:
    topic, _, requested, rule = chain
    if covers(rule, requested) and matches(requested, topic):
        assert matches(rule, topic)


@given(personal_requests())
def test_rule_with_placeholders_matches_every_topic_of_a_covered_filter(
    request: tuple[str, str, Identity],
) -> None:
    rule, requested, identity = request
    if covers(rule, requested, identity):
        for topic in itertools.islice(topics_matching(requested), 50):
            assert matches(rule, topic, identity)


@given(personal_requests())
def test_rule_without_a_leading_dollar_matches_no_dollar_topic(request: tuple[str, str, Identity]) -> None:
    rule, requested, identity = request
    for first_level in ("$SYS", "$CONTROL", "$s", "$", *identity):
        topic = "/".join([first_level, *requested.split("/")[1:]])
        if topic.startswith("$") and not rule.startswith("$"):
            assert not covers(rule, topic, identity)


@given(personal_requests())
def test_substitution_never_widens_a_rule(request: tuple[str, str, Identity]) -> None:
    rule, requested, identity = request
    values = {"%u": identity.username, "%c": identity.client_id}
    with_plus = "/".join("+" if level in values else level for level in rule.split("/"))
    named = [
        (values[level], wanted)
        for level, wanted in zip(rule.split("/"), requested.split("/"), strict=False)
        if level in values
    ]
    literally_equal = all(value == wanted and value not in ("", "+", "#") for value, wanted in named)
    expected = covers(with_plus, requested) and literally_equal
    event(f"covered: {expected}")
    assert covers(rule, requested, identity) is expected


@given(st.sampled_from(NAMES) | st.text())
def test_percent_c_matches_exactly_the_level_of_the_client_id(client_id: str) -> None:
    identity = Identity("bob", client_id)
    harmless = client_id and not set(client_id) & set("+#/\0") and client_id.isprintable()
    event(f"harmless: {bool(harmless)}")
    if harmless:
        assert matches("devices/%c", f"devices/{client_id}", identity)
    assert not matches("devices/%c", f"devices/{client_id}x", identity)
    assert not covers("devices/%c", "devices/+", identity)
    assert not covers("devices/%c", "devices/#", identity)
    assert not covers("%c", client_id + "/#", identity)


@given(rules_and_filters())
def test_every_filter_covers_itself(pair: tuple[str, str]) -> None:
    for topic_filter in pair:
        assert covers(topic_filter, topic_filter)


@given(chains())
def test_covers_is_transitive(chain: tuple[str, str, str, str]) -> None:
    _, narrow, middle, wide = chain
    if covers(wide, middle) and covers(middle, narrow):
        assert covers(wide, narrow)


@settings(max_examples=300)
@given(rules_and_filters())
def test_overlap_is_symmetric_and_agrees_with_enumerated_topics(pair: tuple[str, str]) -> None:
    first, second = pair
    event(f"overlap: {overlap(first, second)}")
    assert overlap(first, second) is overlap(second, first)
    assert overlap(first, second) is bool(topics_matching(first) & topics_matching(second))


@given(personal_overlaps())
def test_rule_overlaps_every_filter_with_a_common_topic(example: tuple[str, str, str, Identity]) -> None:
    topic, requested, rule, identity = example
    shared = matches(rule, topic, identity) and matches(requested, topic)
    event(f"a topic in common: {shared}")
    if shared:
        assert overlap(rule, requested, identity)


def overlap(first: str, second: str, identity: Identity = Identity()) -> bool:  # noqa: B008 - immutable
    return levels_overlap(validate_topic_filter(first), validate_topic_filter(second), identity)


def oracle(topic_filter: str, topic: str) -> bool:
    """Return whether a topic matches by MQTT 5.0, section 4.7, with one regular expression."""
    same_realm = topic_filter.startswith("$") is topic.startswith("$")
    return same_realm and pattern(topic_filter).fullmatch(topic) is not None


@lru_cache(maxsize=64)
def pattern(topic_filter: str) -> re.Pattern[str]:
    levels = re.escape(topic_filter).replace(r"\+", "[^/]*")
    return re.compile(levels.replace(r"/\#", "(/.*)?").replace(r"\#", ".*"), re.DOTALL)


@lru_cache(maxsize=64)
def topics_matching(topic_filter: str) -> frozenset[str]:
    """Return the matching topics of all that could distinguish two filters of up to five levels."""
    return frozenset(topic for topic in all_topics() if oracle(topic_filter, topic))


@cache
def all_topics() -> tuple[str, ...]:
    # A level that no filter contains represents all other levels.
    levels = (*LITERALS, "elsewhere")
    lists = itertools.chain.from_iterable(itertools.product(levels, repeat=depth) for depth in range(1, 7))
    # The empty topic cannot be published to, but it distinguishes filters: it is the parent in `/#`.
    return tuple(map("/".join, lists))


def test_validate_returns_levels_for_levels_cover() -> None:
    levels = validate_rule("devices/%u/#")
    assert levels == ("devices", "%u", "#")
    assert levels_cover(levels, validate_topic("devices/bob/state"), BOB)


@given(rules_and_filters(), rules_and_topics())
def test_intersection_matches_what_both_filters_match(pair: tuple[str, str], other: tuple[str, str]) -> None:
    for first, second in (pair, (pair[0], other[0])):
        both = intersection(split(first), split(second))
        expected = topics_matching(first) & topics_matching(second)
        assert (topics_matching("/".join(both)) if both else frozenset()) == expected


@given(st.lists(rules_and_filters(), min_size=1, max_size=3))
def test_typical_topic_is_outside_of_other_filters_if_any_topic_of_its_length_is(pairs: list[tuple[str, str]]) -> None:
    topic_filter, others, deepest = pairs[0][0], [other for _, other in pairs], 6
    typical = ["/".join(levels) for levels in typical_topics(split(topic_filter), "unused", deepest)]
    assert all(oracle(topic_filter, topic) for topic in typical)
    outside = topics_matching(topic_filter) - frozenset().union(*map(topics_matching, others))
    found = {topic.count("/") for topic in typical if not any(oracle(other, topic) for other in others)}
    assert {topic.count("/") for topic in outside} <= found
