"""The JSON file of Mosquitto's dynamic-security plugin, of Mosquitto 2.0 and 2.1.

What the plugin itself would skip when it loads the file becomes a note. Priorities are resolved here: the roles of a
client are in the order in which the plugin asks them, and so are the rules of a role.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from authsvc.credentials.password_hashes import UnusableHash, from_dynamic_security, parse
from authsvc.errors import invalid
from authsvc.importing.notes import Note, attention, left_out
from authsvc.importing.text_files import is_usable_name
from authsvc.policy import topics

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_PRIORITY = 100_000


class AclType(StrEnum):
    PUBLISH = "publishClientSend"
    RECEIVE = "publishClientReceive"
    SUBSCRIBE_LITERAL = "subscribeLiteral"
    SUBSCRIBE_PATTERN = "subscribePattern"
    UNSUBSCRIBE_LITERAL = "unsubscribeLiteral"
    UNSUBSCRIBE_PATTERN = "unsubscribePattern"


SUBSCRIBING = (AclType.SUBSCRIBE_LITERAL, AclType.SUBSCRIBE_PATTERN)
UNSUBSCRIBING = (AclType.UNSUBSCRIBE_LITERAL, AclType.UNSUBSCRIBE_PATTERN)
_ACL_TYPES = {each.lower(): each for each in AclType}  # the plugin ignores the case


@dataclass(frozen=True, slots=True)
class Acl:
    """One rule of a role; `place` is its JSON path."""

    type: AclType
    topic: str
    priority: int
    allow: bool
    place: str

    @property
    def levels(self) -> topics.Levels:
        return topics.split(self.topic)

    def __str__(self) -> str:
        return f"{self.place} ({'allow' if self.allow else 'deny'} {self.type} {self.topic}, priority {self.priority})"


@dataclass(frozen=True, slots=True)
class Role:
    """A role with its rules, those with the highest priority first."""

    name: str
    description: str
    wildcard_subscriptions: bool
    acls: tuple[Acl, ...]
    place: str


@dataclass(frozen=True, slots=True)
class Client:
    """A client with the names of its roles and of its groups' roles, in the order in which the plugin asks them.

    `client_id` and `disabled` are None if the file does not have them.
    """

    username: str
    password_hash: str | None
    client_id: str | None
    disabled: bool | None
    roles: tuple[str, ...]
    place: str


@dataclass(frozen=True, slots=True)
class Defaults:
    """`defaultACLAccess`: the decision if no rule matches."""

    publish: bool
    receive: bool
    subscribe: bool
    unsubscribe: bool


@dataclass(frozen=True, slots=True)
class Config:
    """The file. `is_of_2_1` says that Mosquitto 2.1 has written it, which replaces %u and %c in rules."""

    clients: list[Client]
    roles: dict[str, Role]
    defaults: Defaults
    is_of_2_1: bool


@dataclass(frozen=True, slots=True)
class _Ranked:
    """A name with its priority; the plugin asks the highest first, and equal ones by name."""

    priority: int
    name: str

    @property
    def rank(self) -> tuple[int, bytes]:
        return -self.priority, self.name.encode(errors="surrogatepass")


def read_config(content: bytes, notes: list[Note]) -> Config:
    """Return the clients, roles and defaults; `InvalidInput` for `file` if it is no dynamic-security file."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        raise invalid("file", "is not JSON") from None
    if not isinstance(tree, dict) or not isinstance(tree.get("clients"), list):
        raise invalid("file", "is not the JSON file of dynamic-security: it has no list `clients`")
    roles = {role.name: role for role in _roles(tree, notes)}
    roles_of_groups, groups_of_clients = _groups(tree, roles, notes)
    clients: dict[str, Client] = {}
    for place, item in _items(tree, "clients", "username", notes):
        username = item["username"]
        if username in clients:
            notes.append(left_out(place, f"{username} has an earlier entry, which is imported", username))
        elif is_usable_name(username, place, notes):
            own = _ranked_roles(item, place, roles, notes)
            inherited = [
                roles_of_groups[group.name] for group in sorted(groups_of_clients.get(username, []), key=_rank)
            ]
            asked = [name for names in (own, *inherited) for name in names]
            try:
                password_hash = _password_hash(item)
            except UnusableHash as error:
                notes.append(left_out(place, f"{username} is not imported: {error.message}", username))
                continue
            if password_hash is None:
                notes.append(attention(place, f"{username} has no password, so it cannot log in with one", username))
            clients[username] = Client(
                username,
                password_hash,
                _text(item, "clientid") or None,
                disabled if isinstance(disabled := item.get("disabled"), bool) else None,
                tuple(dict.fromkeys(asked)),
                place,
            )
    if _text(tree, "anonymousGroup"):
        notes.append(left_out("anonymousGroup", "there are no anonymous clients in authsvc: each needs a username"))
    is_of_2_1 = any("encoded_password" in client for client in tree["clients"] if isinstance(client, dict))
    return Config(list(clients.values()), roles, _defaults(tree), is_of_2_1)


def _roles(tree: dict[str, Any], notes: list[Note]) -> Iterator[Role]:
    for place, item in _items(tree, "roles", "rolename", notes):
        acls = []
        for acl_place, acl in _items(item, "acls", "topic", notes, place):
            acl_type = _ACL_TYPES.get(_text(acl, "acltype").lower())
            if acl_type is None:
                notes.append(left_out(acl_place, f"acltype must be one of: {', '.join(AclType)}"))
            else:
                acls.append(Acl(acl_type, acl["topic"], _priority(acl, 0), acl.get("allow") is True, acl_place))
        acls.sort(key=lambda acl: -acl.priority)
        description = _text(item, "textdescription") or _text(item, "textname")
        yield Role(item["rolename"], description, item.get("allowwildcardsubs") is not False, tuple(acls), place)


def _groups(
    tree: dict[str, Any], roles: dict[str, Role], notes: list[Note]
) -> tuple[dict[str, list[str]], dict[str, list[_Ranked]]]:
    """Return the roles of each group in order, and the groups of each client."""
    roles_of: dict[str, list[str]] = {}
    members: dict[str, list[_Ranked]] = {}
    for place, item in _items(tree, "groups", "groupname", notes):
        name = item["groupname"]
        roles_of[name] = _ranked_roles(item, place, roles, notes)
        for _, member in _items(item, "clients", "username", notes, place):
            members.setdefault(member["username"], []).append(_Ranked(_priority(member, -1), name))
    return roles_of, members


def _ranked_roles(item: dict[str, Any], place: str, roles: dict[str, Role], notes: list[Note]) -> list[str]:
    ranked = []
    for role_place, role in _items(item, "roles", "rolename", notes, place):
        if role["rolename"] in roles:
            ranked.append(_Ranked(_priority(role, -1), role["rolename"]))
        else:
            notes.append(left_out(role_place, f"there is no role named {role['rolename']}"))
    return [each.name for each in sorted(ranked, key=_rank)]


def _rank(ranked: _Ranked) -> tuple[int, bytes]:
    return ranked.rank


def _password_hash(item: dict[str, Any]) -> str | None:
    """Return the stored form of a client's hash; None if it has none."""
    encoded = _text(item, "encoded_password")
    if encoded:
        return parse(encoded).text
    password, salt, iterations = _text(item, "password"), _text(item, "salt"), item.get("iterations")
    if not password or not salt:
        return None
    if not isinstance(iterations, int):
        raise UnusableHash("the number of iterations of the hash is missing")
    return from_dynamic_security(password, salt, iterations).text


def _defaults(tree: dict[str, Any]) -> Defaults:
    given = tree.get("defaultACLAccess")
    given = given if isinstance(given, dict) else {}
    return Defaults(
        given.get("publishClientSend") is True,
        given.get("publishClientReceive") is True,
        given.get("subscribe") is True,
        given.get("unsubscribe") is True,
    )


def _items(
    tree: dict[str, Any], key: str, name: str, notes: list[Note], within: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a list that have a name, each with its JSON path; a note for each other entry."""
    listed = tree.get(key, [])
    for position, item in enumerate(listed if isinstance(listed, list) else []):
        place = f"{within}{'.' if within else ''}{key}[{position}]"
        if isinstance(item, dict) and _text(item, name):
            yield place, item
        else:
            notes.append(left_out(place, f"it has no {name}"))


def _text(item: dict[str, Any], key: str) -> str:
    value = item.get(key)
    return value if isinstance(value, str) else ""


def _priority(item: dict[str, Any], default: int) -> int:
    value = item.get("priority")
    return max(-_MAX_PRIORITY, min(_MAX_PRIORITY, value)) if isinstance(value, int) else default
