"""A dynamic-security file as users and roles, and which of its decisions differ after the import."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from authsvc.credentials.password_hashes import parse
from authsvc.errors import InvalidInput
from authsvc.importing import dynsec
from authsvc.importing.notes import Note, NoteKind, Question
from tests.importing.asking import password_of, pbkdf2
from tests.importing.systems import client, defaults, group, role

if TYPE_CHECKING:
    from authsvc.importing.imported import Imported

USUAL = defaults("publishClientReceive", "unsubscribe")


def read(clients: list[Any], roles: list[Any], **fields: Any) -> Imported:
    config = {"defaultACLAccess": USUAL, "clients": clients, "roles": roles, **fields}
    return dynsec.read(json.dumps(config).encode())


def role_of(imported: Imported, name: str) -> list[str]:
    (found,) = (each for each in imported.document.roles if each.name == name)
    return [str(permission) for permission in found.permissions]


def found(notes: list[Note]) -> set[tuple[Question | None, str | None]]:
    """Return the announced differences, without the one about shared subscriptions that each import has."""
    return {
        (note.question, note.topic_filter)
        for note in notes
        if note.kind is NoteKind.DIFFERS and note.topic_filter != "$share/#"
    }


def test_hash_of_mosquitto_2_0_is_kept() -> None:
    (user,) = read([client("press-7")], []).document.users
    assert parse(user.password_hash or "").verify(password_of("press-7").encode())


def test_hash_of_mosquitto_2_1_is_kept() -> None:
    salt, digest = pbkdf2("press-7", 1000)
    encoded = {"username": "press-7", "encoded_password": f"$7$1000${salt}${digest}"}
    (user,) = read([encoded], []).document.users
    assert parse(user.password_hash or "").verify(password_of("press-7").encode())


def test_disabled_client_and_client_id_are_kept() -> None:
    (user,) = read([client("press-7", disabled=True, clientid="press-7-id")], []).document.users
    assert (user.enabled, user.client_ids) == (False, ("press-7-id",))


@pytest.mark.parametrize("client_id", ["press-*", "%u", "x%c"])
def test_client_that_cannot_be_bound_to_its_client_id_is_not_imported(client_id: str) -> None:
    imported = read([client("press-7", clientid=client_id)], [])
    assert not imported.document.users
    assert [note.place for note in imported.notes if note.kind is NoteKind.LEFT_OUT] == ["clients[0]"]


def test_rules_become_permissions() -> None:
    acls = ("allow publishClientSend a/# 0", "allow subscribePattern a/# 0", "allow subscribeLiteral b 0")
    imported = read([client("press-7", "press")], [role("press", *acls, textdescription="Presses")])
    assert role_of(imported, "press") == ["read b", "readWrite a/#"]
    assert imported.document.roles[0].description == "Presses"
    assert imported.document.users[0].roles == ("press",)
    assert not found(imported.notes)


def test_groups_give_their_roles_to_their_members() -> None:
    config = {"groups": [group("night", ["press"], {"press-7": 0})]}
    imported = read([client("press-7", "own")], [role("press"), role("own")], **config)
    assert imported.document.users[0].roles == ("own", "press")


@pytest.mark.parametrize("name", ["admin", "minimum-access", "with a space", "ä", "x" * 65])
def test_role_that_cannot_keep_its_name_gets_another(name: str) -> None:
    imported = read([client("press-7", name)], [role(name)])
    (given,) = imported.document.users[0].roles
    assert given.startswith("dynsec-")
    assert [note.place for note in imported.notes if note.kind is NoteKind.ATTENTION] == ["roles[0]"]


def test_default_access_becomes_a_role_of_every_client() -> None:
    allowed = defaults("publishClientSend", "publishClientReceive", "subscribe", "unsubscribe")
    imported = read([client("press-7")], [], defaultACLAccess=allowed)
    assert role_of(imported, "dynsec-default") == ["readWrite #"]
    assert imported.document.users[0].roles == ("dynsec-default",)
    assert found(imported.notes) == {(question, "$") for question in Question if question is not Question.CONNECT}


@pytest.mark.parametrize(
    "acls",
    [
        ("deny publishClientSend a/b 5", "allow publishClientSend a/# 0"),  # deny before allow
        ("allow publishClientSend a/b 5", "deny publishClientSend # 0"),  # ends the list, has no effect
        ("allow publishClientSend a/# 5", "deny publishClientSend b/# 0"),  # no topic is in both
        ("deny publishClientSend a/# 9", "allow publishClientSend a/b 5", "deny publishClientSend a/b 0"),
        ("allow publishClientSend a/b 5", "deny subscribePattern a/b 0"),  # not about the same
    ],
)
def test_order_without_effect_is_not_announced(acls: tuple[str, ...]) -> None:
    assert not found(read([client("press-7", "press")], [role("press", *acls)]).notes)


@pytest.mark.parametrize(
    ("acls", "announced"),
    [
        (
            ("allow publishClientSend a/+ 5", "deny publishClientSend +/b 3", "allow publishClientSend # 0"),
            {(Question.PUBLISH, "a/b")},
        ),
        (
            ("allow subscribePattern a/# 5", "deny subscribePattern a/b 9"),
            {(Question.RECEIVE, "a/b")},
        ),
        (("allow subscribeLiteral a/+ 0",), {(Question.SUBSCRIBE, "a/+")}),
        (("allow subscribePattern # 0", "deny subscribeLiteral # 5"), {(Question.SUBSCRIBE, "#")}),
        (("allow subscribePattern a/# 0", "deny publishClientReceive a/b/# 0"), {(Question.SUBSCRIBE, "a/b/#")}),
    ],
)
def test_rules_that_decide_differently_are_announced_with_their_topics(
    acls: tuple[str, ...], announced: set[tuple[Question, str]]
) -> None:
    # A hash of 2.1, for which fewer differences are announced.
    salt, digest = pbkdf2("press-7")
    named = client("press-7", "press", encoded_password=f"$7$101${salt}${digest}")
    assert found(read([named], [role("press", *acls)]).notes) == announced


def test_difference_of_two_roles_concerns_only_users_with_both() -> None:
    roles = [role("one", "allow publishClientSend a/b 0"), role("two", "deny publishClientSend a/# 0")]
    roles.append(role("three", "allow publishClientSend a/c 0"))
    clients = [
        client("press-1", "one"),
        client("press-2", "one:5", "two:1", "three:0"),
        client("press-3", "two:2", "one:1"),
    ]
    (note,) = (note for note in read(clients, roles).notes if note.question is Question.PUBLISH)
    assert note.users == ("press-2",)
    assert (note.topic_filter, note.place) == ("a/b", "")
    assert note.message == (
        "publish a/b: dynamic-security allows it by roles[0].acls[0] (allow publishClientSend a/b, priority 0);"
        " authsvc denies it by the permission `deny write a/#` of the role two"
    )


def test_difference_for_one_username_only_is_found() -> None:
    acls = ("allow publishClientSend devices/%u/x 5", "deny publishClientSend devices/boss/# 3")
    others = "allow publishClientSend devices/boss/y 0"
    salt, digest = pbkdf2("boss")
    clients = [client(name, "own", encoded_password=f"$7$101${salt}${digest}") for name in ("press-7", "boss")]
    notes = read(clients, [role("own", *acls, others)]).notes
    (note,) = (note for note in notes if note.question is Question.PUBLISH)
    assert (note.users, note.topic_filter) == (("boss",), "devices/boss/x")


@pytest.mark.parametrize(
    ("item", "place"),
    [
        ({"clients": [{"password": "x"}]}, "clients[0]"),
        ({"clients": [client("press-7", "unknown")]}, "clients[0].roles[0]"),
        ({"clients": [client("press-7"), client("press-7")]}, "clients[1]"),
        ({"clients": [client("press-7", iterations=None)]}, "clients[0]"),
        ({"clients": [client("press-7", salt="!")]}, "clients[0]"),
        ({"clients": ["press-7"]}, "clients[0]"),
        ({"roles": [role("press", "allow publishSend a 0")]}, "roles[0].acls[0]"),
        ({"roles": [role("press", "allow publishClientSend a/#/b 0")]}, "roles[0].acls[0]"),
        ({"roles": [role("press", "deny unsubscribePattern a 0")]}, "roles[0].acls[0]"),
        ({"anonymousGroup": "guests"}, "anonymousGroup"),
        ({"defaultACLAccess": defaults("publishClientReceive")}, "defaultACLAccess.unsubscribe"),
    ],
)
def test_what_cannot_be_expressed_is_named(item: dict[str, Any], place: str) -> None:
    notes = read(**{"clients": [], "roles": [], **item}).notes
    (note,) = (note for note in notes if note.kind is NoteKind.LEFT_OUT)
    assert note.place == place
    assert pbkdf2("press-7")[1] not in note.message


def rules(allow: bool, acl_type: str, topic: str, count: int) -> list[dict[str, Any]]:
    """Return rules for topics in which NUMBER is replaced."""
    topics = (topic.replace("NUMBER", str(number)) for number in range(count))
    return [{"acltype": acl_type, "topic": each, "allow": allow, "priority": int(allow)} for each in topics]


@pytest.mark.parametrize("in_one_role", [True, False])
@pytest.mark.parametrize(
    ("subscribing", "receiving", "count", "reason"),
    [
        ("aNUMBER/+", "+/bNUMBER", 110, "overlap in more than 10,000 topic filters"),
        ("aNUMBER/x", "bNUMBER/x", 1500, "more than 2,000,000 pairs"),
    ],
)
def test_rules_that_become_too_many_permissions_are_refused(
    subscribing: str, receiving: str, count: int, reason: str, in_one_role: bool
) -> None:
    subscribes = rules(True, "subscribePattern", subscribing, count)
    receives = rules(True, "publishClientReceive", receiving, count)
    roles = [role("one", acls=subscribes), role("two", acls=receives)]
    if in_one_role:
        roles = [role("one", acls=subscribes + receives), role("two")]
    with pytest.raises(InvalidInput, match=reason):
        read([client("press-7", "one", "two")], roles, defaultACLAccess=defaults("unsubscribe"))


def test_clients_with_too_many_rules_are_refused() -> None:
    roles = [role("big", acls=rules(True, "publishClientSend", "a/NUMBER", 2500))]
    roles += [role(f"own-{number}") for number in range(2001)]
    with pytest.raises(InvalidInput, match="its clients have more than 5,000,000 rules"):
        read([client(f"press-{number}", "big", f"own-{number}") for number in range(2001)], roles)


@pytest.mark.slow
def test_deny_rules_are_kept_when_they_are_too_many_to_compare() -> None:
    acls = rules(True, "publishClientSend", "a/NUMBER", 1500) + rules(False, "publishClientSend", "b/NUMBER", 1500)
    for acl in acls:
        acl["priority"] = 1 - acl["priority"]  # deny first
    imported = read([client("press-7", "press")], [role("press", acls=acls)])
    denied = [permission for permission in role_of(imported, "press") if permission.startswith("deny")]
    assert 0 < len(denied) < 1500
    found = [note.message for note in imported.notes if note.kind is NoteKind.ATTENTION]
    assert found[0].startswith("only 2,000,000 pairs of rules were compared")
    assert found[1].startswith("the rules overlap too often to compare all pairs of them")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"clients": 1}', b"\xff", b"[" * 100_000])
def test_another_file_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidInput) as refused:
        dynsec.read(content)
    assert refused.value.errors[0].field == "file"


def test_priorities_that_are_no_numbers_are_ignored() -> None:
    text = '{"clients": [], "roles": [{"rolename": "a", "acls": [{"acltype": "publishClientSend", "topic": "a", "allow": true, "priority": NaN}]}]}'  # noqa: E501
    assert role_of(dynsec.read(text.encode()), "a") == ["write a"]
