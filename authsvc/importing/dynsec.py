"""A dynamic-security file as users and roles of authsvc, with the cases in which the two decide differently."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from authsvc.importing.dynsec_config import UNSUBSCRIBING, Acl, AclType, Config, read_config
from authsvc.importing.dynsec_differences import differences
from authsvc.importing.dynsec_roles import (
    DEFAULT_ROLE,
    Reading,
    check_size,
    default_permissions,
    problems,
    role_names,
    translated,
    with_effect,
)
from authsvc.importing.imported import Imported, entry
from authsvc.importing.notes import DOLLAR_TOPICS, Note, NoteKind, Question, left_out
from authsvc.policy.allowed_client_ids import can_be_literal
from authsvc.policy.permissions import Rule
from authsvc.policy_file.document import PolicyDocument, PolicyRole, PolicyUser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from authsvc.policy.permissions import Permission

_MAX_DESCRIPTION = 1000


def read(content: bytes) -> Imported:
    """Return what a dynamic-security JSON file says; `InvalidInput` for `file` if it is none."""
    notes: list[Note] = []
    config = read_config(content, notes)
    notes += problems(config)
    names = role_names(config, notes)
    orders = {client.roles for client in config.clients}
    check_size(config, orders)
    effective = with_effect(config, orders, notes)
    reading = Reading(config, effective)
    roles = {name: translated(role, effective, reading) for name, role in config.roles.items()}
    across = {order: reading.across_roles(order) for order in orders}
    default = default_permissions(config)
    users = []
    for client in config.clients:
        if client.client_id and not can_be_literal(client.client_id):
            message = (
                f"{client.username} is not imported: authsvc cannot bind it to its client id, which contains * or %"
            )
            notes.append(left_out(client.place, message, client.username))
            continue
        said: dict[str, Any] = {"password_hash": client.password_hash}
        if client.disabled is not None:
            said["enabled"] = not client.disabled
        if client.client_id:
            said["client_ids"] = (client.client_id,)
        roles_here = (*(names[role] for role in client.roles), *([DEFAULT_ROLE] if default else []))
        users.append(
            entry(PolicyUser, username=client.username, roles=roles_here, permissions=across[client.roles], **said)
        )
    policy_roles = [
        entry(PolicyRole, name=names[name], description=_description(role.description), permissions=roles[name])
        for name, role in config.roles.items()
    ]
    if default:
        description = "What defaultACLAccess of dynamic-security allowed every client"
        policy_roles.append(entry(PolicyRole, name=DEFAULT_ROLE, description=description, permissions=default))
    notes += differences(config, lambda order: _rules(order, roles, (*across[order], *default), names))
    notes += _general_notes(config)
    return Imported(PolicyDocument(roles=tuple(policy_roles), users=tuple(users)), notes)


def _rules(
    order: tuple[str, ...], roles: dict[str, tuple[Permission, ...]], own: tuple[Permission, ...], names: dict[str, str]
) -> list[Rule]:
    given = [Rule(permission, names[name]) for name in order for permission in roles[name]]
    return given + [Rule(permission, None) for permission in own]


def _general_notes(config: Config) -> Iterator[Note]:
    """Yield what is different for all clients."""
    acls = [acl for role in config.roles.values() for acl in role.acls]
    refused = [acl for acl in acls if acl.type in UNSUBSCRIBING and not acl.allow]
    if refused or not config.defaults.unsubscribe:
        yield left_out(
            refused[0].place if refused else "defaultACLAccess.unsubscribe",
            "authsvc allows every UNSUBSCRIBE; rules about it are not imported",
        )
    yield Note(
        NoteKind.DIFFERS,
        "",
        "dynamic-security decides a shared subscription $share/GROUP/FILTER by rules for $share/..., authsvc by rules"
        " for FILTER",
        (),
        Question.SUBSCRIBE,
        "$share/#",
    )
    for name, question, allowed in (
        ("publishClientSend", Question.PUBLISH, config.defaults.publish),
        ("subscribe", Question.SUBSCRIBE, config.defaults.subscribe),
        ("publishClientReceive", Question.RECEIVE, config.defaults.subscribe and config.defaults.receive),
    ):
        if allowed:
            yield Note(
                NoteKind.DIFFERS,
                f"defaultACLAccess.{name}",
                f"by default dynamic-security allows clients to {question} topics that begin with $ too; authsvc needs"
                " a permission that begins with the same level",
                (),
                question,
                DOLLAR_TOPICS,
            )
    if not config.is_of_2_1:
        yield from _notes_about_2_0(acls)


def _notes_about_2_0(acls: list[Acl]) -> Iterator[Note]:
    """Yield what Mosquitto 2.0.11 does and 2.1 does not. A file of 2.1 may look like one of 2.0."""
    for acl in acls:
        for question in _QUESTIONS.get(acl.type, ()):
            if not {"%u", "%c"}.isdisjoint(acl.levels):
                yield Note(
                    NoteKind.DIFFERS,
                    acl.place,
                    f"{question} {acl.topic}: authsvc and Mosquitto 2.1 put the username and client id in place of %u"
                    " and %c; Mosquitto 2.0 does not",
                    (),
                    question,
                    "/".join("+" if level in ("%u", "%c") else level for level in acl.levels),
                )
        if acl.type is AclType.SUBSCRIBE_PATTERN and acl.topic == "+/#":
            message = (
                "subscribe #: Mosquitto 2.0 takes the subscribePattern +/# for #; authsvc and Mosquitto 2.1 do not"
            )
            yield Note(NoteKind.DIFFERS, acl.place, message, (), Question.SUBSCRIBE, "#")
    wide = [acl for acl in acls if acl.type is AclType.SUBSCRIBE_PATTERN and acl.allow and acl.levels[0] in ("+", "#")]
    for question in _SUBSCRIPTIONS if wide else ():
        yield Note(
            NoteKind.DIFFERS,
            wide[0].place,
            f"in Mosquitto 2.0 a subscribePattern that begins with a wildcard lets clients {question} topics that begin"
            " with $ too; in authsvc and Mosquitto 2.1 it does not",
            (),
            question,
            DOLLAR_TOPICS,
        )


_SUBSCRIPTIONS = (Question.SUBSCRIBE, Question.RECEIVE)
_QUESTIONS = {
    AclType.PUBLISH: (Question.PUBLISH,),
    AclType.RECEIVE: (Question.RECEIVE,),
    AclType.SUBSCRIBE_LITERAL: _SUBSCRIPTIONS,
    AclType.SUBSCRIBE_PATTERN: _SUBSCRIPTIONS,
}


def _description(text: str) -> str:
    """Return a text that PostgreSQL can hold, too."""
    return text[:_MAX_DESCRIPTION].replace("\0", "\ufffd")
