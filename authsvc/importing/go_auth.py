"""go-auth's files, or the rows of its tables, as users and roles of authsvc.

Source: backends/files and backends/postgres.go of mosquitto-go-auth 3.0.0. Any deny rule wins there too. What differs
is how a requested topic filter is compared with a rule.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from authsvc.credentials.usernames import special_characters
from authsvc.importing.imported import Imported, entry, merged, mqtt
from authsvc.importing.notes import DOLLAR_TOPICS, Note, NoteKind, Question, attention, left_out
from authsvc.importing.text_files import (
    PASSWORDS,
    has_placeholder,
    is_usable_name,
    read_acl,
    read_passwords,
    rule_problem,
    usable_hash,
)
from authsvc.policy import topics
from authsvc.policy.permissions import Effect
from authsvc.policy_file.document import PolicyDocument, PolicyRole, PolicyUser

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from authsvc.policy.permissions import Permission

EVERYONE_ROLE = "go-auth-everyone"
_READ, _WRITE, _SUBSCRIBE = 1, 2, 4
_USER_COLUMNS, _ACL_COLUMNS = (2, 3), 3
_ACCESSES = {_READ: "read", _WRITE: "write", _READ | _WRITE: "readWrite"}


@dataclass(slots=True)
class _Rules:
    """The rules of one user, or of everyone; `subscriptions` are filters with their places, not yet allowed."""

    permissions: list[Permission] = field(default_factory=list)
    subscriptions: list[tuple[str, str]] = field(default_factory=list)

    def add(self, access: str, topic: str, place: str) -> None:
        if access == "subscribe":
            self.subscriptions.append((topic, place))
        else:
            self.permissions.append(mqtt(access, topic))


def read_files(passwords: bytes | None, acl: bytes | None, *, salt_is_text: bool = False) -> Imported:
    """Return what the files of the files backend say; one that is None was not given.

    `salt_is_text` stands for go-auth's option `hasher_salt_encoding utf-8`.
    """
    notes: list[Note] = []
    hashes = read_passwords(passwords or b"", notes, salt_is_text=salt_is_text)
    refused = {username for note in notes for username in note.users} - hashes.keys()
    own: dict[str, _Rules] = defaultdict(_Rules)
    everyone = _Rules()
    places: dict[str, str] = {}
    for line in read_acl(acl or b"", notes, with_subscribe=True):
        problem = rule_problem(line.topic)
        if problem:
            notes.append(left_out(line.place, problem))
        elif line.is_pattern or line.username is None:
            everyone.add(line.access, line.topic, line.place)
        elif has_placeholder(line.topic):
            notes.append(left_out(line.place, "%u and %c are plain text in the rules of a user"))
        else:
            places.setdefault(line.username, line.place)
            own[line.username].add(line.access, line.topic, line.place)
    for username, place in places.items():
        if username in hashes:
            continue
        reason = "who is not imported" if username in refused else f"who has no line in the {PASSWORDS}"
        notes.append(left_out(place, f"the rules of {username}, {reason}", username))
    general = _accesses_to_all(everyone)
    accesses = {name: general | _accesses_to_all(own[name]) if name in own else general for name in hashes}
    readers = tuple(name for name, found in accesses.items() if found in ({"read"}, {"read", "write"}))
    if readers:
        reason = "go-auth refuses a SUBSCRIBE to # with `read #`, and requires `readwrite #`; authsvc allows it"
        notes.append(Note(NoteKind.DIFFERS, "", reason, readers, Question.SUBSCRIBE, "#"))
    return _imported(hashes, own, everyone, notes, with_acl=acl is not None)


def _accesses_to_all(rules: _Rules) -> set[str]:
    """Return the accesses that these rules allow to `#`: `read`, `write`, `readWrite` and `subscribe`."""
    found = {each.operation.value for each in rules.permissions if each.resource == "#" and each.effect is Effect.ALLOW}
    return found | {"subscribe" for topic, _ in rules.subscriptions if topic == "#"}


def read_rows(
    user_rows: Iterable[Sequence[Any]], acl_rows: Iterable[Sequence[Any]] | None, *, salt_is_text: bool = False
) -> Imported:
    """Return what the rows of go-auth's tables say.

    `user_rows` are (username, hash) or (username, hash, superuser); `acl_rows` are (username, topic, rw), where rw is a
    sum of 1 read, 2 write and 4 subscribe. They are None if go-auth had no query for them.
    """
    notes: list[Note] = []
    own: dict[str, _Rules] = defaultdict(_Rules)
    hashes, superusers = _users_of_rows(user_rows, notes, salt_is_text=salt_is_text)
    for username in superusers:
        own[username].permissions.append(mqtt("readWrite", "#"))
    if superusers:
        reason = "superusers get the permission `readWrite #`, which does not reach topics that begin with $"
        notes += (
            Note(NoteKind.DIFFERS, "", reason, superusers, question, DOLLAR_TOPICS)
            for question in (Question.PUBLISH, Question.SUBSCRIBE, Question.RECEIVE)
        )
    accesses: dict[tuple[str, str], int] = defaultdict(int)
    places: dict[tuple[str, str], str] = {}
    for number, row in enumerate(acl_rows or (), start=1):
        place = f"row {number} of the acl query"
        problem = _problem_of_acl(row, hashes)
        if problem:
            notes.append(left_out(place, problem))
        else:
            username, topic, bits = row
            accesses[username, topic] |= bits
            places.setdefault((username, topic), place)
    for (username, topic), bits in accesses.items():
        if bits & _SUBSCRIBE:
            own[username].subscriptions.append((topic, places[username, topic]))
        if bits & ~_SUBSCRIBE:
            own[username].permissions.append(mqtt(_ACCESSES[bits & ~_SUBSCRIBE], topic))
    readers = {username: None for (username, _), bits in accesses.items() if bits & (_READ | _SUBSCRIBE) == _READ}
    for username in superusers:
        readers.pop(username, None)
    if readers:
        reason = "go-auth refuses a SUBSCRIBE to a topic with rw 1 (read) and without 4 (subscribe); authsvc allows it"
        notes.append(Note(NoteKind.DIFFERS, "", reason, tuple(readers), Question.SUBSCRIBE))
    return _imported(hashes, own, _Rules(), notes, with_acl=acl_rows is not None)


def _users_of_rows(
    rows: Iterable[Sequence[Any]], notes: list[Note], *, salt_is_text: bool
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the stored form of each user's hash, and the superusers."""
    hashes: dict[str, str] = {}
    superusers = []
    for number, row in enumerate(rows, start=1):
        place = f"row {number} of the user query"
        if len(row) not in _USER_COLUMNS or not isinstance(row[0], str) or not isinstance(row[1], str):
            notes.append(left_out(place, "it is not a username and a password hash, perhaps with a superuser column"))
            continue
        username, text, is_superuser = row if len(row) == max(_USER_COLUMNS) else (*row, False)
        if username in hashes:
            notes.append(left_out(place, f"{username} has an earlier row, which is imported", username))
        elif is_usable_name(username, place, notes):
            stored = usable_hash(username, text.strip(), place, notes, salt_is_text=salt_is_text)
            if stored:
                hashes[username] = stored
                if not isinstance(is_superuser, int | None):
                    reason = "superuser must be a number or true/false; imported without it"
                    notes.append(left_out(place, f"{username}: {reason}", username))
                elif is_superuser and is_superuser > 0:
                    superusers.append(username)
    return hashes, tuple(superusers)


def _problem_of_acl(row: Sequence[Any], hashes: dict[str, str]) -> str:
    """Return why a row of the acl query cannot be imported; empty if it can."""
    if len(row) != _ACL_COLUMNS or not isinstance(row[0], str) or not isinstance(row[1], str):
        return "it is not a username, a topic and rw"
    if not isinstance(row[2], int) or not 0 < row[2] <= _READ | _WRITE | _SUBSCRIBE:
        return "rw must be a sum of 1 read, 2 write and 4 subscribe"
    return rule_problem(row[1]) if row[0] in hashes else f"a rule of {row[0]}, who is not imported"


def _imported(
    hashes: dict[str, str], own: dict[str, _Rules], everyone: _Rules, notes: list[Note], *, with_acl: bool
) -> Imported:
    for rules in (everyone, *own.values()):
        notes += _without_reading(rules, everyone)
    roles: tuple[PolicyRole, ...] = ()
    if everyone.permissions:
        description = "The rules of go-auth's acl file that applied to every user"
        roles = (
            entry(
                PolicyRole,
                name=EVERYONE_ROLE,
                description=description,
                permissions=merged(everyone.permissions),
            ),
        )
        notes.append(attention("", f"some rules apply to all users: give new users the role {EVERYONE_ROLE}"))
    users = []
    for username, stored in hashes.items():
        said: dict[str, Any] = {"password_hash": stored}
        if with_acl:
            said["roles"] = tuple(role.name for role in roles)
        if with_acl or username in own:
            said["permissions"] = merged(own[username].permissions) if username in own else ()
        users.append(entry(PolicyUser, username=username, **said))
    notes += _odd_names(hashes, own, everyone)
    if with_acl:
        notes += _differences([permission for rules in (everyone, *own.values()) for permission in rules.permissions])
    else:
        notes.append(Note(NoteKind.DIFFERS, "", "without rules go-auth allows everything; authsvc allows nothing"))
    return Imported(PolicyDocument(roles=roles, users=tuple(users)), notes)


def _without_reading(rules: _Rules, everyone: _Rules) -> Iterator[Note]:
    """Yield a note for each filter that a client may subscribe to but not read: authsvc has no such permission."""
    readable = {each.resource for each in (*rules.permissions, *everyone.permissions) if each.operation != "write"}
    for topic, place in rules.subscriptions:
        if topic not in readable:
            yield left_out(place, f"subscribing to {topic} without reading it cannot be expressed")


def _odd_names(hashes: Iterable[str], own: dict[str, _Rules], everyone: _Rules) -> Iterator[Note]:
    """Yield notes about the rules with %u that apply to a user whose name contains + or # or /."""
    odd = [username for username in hashes if special_characters(username)]
    concerned: dict[str, list[str]] = defaultdict(list)
    for username in odd:
        rules = (*everyone.permissions, *(own[username].permissions if username in own else ()))
        for topic in dict.fromkeys(each.resource for each in rules):
            if "%u" in topics.split(topic):
                concerned[topic].append(username)
    for topic, usernames in concerned.items():
        message = "go-auth puts a username with + or # or / in place of %u as text; in authsvc it matches nothing"
        for question in (Question.PUBLISH, Question.SUBSCRIBE, Question.RECEIVE):
            yield Note(NoteKind.DIFFERS, "", f"{question} {topic}: {message}", tuple(usernames), question, topic)


def _differences(given: list[Permission]) -> Iterator[Note]:
    message = (
        "go-auth compares a requested topic filter with a rule as if it was a topic, so the rule a/+ allows a SUBSCRIBE"
        " to a/#; authsvc refuses a SUBSCRIBE unless one permission covers the topic filter"
    )
    yield Note(NoteKind.DIFFERS, "", message, (), Question.SUBSCRIBE)
    if any(not {"#", "+"}.isdisjoint(topics.split(permission.resource)[:1]) for permission in given):
        for question in (Question.PUBLISH, Question.RECEIVE):
            reason = "a rule that begins with # or + matches topics that begin with $ in go-auth, and not in authsvc"
            yield Note(NoteKind.DIFFERS, "", reason, (), question, DOLLAR_TOPICS)
