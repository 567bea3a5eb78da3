"""Topics and topic filters: the only place that knows what `+`, `#`, `$`, `%u` and `%c` mean.

A topic or topic filter is a list of levels, split on `/`; empty levels are real. The rules are
Mosquitto's own (MQTT 5.0 section 4.7), with its limits. Two questions are asked of a rule:

* does it match a topic (PUBLISH and delivery)?
* does it cover a topic filter (SUBSCRIBE), so that no topic gets through the filter but not through the rule?

A topic is a filter that matches itself alone, so one walk over the levels answers both.
In a rule `%u` and `%c` stand for one whole level that equals the username or the client id. They are
compared after splitting and never substituted into text, so no name can add a level or a wildcard.
"""

from __future__ import annotations

from typing import NamedTuple

from authsvc.errors import InvalidInput, invalid

MAX_BYTES = 65_535
MAX_LEVELS = 200
SHARE_PREFIX = "$share"
_WILDCARDS = frozenset("+#")
_UNSAFE_IN_A_LEVEL = frozenset("+#/")

Levels = tuple[str, ...]


class Identity(NamedTuple):
    """Who asks: what `%u` and `%c` stand for. An empty value matches nothing."""

    username: str = ""
    client_id: str = ""


class Subscription(NamedTuple):
    """A SUBSCRIBE's topic filter, taken apart: `$share/<group>/<topic filter>` or the filter alone."""

    group: str | None
    topic_filter: str


def validate_topic(topic: str) -> Levels:
    """Return the levels of a concrete topic; raise `InvalidInput` for `topic` when no client could publish to it."""
    levels = _split(topic, "topic")
    if not _WILDCARDS.isdisjoint(topic):
        raise invalid("topic", "must not contain + or #")
    return levels


def validate_topic_filter(topic_filter: str) -> Levels:
    """Return the levels of a topic filter; raise `InvalidInput` for `topic` when no client could subscribe to it."""
    levels = _split(topic_filter, "topic")
    _check_wildcards(levels, "topic")
    return levels


def validate_rule(resource: str) -> Levels:
    """Return the levels of a rule; raise `InvalidInput` for `resource` when it could not mean what it says.

    Beyond a topic filter's own syntax, `%u` and `%c` must be whole levels, and `$share/...` is refused:
    a shared subscription is authorised by its inner filter.
    """
    levels = _split(resource, "resource")
    _check_wildcards(levels, "resource")
    for level in levels:
        if ("%u" in level or "%c" in level) and len(level) != len("%u"):
            raise invalid("resource", "%u and %c must be whole levels, as in devices/%u/state")
    if levels[0] == SHARE_PREFIX:
        raise invalid("resource", "name the inner topic filter; $share/<group>/ is taken off before rules are asked")
    return levels


def parse_subscription(requested: str) -> Subscription:
    """Take `$share/<group>/<topic filter>` apart; anything else is its own topic filter."""
    if requested.partition("/")[0] != SHARE_PREFIX:
        return Subscription(None, requested)
    _, _, rest = requested.partition("/")
    group, slash, topic_filter = rest.partition("/")
    if not group or not slash or not topic_filter or not _WILDCARDS.isdisjoint(group):
        raise invalid("topic", "a shared subscription is $share/<group>/<topic filter>")
    return Subscription(group, topic_filter)


def matches(topic_filter: str, topic: str, identity: Identity = Identity()) -> bool:  # noqa: B008 - immutable
    """Say whether a topic gets through a topic filter; anything malformed does not."""
    try:
        return levels_cover(validate_topic_filter(topic_filter), validate_topic(topic), identity)
    except InvalidInput:
        return False


def covers(rule_filter: str, requested_filter: str, identity: Identity = Identity()) -> bool:  # noqa: B008 - immutable
    """Say whether every topic that the requested filter can match also matches the rule; malformed is no."""
    try:
        rule, requested = validate_topic_filter(rule_filter), validate_topic_filter(requested_filter)
    except InvalidInput:
        return False
    return levels_cover(rule, requested, identity)


def split(text: str) -> Levels:
    """Return the levels of a topic, topic filter or rule that was validated before."""
    return tuple(text.split("/"))


def levels_cover(rule: Levels, requested: Levels, identity: Identity) -> bool:
    """`covers` for levels that were validated before; a topic's levels make it `matches`."""
    # Wildcards, %u and %c never reach a topic that begins with $: only a rule that spells the $ does.
    if (rule[0][:1] == "$") != (requested[0][:1] == "$"):
        return False
    for position, level in enumerate(rule):
        if level == "#":
            return True
        if position == len(requested):
            return False
        wanted = requested[position]
        if level == "+":
            if wanted == "#":
                return False
        elif _literal(level, identity) != wanted:
            return False
    return len(rule) == len(requested)


def levels_overlap(first: Levels, second: Levels, identity: Identity) -> bool:
    """Say whether some topic matches both filters; the first may hold `%u` and `%c`."""
    if (first[0][:1] == "$") != (second[0][:1] == "$"):
        return False
    for ours, theirs in zip(first, second, strict=False):
        if "#" in (ours, theirs):
            return True
        if "+" not in (ours, theirs) and _literal(ours, identity) != theirs:
            return False
    # The longer one may go on with # alone: `a/#` also matches `a`.
    longer = first if len(first) > len(second) else second
    rest = longer[min(len(first), len(second)) :]
    return not rest or rest[0] == "#"


def _literal(level: str, identity: Identity) -> str | None:
    """Return the text a rule's level must equal; None when the identity could pass for a wildcard or more levels."""
    if level == "%u":
        value = identity.username
    elif level == "%c":
        value = identity.client_id
    else:
        return level
    return value if value and _UNSAFE_IN_A_LEVEL.isdisjoint(value) else None


def _split(text: str, field: str) -> Levels:
    if not text:
        raise invalid(field, "must not be empty")
    if "\0" in text:
        raise invalid(field, "must not contain a NUL character")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise invalid(field, "must be valid Unicode") from None
    if size > MAX_BYTES:
        raise invalid(field, f"must be at most {MAX_BYTES} bytes")
    levels = split(text)
    if len(levels) > MAX_LEVELS:
        raise invalid(field, f"must have at most {MAX_LEVELS} levels")
    return levels


def _check_wildcards(levels: Levels, field: str) -> None:
    for position, level in enumerate(levels):
        if len(level) > 1 and not _WILDCARDS.isdisjoint(level):
            raise invalid(field, "+ and # must be whole levels")
        if level == "#" and position != len(levels) - 1:
            raise invalid(field, "# must be the last level")
