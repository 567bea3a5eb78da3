"""dynamic-security's roles as roles of authsvc.

There the first matching rule decides, by priority; here any deny rule wins. So a deny rule is kept unless it has no
effect: unless every rule that it could override comes before it, and what no rule allows is denied anyway. Such a deny
rule only ends the list of a client, as `deny #` with the lowest priority does.
"""

from __future__ import annotations

import re
from itertools import product
from typing import TYPE_CHECKING

from authsvc.accounts.last_admin import ROLE as ADMIN
from authsvc.credentials.usernames import ROLE_NAME
from authsvc.errors import invalid
from authsvc.importing.dynsec_config import SUBSCRIBING, Acl, AclType, Config, Role
from authsvc.importing.imported import merged
from authsvc.importing.notes import Note, attention, left_out
from authsvc.importing.text_files import rule_problem
from authsvc.policy import topics
from authsvc.policy.permissions import Context, Effect, Operation, Permission
from authsvc.policy_file.document import MAX_PERMISSIONS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from authsvc.policy.topics import Levels

PREFIX = "dynsec-"
DEFAULT_ROLE = f"{PREFIX}default"
MAX_PAIRS = 2_000_000
"""The number of pairs of rules that one import compares in each step, which takes some seconds."""
MAX_ASKED = 5_000_000
"""The number of rules that all clients ask, clients with the same roles counted once."""
_TAKEN = {ADMIN, "minimum-access", DEFAULT_ROLE}
_WILDCARDS = {"+", "#"}


def role_names(config: Config, notes: list[Note]) -> dict[str, str]:
    """Return the name that each role gets; a note for each that cannot keep its own."""
    names: dict[str, str] = {}
    taken = _TAKEN | {name for name in config.roles if ROLE_NAME.fullmatch(name)}
    for name, role in config.roles.items():
        names[name] = name
        if not ROLE_NAME.fullmatch(name) or name in _TAKEN:
            base = f"{PREFIX}{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)}"[:56]
            new, number = base, 2
            while new in taken:
                new, number = f"{base}-{number}", number + 1
            taken.add(new)
            names[name] = new
            notes.append(attention(role.place, f"the role {name} is named {new} in authsvc"))
    return names


def check_size(config: Config, orders: Iterable[tuple[str, ...]]) -> None:
    """Raise `InvalidInput` for `file` if its clients ask too many rules to translate them in reasonable time."""
    if sum(len(config.roles[name].acls) + 1 for order in orders for name in order) > MAX_ASKED:
        raise invalid(
            "file", f"its clients have more than {MAX_ASKED:,} rules, if those with the same roles count once"
        )


def with_effect(config: Config, orders: Iterable[tuple[str, ...]], notes: list[Note]) -> set[Acl]:
    """Return the rules that have an effect on clients, each of which asks its roles in one of these orders.

    Rules that authsvc cannot express are not among them, nor are those about UNSUBSCRIBE. After `MAX_PAIRS` comparisons
    a note says that the other deny rules are among them: they can deny more than dynamic-security, but not less.
    """
    pairs = iter(range(MAX_PAIRS))
    usable = {
        name: [acl for acl in role.acls if acl.type in _QUESTIONS and not rule_problem(acl.topic)]
        for name, role in config.roles.items()
    }
    effective = {acl for acls in usable.values() for acl in acls if acl.allow}
    for order in orders:
        for types, default in (
            ((AclType.PUBLISH,), config.defaults.publish),
            ((AclType.RECEIVE,), config.defaults.receive),
            (SUBSCRIBING, config.defaults.subscribe),
        ):
            asked = [acl for name in order for acl in usable[name] if acl.type in types]
            later: dict[Levels, None] = {}
            for acl in reversed(asked):
                levels = _any_client(acl.levels)
                if acl.allow:
                    later[levels] = None
                elif acl not in effective and (
                    default or any(next(pairs, None) is None or topics.intersection(levels, other) for other in later)
                ):
                    effective.add(acl)
    if next(pairs, None) is None:
        message = f"only {MAX_PAIRS:,} pairs of rules were compared; deny rules that may have no effect are kept"
        notes.append(attention("", message))
    return effective


def translated(role: Role, effective: set[Acl], reading: Reading) -> tuple[Permission, ...]:
    """Return the permissions of a role.

    A client may read what it may both subscribe to and receive. A literal deny rule with a wildcard is not among them:
    it refuses one topic filter, not the topics that match it.
    """
    found = []
    for acl in role.acls:
        if acl not in effective:
            continue
        if acl.type is AclType.PUBLISH:
            found.append(_permission(Operation.WRITE, acl.topic, acl.allow))
        elif not acl.allow and not _refuses_one_filter(acl):
            found.append(_permission(Operation.READ, acl.topic, False))
    return merged([*found, *reading.of_role(role.name)])


def default_permissions(config: Config) -> tuple[Permission, ...]:
    """Return what every client may do that no rule denies."""
    found = []
    if config.defaults.publish:
        found.append(_permission(Operation.WRITE, "#", True))
    if config.defaults.subscribe and config.defaults.receive:
        found.append(_permission(Operation.READ, "#", True))
    return merged(found)


def problems(config: Config) -> list[Note]:
    """Return a note for each rule that authsvc cannot express."""
    return [
        left_out(acl.place, f"{acl.type} {acl.topic}: {problem}")
        for role in config.roles.values()
        for acl in role.acls
        if acl.type in _QUESTIONS and (problem := rule_problem(acl.topic))
    ]


_QUESTIONS = {AclType.PUBLISH, AclType.RECEIVE, *SUBSCRIBING}


class Reading:
    """What clients may read: the topics that they may both subscribe to and receive.

    `InvalidInput` for `file` after `MAX_PAIRS` comparisons, or if a role or user gets more than `MAX_PERMISSIONS`.
    """

    def __init__(self, config: Config, effective: set[Acl]) -> None:
        self._defaults = config.defaults
        self._pairs = iter(range(MAX_PAIRS))
        self._subscribing: dict[str, list[Levels]] = {}
        self._receiving: dict[str, list[Levels]] = {}
        for name, role in config.roles.items():
            allowed = [acl for acl in role.acls if acl.allow and acl in effective]
            self._subscribing[name] = [acl.levels for acl in allowed if acl.type in SUBSCRIBING]
            self._receiving[name] = [acl.levels for acl in allowed if acl.type is AclType.RECEIVE]

    def of_role(self, name: str) -> tuple[Permission, ...]:
        """Return what a client with this role may read by its rules and the defaults."""
        subscribing = self._subscribing[name]
        if self._defaults.receive:
            return _reading("/".join(levels) for levels in subscribing)
        if self._defaults.subscribe:
            subscribing = [*subscribing, ("#",)]
        found: set[str] = set()
        self._add(found, subscribing, self._receiving[name])
        return _reading(found)

    def across_roles(self, order: tuple[str, ...]) -> tuple[Permission, ...]:
        """Return what a client may read because one of its roles lets it subscribe and another one lets it receive."""
        if self._defaults.receive or self._defaults.subscribe:
            return ()
        found: set[str] = set()
        subscribing = [name for name in order if self._subscribing[name]]
        receiving = [name for name in order if self._receiving[name]]
        for first, second in product(subscribing, receiving):
            if first != second:
                self._add(found, self._subscribing[first], self._receiving[second])
        return _reading(found)

    def _add(self, found: set[str], subscribing: list[Levels], receiving: list[Levels]) -> None:
        for one, other in product(subscribing, receiving):
            if next(self._pairs, None) is None:
                reason = (
                    f"its rules to subscribe and to receive have more than {MAX_PAIRS:,} pairs within roles of clients"
                )
                raise invalid("file", reason)
            both = topics.intersection(one, other)
            if both:
                found.add("/".join(both))
                if len(found) > MAX_PERMISSIONS:
                    reason = f"rules to subscribe and to receive overlap in more than {MAX_PERMISSIONS:,} topic filters"
                    raise invalid("file", f"{reason}, as `{min(found)}`")


def _reading(found: Iterable[str]) -> tuple[Permission, ...]:
    return tuple(_permission(Operation.READ, topic, True) for topic in found)


def _permission(operation: Operation, topic: str, allow: bool) -> Permission:
    return Permission(Context.MQTT, operation, topic, Effect.ALLOW if allow else Effect.DENY)


def _refuses_one_filter(acl: Acl) -> bool:
    return acl.type is AclType.SUBSCRIBE_LITERAL and not _WILDCARDS.isdisjoint(acl.levels)


def _any_client(levels: Levels) -> Levels:
    """Return a filter that matches what the rule matches for any client."""
    return tuple("+" if level in ("%u", "%c") else level for level in levels)
