"""Mosquitto's password_file and acl_file as users and roles of authsvc.

Source: src/security_default.c of Mosquitto 2.0.11, plugins/acl-file of 2.1.2. For publishing and delivery Mosquitto
asks the rules of the user, deny before allow, and only if none matches the patterns, deny before allow. So a rule of
the user can allow what a pattern denies; here any deny rule wins.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from authsvc.importing.imported import Imported, entry, merged, mqtt
from authsvc.importing.notes import Note, NoteKind, Question, attention, left_out
from authsvc.importing.text_files import (
    ACL,
    PASSWORDS,
    AclLine,
    has_placeholder,
    is_usable_name,
    read_acl,
    read_passwords,
    rule_problem,
)
from authsvc.policy import topics
from authsvc.policy.snapshot import GrantType
from authsvc.policy.topics import Identity
from authsvc.policy_file.document import PolicyDocument, PolicyRole, PolicyUser

if TYPE_CHECKING:
    from collections.abc import Iterator

PATTERNS_ROLE = "mosquitto-patterns"
_QUESTIONS = {
    "read": (Question.RECEIVE,),
    "write": (Question.PUBLISH,),
    "readWrite": (Question.PUBLISH, Question.RECEIVE),
}
_NOBODY = Identity()


def read(passwords: bytes | None, acl: bytes | None) -> Imported:
    """Return what these files say. One that is None was not given."""
    notes: list[Note] = []
    hashes = read_passwords(passwords or b"", notes)
    refused = {username for note in notes for username in note.users} - hashes.keys()
    own: dict[str, list[AclLine]] = defaultdict(list)
    patterns: list[AclLine] = []
    for line in read_acl(acl or b"", notes):
        problem = rule_problem(line.topic)
        if problem:
            notes.append(left_out(line.place, problem))
        elif line.is_pattern:
            patterns.append(line)
        elif line.username is None:
            reason = "rules before the first `user` line are for clients without a username, and authsvc has none"
            notes.append(left_out(line.place, reason))
        elif has_placeholder(line.topic):
            reason = "%u and %c are plain text in a `topic` line, which authsvc cannot express"
            notes.append(left_out(line.place, reason))
        else:
            own[line.username].append(line)

    said: dict[str, dict[str, Any]] = {username: {"password_hash": stored} for username, stored in hashes.items()}
    others = {username: lines[0].place for username, lines in own.items() if username not in hashes}
    said |= _without_hash(others, refused, notes, with_passwords=passwords is not None)
    roles: tuple[PolicyRole, ...] = ()
    if patterns:
        description = "The pattern lines of the acl_file, which applied to every user"
        permissions = merged(mqtt(line.access, line.topic) for line in patterns)
        roles = (entry(PolicyRole, name=PATTERNS_ROLE, description=description, permissions=permissions),)
    for username, fields in said.items() if acl is not None else ():
        fields["roles"] = tuple(role.name for role in roles)
        fields["permissions"] = merged(mqtt(line.access, line.topic) for line in own.get(username, ()))
    users = tuple(entry(PolicyUser, username=username, **fields) for username, fields in said.items())
    notes += _differences([*said], own, patterns, with_acl=acl is not None)
    return Imported(PolicyDocument(roles=roles, users=users), notes)


def _without_hash(
    places: dict[str, str], refused: set[str], notes: list[Note], *, with_passwords: bool
) -> dict[str, dict[str, Any]]:
    """Return the known fields of the users that have rules at these places and no hash."""
    found: dict[str, dict[str, Any]] = {}
    for username, place in places.items():
        if not is_usable_name(username, place, notes):
            continue
        if username in refused:
            notes.append(left_out(place, f"the rules of {username}, who is not imported", username))
        elif with_passwords:
            reason = f"{username} has no line in the {PASSWORDS}, so it can log in with a certificate only"
            notes.append(attention(place, reason, username))
            found[username] = {"grant_types": frozenset(GrantType) - {GrantType.TOKEN}}
        else:
            reason = f"no {PASSWORDS} was given: {username} gets no password, or keeps its own if it exists"
            notes.append(attention(place, reason, username))
            found[username] = {}
    return found


def _differences(
    names: list[str], own: dict[str, list[AclLine]], patterns: list[AclLine], *, with_acl: bool
) -> Iterator[Note]:
    if not with_acl:
        yield Note(NoteKind.DIFFERS, "", f"without an {ACL} Mosquitto allows everything; authsvc allows nothing")
        return
    yield Note(
        NoteKind.DIFFERS,
        "",
        "Mosquitto accepts every SUBSCRIBE and filters messages at delivery; authsvc refuses a SUBSCRIBE unless one"
        " permission covers the topic filter",
        (),
        Question.SUBSCRIBE,
    )
    denied = [line for line in patterns if line.access == "deny"]
    for username in names if denied else ():
        yield from _allowed_before_patterns(username, own.get(username, []), denied)
    allowed = [line for line in patterns if line.access != "deny"]
    if allowed:
        yield attention(allowed[0].place, f"patterns apply to all users: give new users the role {PATTERNS_ROLE}")
    for placeholder, of_clients in (("%u", "username"), ("%c", "client id")):
        general = [line for line in allowed if placeholder not in topics.split(line.topic)]
        yield from _odd_names(names, general, of_clients, "+#", "Mosquitto applies no pattern; authsvc does")
        special = [line for line in patterns if placeholder in topics.split(line.topic)]
        message = f"Mosquitto 2.0 puts it in place of {placeholder}; in authsvc the pattern matches nothing"
        yield from _odd_names(names, special, of_clients, "/", message)


def _allowed_before_patterns(username: str, lines: list[AclLine], denied: list[AclLine]) -> Iterator[Note]:
    """Yield a note for each topic filter that a rule of the user allows and a pattern denies."""
    refused = [topics.split(line.topic) for line in lines if line.access == "deny"]
    deepest = max((len(topics.split(line.topic)) for line in (*lines, *denied)), default=0) + 1
    for pattern in denied:
        # Whatever client id a client chooses: + stands for it.
        levels = tuple("+" if level == "%c" else level for level in topics.split(pattern.topic))
        resolved = topics.resolve(levels, Identity(username))
        for line in lines:
            overlap = resolved and line.access != "deny" and topics.intersection(topics.split(line.topic), resolved)
            if overlap and not all(
                any(topics.levels_cover(rule, topic, _NOBODY) for rule in refused)
                for topic in topics.typical_topics(overlap, "\0", deepest)
            ):
                for question in _QUESTIONS[line.access]:
                    text = "/".join(overlap)
                    yield Note(
                        NoteKind.DIFFERS,
                        line.place,
                        f"{question} {text}: Mosquitto allows it by this line before it asks the pattern of line"
                        f" {pattern.number}, which denies it; authsvc denies it",
                        (username,),
                        question,
                        text,
                    )


def _odd_names(
    names: list[str], lines: list[AclLine], of_clients: str, characters: str, message: str
) -> Iterator[Note]:
    """Yield notes about clients whose username or client id contains one of these characters."""
    odd = tuple(name for name in names if not set(characters).isdisjoint(name))
    if lines and (odd or of_clients == "client id"):
        spelled = " or ".join(characters)
        for line in lines:
            for question in (Question.PUBLISH, Question.RECEIVE):
                yield Note(
                    NoteKind.DIFFERS,
                    line.place,
                    f"{question} {line.topic}: for a {of_clients} with {spelled} {message}",
                    odd if of_clients == "username" else (),
                    question,
                    line.topic,
                )
