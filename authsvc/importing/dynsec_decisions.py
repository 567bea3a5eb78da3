"""How dynamic-security decides for one client: the first rule that matches, by priority.

Source: plugins/dynamic-security/acl.c of Mosquitto 2.0.11 and 2.1.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from authsvc.importing.dynsec_config import SUBSCRIBING, Acl, AclType, Config, Role
from authsvc.policy import topics

if TYPE_CHECKING:
    from collections.abc import Iterable

    from authsvc.policy.topics import Identity, Levels


class Verdict(NamedTuple):
    """A decision, and what made it: a rule, a role without wildcard subscriptions, or None for the default."""

    allowed: bool
    cause: Acl | Role | None


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule for one client, without `%u` and `%c`."""

    levels: Levels
    acl: Acl


@dataclass(frozen=True, slots=True)
class _Subscriptions:
    """What one role says about subscriptions."""

    role: Role
    literals: dict[str, Acl]
    patterns: list[Rule]


class Decisions:
    """The decisions for a client with these roles, in the order in which the plugin asks them."""

    def __init__(self, config: Config, roles: Iterable[str], identity: Identity) -> None:
        self._defaults = config.defaults
        asked = [config.roles[name] for name in roles]
        self.publishing = _resolved(asked, (AclType.PUBLISH,), identity)
        self.receiving = _resolved(asked, (AclType.RECEIVE,), identity)
        self.subscribing = _resolved(asked, SUBSCRIBING, identity)
        self._subscriptions = [
            _Subscriptions(
                role,
                {acl.topic: acl for acl in reversed(role.acls) if acl.type is AclType.SUBSCRIBE_LITERAL},
                _resolved([role], (AclType.SUBSCRIBE_PATTERN,), identity),
            )
            for role in asked
        ]

    @property
    def all_wildcards(self) -> bool:
        """Whether each role lets the client subscribe to topic filters with wildcards."""
        return all(each.role.wildcard_subscriptions for each in self._subscriptions)

    def publish(self, topic: Levels) -> Verdict:
        return _first(self.publishing, topic, self._defaults.publish)

    def subscribe(self, topic_filter: Levels) -> Verdict:
        has_wildcard = not {"+", "#"}.isdisjoint(topic_filter)
        text = "/".join(topic_filter)
        for each in self._subscriptions:
            if has_wildcard and not each.role.wildcard_subscriptions:
                return Verdict(False, each.role)
            literal = each.literals.get(text)
            if literal:
                return Verdict(literal.allow, literal)
            for rule in each.patterns:
                if _covers(rule.levels, topic_filter):
                    return Verdict(rule.acl.allow, rule.acl)
        return Verdict(self._defaults.subscribe, None)

    def receive(self, topic: Levels) -> Verdict:
        """Decide whether a message can reach the client: some subscription to it and its delivery are allowed."""
        delivered = _first(self.receiving, topic, self._defaults.receive)
        if not delivered.allowed:
            return delivered
        subscribed = self.subscribe(topic)
        if not subscribed.allowed:
            for wider in self._filters_for(topic):
                wide = self.subscribe(wider)
                if wide.allowed:
                    return wide
        return subscribed

    def _filters_for(self, topic: Levels) -> Iterable[Levels]:
        """Yield filters that match a topic, among them one that is allowed if there is any."""
        for rule in self.subscribing:
            if rule.acl.allow and _covers(rule.levels, topic):
                yield rule.levels
                if rule.acl.type is AclType.SUBSCRIBE_PATTERN:
                    yield tuple(
                        rule.levels[position] if rule.levels[position : position + 1] not in ((), ("#",)) else "+"
                        for position in range(len(topic))
                    )
        if self._defaults.subscribe:
            yield ("#",)
            yield ("+",) * len(topic)


def _resolved(roles: Iterable[Role], types: tuple[AclType, ...], identity: Identity) -> list[Rule]:
    """Return the rules of these types in the order of the roles; without those that match nothing for the client."""
    found = []
    for role in roles:
        for acl in role.acls:
            if acl.type in types:
                is_literal = acl.type is AclType.SUBSCRIBE_LITERAL
                levels = acl.levels if is_literal else topics.resolve(acl.levels, identity)
                if levels is not None:
                    found.append(Rule(levels, acl))
    return found


def _first(rules: Iterable[Rule], topic: Levels, default: bool) -> Verdict:
    for rule in rules:
        if _covers(rule.levels, topic):
            return Verdict(rule.acl.allow, rule.acl)
    return Verdict(default and not topic[0].startswith("$CONTROL"), None)


_NOBODY = topics.Identity()


def _covers(levels: Levels, requested: Levels) -> bool:
    return topics.levels_cover(levels, requested, _NOBODY)
