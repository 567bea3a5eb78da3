"""dynamic-security's roles as roles of authsvc.

There the first matching rule decides, by priority; here any deny rule wins. So a deny rule is kept unless it has no
effect: unless every rule that it could override comes before it, and what no rule allows is denied anyway. Such a deny
rule only ends the list of a client, as `deny #` with the lowest priority does.
"""

from __future__ import annotations

import re
from itertools import combinations
from typing import TYPE_CHECKING

from authsvc.accounts.last_admin import ROLE as ADMIN
from authsvc.credentials.usernames import ROLE_NAME
from authsvc.importing.dynsec_config import SUBSCRIBING, Acl, AclType, Config, Role
from authsvc.importing.imported import merged
from authsvc.importing.notes import Note, attention, left_out
from authsvc.importing.text_files import rule_problem
from authsvc.policy import topics
from authsvc.policy.permissions import Context, Effect, Operation, Permission

if TYPE_CHECKING:
    from collections.abc import Iterable

    from authsvc.policy.topics import Levels

PREFIX = "dynsec-"
DEFAULT_ROLE = f"{PREFIX}default"
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


def with_effect(config: Config, orders: Iterable[tuple[str, ...]]) -> set[Acl]:
    """Return the rules that have an effect on clients, each of which asks its roles in one of these orders.

    Rules that authsvc cannot express are not among them, nor are those about UNSUBSCRIBE.
    """
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
            later: list[Levels] = []
            for acl in reversed(asked):
                levels = _any_client(acl.levels)
                if acl.allow:
                    later.append(levels)
                elif default or any(topics.intersection(levels, other) for other in later):
                    effective.add(acl)
    return effective


def translated(role: Role, effective: set[Acl], config: Config) -> tuple[Permission, ...]:
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
    found += [_permission(Operation.READ, topic, True) for topic in _readable(role.acls, role.acls, effective, config)]
    return merged(found)


def read_across_roles(order: tuple[str, ...], effective: set[Acl], config: Config) -> tuple[Permission, ...]:
    """Return what a client may read because one of its roles lets it subscribe and another one lets it receive."""
    if config.defaults.receive or config.defaults.subscribe:
        return ()
    found: list[str] = []
    for first, second in combinations((config.roles[name].acls for name in order), 2):
        found += _readable(first, second, effective, config)
        found += _readable(second, first, effective, config)
    return merged(_permission(Operation.READ, topic, True) for topic in found)


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


def _readable(subscribing: Iterable[Acl], receiving: Iterable[Acl], effective: set[Acl], config: Config) -> list[str]:
    """Return the filters of the topics that a client may both subscribe to and receive."""
    wanted = [acl.levels for acl in subscribing if acl.type in SUBSCRIBING and acl.allow and acl in effective]
    if config.defaults.receive:
        return ["/".join(levels) for levels in wanted]
    if config.defaults.subscribe:
        wanted.append(("#",))
    delivered = [acl.levels for acl in receiving if acl.type is AclType.RECEIVE and acl.allow and acl in effective]
    both = (topics.intersection(one, other) for one in wanted for other in delivered)
    return ["/".join(levels) for levels in both if levels]


def _permission(operation: Operation, topic: str, allow: bool) -> Permission:
    return Permission(Context.MQTT, operation, topic, Effect.ALLOW if allow else Effect.DENY)


def _refuses_one_filter(acl: Acl) -> bool:
    return acl.type is AclType.SUBSCRIBE_LITERAL and not _WILDCARDS.isdisjoint(acl.levels)


def _any_client(levels: Levels) -> Levels:
    """Return a filter that matches what the rule matches for any client."""
    return tuple("+" if level in ("%u", "%c") else level for level in levels)
