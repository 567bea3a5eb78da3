"""Hypothesis strategies for related topics, topic filters and rules.

They use few different levels, and filters are made from a topic by replacing levels with wildcards. So about half of
the pairs match.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from authsvc.errors import InvalidInput
from authsvc.policy.topics import Identity, levels_cover, validate_topic, validate_topic_filter

if TYPE_CHECKING:
    from collections.abc import Sequence

LITERALS = ("a", "b", "", "$s")
PLACEHOLDERS = ("%u", "%c")
# Usernames and client ids that try to widen a rule.
NAMES = (*LITERALS, *PLACEHOLDERS, "+", "#", "a/b", "/", "+/+", "$SYS", "$share")

NOBODY = Identity()


def matches(rule: str, topic: str, identity: Identity = NOBODY) -> bool:
    """Return whether a rule matches a topic; False if either is malformed."""
    try:
        return levels_cover(validate_topic_filter(rule), validate_topic(topic), identity)
    except InvalidInput:
        return False


def covers(rule: str, requested: str, identity: Identity = NOBODY) -> bool:
    """Return whether a rule covers a topic filter; False if either is malformed."""
    try:
        return levels_cover(validate_topic_filter(rule), validate_topic_filter(requested), identity)
    except InvalidInput:
        return False


names = st.sampled_from(NAMES) | st.text(max_size=4)
_level_lists = st.lists(st.sampled_from(LITERALS), min_size=1, max_size=4).filter(lambda levels: levels != [""])


@st.composite
def widened(draw: st.DrawFn, levels: Sequence[str]) -> tuple[str, ...]:
    """Return the levels of a filter that mostly covers these levels."""
    wide = [_changed(level, draw(st.sampled_from("==+*")), draw(st.sampled_from(LITERALS))) for level in levels]
    if draw(st.integers(0, 2)) == 0:
        wide = [*wide[: draw(st.integers(0, len(wide)))], "#"]
    cut = wide[: wide.index("#") + 1] if "#" in wide else wide
    return tuple(cut) if cut != [""] else ("+",)


def _changed(level: str, change: str, other: str) -> str:
    if level == "#" or change == "=":
        return level
    return other if change == "*" else "+"


@st.composite
def chains(draw: st.DrawFn) -> tuple[str, str, str, str]:
    """Return a topic and three filters, each made from the one before it."""
    topic = draw(_level_lists)
    first = draw(widened(topic))
    second = draw(widened(first))
    third = draw(widened(second))
    return "/".join(topic), "/".join(first), "/".join(second), "/".join(third)


@st.composite
def rules_and_topics(draw: st.DrawFn) -> tuple[str, str]:
    """Return a rule and a topic it was made from."""
    topic = draw(_level_lists)
    return "/".join(draw(widened(topic))), "/".join(topic)


@st.composite
def rules_and_filters(draw: st.DrawFn) -> tuple[str, str]:
    """Return a rule and a topic filter: one made from the other, or both from a topic."""
    topic = draw(_level_lists)
    requested = draw(widened(topic))
    return "/".join(draw(widened(requested) | widened(topic))), "/".join(requested)


@st.composite
def personal_requests(draw: st.DrawFn) -> tuple[str, str, Identity]:
    """Return a rule with `%u` or `%c`, a topic filter it was made from, and a client whose names mostly fit."""
    topic = draw(_level_lists)
    requested = draw(st.just(topic) | widened(topic))
    rule, client = draw(_personal_rules(requested))
    return rule, "/".join(requested), client


@st.composite
def personal_overlaps(draw: st.DrawFn) -> tuple[str, str, str, Identity]:
    """Return a topic, a topic filter and a rule with `%u` or `%c` made from it, and a client whose names mostly fit."""
    topic = draw(_level_lists)
    rule, client = draw(_personal_rules(topic))
    return "/".join(topic), "/".join(draw(widened(topic))), rule, client


@st.composite
def _personal_rules(draw: st.DrawFn, levels: Sequence[str]) -> tuple[str, Identity]:
    rule = list(draw(st.just(levels) | widened(levels)))
    for mark in draw(st.sampled_from([("%u",), ("%c",), ("%u", "%c")])):
        rule[draw(st.integers(0, len(rule) - 1))] = mark
    if "#" in rule[:-1]:
        rule.remove("#")
    return "/".join(rule), Identity(*(draw(_name_for(mark, rule, levels)) for mark in PLACEHOLDERS))


def _name_for(mark: str, rule: Sequence[str], levels: Sequence[str]) -> st.SearchStrategy[str]:
    fitting = [level for place, level in zip(rule, levels, strict=False) if place == mark]
    return st.sampled_from(fitting) | st.sampled_from(fitting) | names if fitting else names
