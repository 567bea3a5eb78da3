"""Topics and topic filters: the only module that interprets `+`, `#`, `$`, `%u` and `%c`.

A topic or topic filter is a list of levels, separated by `/`; a level may be empty. Rules and limits are those of
Mosquitto (MQTT 5.0, section 4.7). A rule is checked in two ways:

* does it match a topic (PUBLISH and delivery)?
* does it cover a topic filter (SUBSCRIBE), so that it matches every topic that the filter matches?

A topic is a filter that matches only itself, so one comparison of levels does both. In a rule, `%u` and `%c` stand for
one whole level that equals the username or the client id. They are compared after splitting and never substituted into
text, so no name can add a level or a wildcard.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from authsvc.errors import invalid

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 65_535
MAX_LEVELS = 200
SHARE_PREFIX = "$share"
_WILDCARDS = frozenset("+#")
_UNSAFE_IN_A_LEVEL = frozenset("+#/")

Levels = tuple[str, ...]

_LEVEL = r"(?:[^\x00-\x1f/+#%\ud800-\udfff]++|\+|%[uc])?+"
ORDINARY_RULE = rf"(?!\$share(?![^/\x00-\x1f]))(?:#|{_LEVEL}(?:/(?!#){_LEVEL}){{0,190}}+(?:/#)?)"
"""A regular expression that matches nearly every rule and nothing else, except the empty text and too long ones."""
_ORDINARY_RULE = re.compile(ORDINARY_RULE)
_ORDINARY_LENGTH = MAX_BYTES // 4  # characters have at most 4 bytes


class Identity(NamedTuple):
    """The values of `%u` and `%c` for one client. An empty value matches nothing."""

    username: str = ""
    client_id: str = ""


class Subscription(NamedTuple):
    """The parts of `$share/<group>/<topic filter>`; `group` is None for a plain topic filter."""

    group: str | None
    topic_filter: str


def validate_topic(topic: str) -> Levels:
    """Return the levels of a concrete topic; `InvalidInput` for `topic` if MQTT does not allow it."""
    levels = _split(topic, "topic")
    if not _WILDCARDS.isdisjoint(topic):
        raise invalid("topic", "must not contain + or #")
    return levels


def validate_topic_filter(topic_filter: str) -> Levels:
    """Return the levels of a topic filter; `InvalidInput` for `topic` if MQTT does not allow it."""
    levels = _split(topic_filter, "topic")
    _check_wildcards(levels, "topic")
    return levels


def validate_rule(resource: str) -> Levels:
    """Return the levels of a rule; `InvalidInput` for `resource` if it is not valid.

    It must be a topic filter in which `%u` and `%c` are whole levels. `$share/...` is refused, because a shared
    subscription is authorised by its inner filter.
    """
    if 0 < len(resource) <= _ORDINARY_LENGTH and _ORDINARY_RULE.fullmatch(resource):
        return split(resource)
    levels = _split(resource, "resource")
    _check_wildcards(levels, "resource")
    for level in levels:
        if ("%u" in level or "%c" in level) and len(level) != len("%u"):
            raise invalid("resource", "%u and %c must be whole levels, as in devices/%u/state")
    if levels[0] == SHARE_PREFIX:
        raise invalid(
            "resource", "use the inner topic filter without $share/<group>/, which is removed before rules are checked"
        )
    return levels


def parse_subscription(requested: str) -> Subscription:
    """Return the parts of `$share/<group>/<topic filter>`; anything else is a plain topic filter."""
    prefix, _, rest = requested.partition("/")
    if prefix != SHARE_PREFIX:
        return Subscription(None, requested)
    group, slash, topic_filter = rest.partition("/")
    if not group or not slash or not topic_filter or not _WILDCARDS.isdisjoint(group):
        raise invalid("topic", "a shared subscription is $share/<group>/<topic filter>")
    return Subscription(group, topic_filter)


def split(text: str) -> Levels:
    """Return the levels of a valid topic, topic filter, rule or path."""
    return tuple(text.split("/"))


def path_level(name: str) -> str:
    """Return a name as the one level of a path that http permissions are checked against: `a/b` becomes `a%2Fb`."""
    return name.replace("%", "%25").replace("/", "%2F")


def path_identity(username: str) -> Identity:
    """Return what `%u` stands for in http permissions: the name as it is in paths."""
    return Identity(path_level(username))


def levels_cover(rule: Levels, requested: Levels, identity: Identity) -> bool:
    """Return whether a rule covers a topic filter or matches a topic; both are validated levels."""
    # Wildcards, %u and %c do not match a first level that begins with $; only a rule with that $ does.
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
    """Return whether any topic matches both filters; the first may contain `%u` and `%c`."""
    if (first[0][:1] == "$") != (second[0][:1] == "$"):
        return False
    for one, other in zip(first, second, strict=False):
        if "#" in (one, other):
            return True
        if "+" not in (one, other) and _literal(one, identity) != other:
            return False
    # The rest of the longer one may only be #, because `a/#` also matches `a`.
    longer = first if len(first) > len(second) else second
    rest = longer[min(len(first), len(second)) :]
    return not rest or rest[0] == "#"


def resolve(rule: Levels, identity: Identity) -> Levels | None:
    """Return a rule without `%u` and `%c`; None if it matches nothing for this client."""
    levels = tuple(_literal(level, identity) for level in rule)
    return None if None in levels else levels  # type: ignore[return-value]  # no level is None


def intersection(first: Levels, second: Levels) -> Levels | None:
    """Return the filter that matches what both filters match; None if there is no such topic. No `%u`, no `%c`."""
    if (first[0][:1] == "$") != (second[0][:1] == "$"):
        return None
    both: list[str] = []
    for position in range(max(len(first), len(second)) + 1):
        if first[position : position + 1] == ("#",):
            return (*both, *second[position:])
        if second[position : position + 1] == ("#",):
            return (*both, *first[position:])
        if position >= len(first) or position >= len(second):
            break
        one, other = first[position], second[position]
        if "+" not in (one, other) and one != other:
            return None
        both.append(other if one == "+" else one)
    return tuple(both) if len(first) == len(second) else None


def typical_topics(topic_filter: Levels, unused: str, deepest: int) -> Iterator[Levels]:
    """Yield one topic for each number of levels, up to `deepest`, that a filter matches and that is not special.

    Each wildcard is replaced by levels `unused`, a text that is in no rule. So if any topic of the filter with that
    number of levels is outside of all of some other filters, the one yielded is too. No `%u`, no `%c`.
    """
    fixed = tuple(unused if level == "+" else level for level in topic_filter if level != "#")
    if len(fixed) == len(topic_filter):
        yield fixed
        return
    for more in range(0 if fixed else 1, max(deepest - len(fixed), 1) + 1):
        yield fixed + (unused,) * more


def _literal(level: str, identity: Identity) -> str | None:
    """Return the text of a rule's level; None if a username or client id contains a wildcard or a separator."""
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
