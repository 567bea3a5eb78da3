"""Mosquitto's password_file and acl_file as users and roles; each line that cannot be used is named."""

from __future__ import annotations

import pytest

from authsvc.credentials.password_hashes import parse
from authsvc.importing import mosquitto
from authsvc.importing.notes import Note, NoteKind, Question
from authsvc.policy.snapshot import GrantType
from tests.importing.asking import password_of, pbkdf2

SALT, HASH = pbkdf2("press-7")
PRESS_7 = f"press-7:$7$101${SALT}${HASH}\n"


def left_out(notes: list[Note]) -> dict[str, str]:
    return {note.place: note.message for note in notes if note.kind is NoteKind.LEFT_OUT}


def differences(notes: list[Note]) -> set[tuple[Question | None, str | None, tuple[str, ...]]]:
    return {(note.question, note.topic_filter, note.users) for note in notes if note.kind is NoteKind.DIFFERS}


def permissions_of(acl: str, username: str = "press-7") -> list[str]:
    imported = mosquitto.read(PRESS_7.encode(), acl.encode())
    (user,) = (user for user in imported.document.users if user.username == username)
    return [str(permission) for permission in user.permissions]


def test_hash_is_kept_and_right_for_the_same_password() -> None:
    (user,) = mosquitto.read(PRESS_7.encode(), None).document.users
    assert user.username == "press-7"
    assert parse(user.password_hash or "").verify(password_of("press-7").encode())
    assert user.grant_types == {GrantType.PASSWORD}


def test_comments_empty_lines_and_white_space_are_as_in_mosquitto() -> None:
    text = f"# a comment\n\n press-7 : $7$101${SALT}${HASH} \r\n"
    assert [user.username for user in mosquitto.read(text.encode(), None).document.users] == ["press-7"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("press-8", "there is no :"),
        ("press-8:plain-secret", "press-8 is not imported: this is not a password hash; if the file has passwords"),
        ("press-8:$7$99999999$YWJj$YWJj", "should have 64"),
        (f"press-8:$7$99999999${SALT}${HASH}", "the limit is 5 s"),
        (f"press-7:$7$1${SALT}${HASH}", "press-7 has an earlier line"),
        (f"a\x01b:$7$1${SALT}${HASH}", "the username"),
    ],
)
def test_line_that_cannot_be_used_is_named_and_no_password_is_repeated(line: str, reason: str) -> None:
    imported = mosquitto.read(f"{PRESS_7}{line}\n".encode(), None)
    assert [user.username for user in imported.document.users] == ["press-7"]
    (found,) = left_out(imported.notes).items()
    assert found[0] == "password_file line 2"
    assert reason in found[1]
    assert "plain-secret" not in repr(imported.notes)
    assert HASH[:20] not in repr(imported)


def test_line_that_is_not_utf_8_is_named() -> None:
    imported = mosquitto.read(b"\xff\xfe:x\n" + PRESS_7.encode(), None)
    assert left_out(imported.notes) == {"password_file line 1": "the line is not valid UTF-8"}
    assert len(imported.document.users) == 1


@pytest.mark.parametrize(
    ("line", "permission"),
    [
        ("topic read line/+/state", "read line/+/state"),
        ("topic write line/#", "write line/#"),
        ("topic readwrite $dev/#", "readWrite $dev/#"),
        ("topic line/7", "readWrite line/7"),
        ("topic deny line/7", "deny readWrite line/7"),
        ("  topic   read   with a space ", "read with a space"),
    ],
)
def test_topic_line_becomes_a_permission_of_its_user(line: str, permission: str) -> None:
    assert permissions_of(f"user press-7\n# a comment\n\n{line}\n") == [permission]


def test_read_and_write_of_one_filter_are_one_permission() -> None:
    assert permissions_of("user press-7\ntopic read a\ntopic write a\n") == ["readWrite a"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("topic reed a", "the access must be one of read, write, readwrite, deny"),
        ("topic subscribe a", "the access must be one of"),
        ("topics read a", "the line is not"),
        ("topic", "the line is not"),
        ("topic read a/#/b", "# must be the last level"),
        ("topic read devices/%u/x", "plain text"),
        ("pattern read devices/x%u", "whole levels"),
    ],
)
def test_rule_that_cannot_be_expressed_is_named(line: str, reason: str) -> None:
    imported = mosquitto.read(PRESS_7.encode(), f"user press-7\n{line}\ntopic read a\n".encode())
    assert [str(each) for each in imported.document.users[0].permissions] == ["read a"]
    (found,) = left_out(imported.notes).items()
    assert found[0] == "acl_file line 2"
    assert reason in found[1]


def test_rules_of_anonymous_clients_are_left_out() -> None:
    imported = mosquitto.read(PRESS_7.encode(), b"topic read news/#\nuser press-7\n")
    assert "without a username" in left_out(imported.notes)["acl_file line 1"]
    assert not imported.document.users[0].permissions


def test_patterns_become_a_role_of_every_user() -> None:
    acl = b"user press-7\npattern readwrite devices/%u/#\npattern deny devices/%u/locked\n"
    imported = mosquitto.read(PRESS_7.encode() + PRESS_7.replace("7:", "8:").encode(), acl)
    (role,) = imported.document.roles
    assert {str(each) for each in role.permissions} == {"readWrite devices/%u/#", "deny readWrite devices/%u/locked"}
    assert [user.roles for user in imported.document.users] == [(role.name,)] * 2


def test_user_with_rules_only_can_log_in_with_a_certificate() -> None:
    imported = mosquitto.read(PRESS_7.encode(), b"user by-certificate\ntopic read a\n")
    (_, user) = imported.document.users
    assert (user.username, user.password_hash) == ("by-certificate", None)
    assert GrantType.CERTIFICATE in user.grant_types


def test_user_whose_password_line_was_refused_is_not_made_by_its_rules() -> None:
    imported = mosquitto.read(b"press-7:plain\n", b"user press-7\ntopic read a\n")
    assert not imported.document.users
    assert left_out(imported.notes).keys() == {"password_file line 1", "acl_file line 2"}


def test_rule_of_a_user_before_a_denying_pattern_is_announced_with_its_topics() -> None:
    acl = b"user press-7\ntopic write line/+/stop\npattern deny line/7/#\n"
    imported = mosquitto.read(PRESS_7.encode(), acl)
    assert (Question.PUBLISH, "line/7/stop", ("press-7",)) in differences(imported.notes)
    assert (Question.RECEIVE, "line/7/stop", ("press-7",)) not in differences(imported.notes)


def test_deny_rule_that_decides_the_same_is_not_announced() -> None:
    # The user's own deny rule comes before its allow rule there too; the pattern overlaps nothing else.
    acl = b"user press-7\ntopic write line/#\ntopic deny line/7/#\npattern deny line/7/#\npattern read devices/%u\n"
    imported = mosquitto.read(PRESS_7.encode(), acl)
    assert not [topic_filter for _, topic_filter, _ in differences(imported.notes) if topic_filter == "line/7/#"]


def test_missing_acl_file_is_announced() -> None:
    assert (None, None, ()) in differences(mosquitto.read(PRESS_7.encode(), None).notes)
