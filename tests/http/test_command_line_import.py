"""`authsvc import`: what it changes, prints and refuses."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from authsvc.accounts import roles, users
from authsvc.activity import audit
from authsvc.policy.actors import Actor, Via
from authsvc.policy.permissions import EVERY_RIGHT, Permission
from authsvc.policy.snapshot import GrantType
from tests.actors import HASHER
from tests.http.console import error_of, stdout_of
from tests.importing.asking import pbkdf2
from tests.importing.systems import client, role

if TYPE_CHECKING:
    from pathlib import Path

    from tests.http.console import Console

OPERATOR = Actor("operator", Via.COMMAND)
SALT, HASH = pbkdf2("press-7")
ACL = "user press-7\ntopic readwrite line/7/#\ntopic reed x\npattern read devices/%u/#\n"


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    """The arguments that name a password_file with a line in plain text, and an acl_file with a wrong line."""
    (tmp_path / "passwords").write_text(f"press-7:$7$101${SALT}${HASH}\npress-8:plain-secret\n")
    (tmp_path / "acl").write_text(ACL)
    return ("mosquitto", "--passwords", f"{tmp_path}/passwords", "--acl", f"{tmp_path}/acl")


def dynsec(tmp_path: Path, *clients: dict[str, Any], names: tuple[str, ...] = ("operators",)) -> str:
    """Return the path of a dynamic-security file with these clients and roles."""
    acls = [role(name, "allow publishClientSend a/# 0") for name in names]
    (tmp_path / "dynsec.json").write_text(json.dumps({"clients": clients, "roles": acls}))
    return f"{tmp_path}/dynsec.json"


def test_dry_run_shows_changes_and_notes_and_changes_nothing(console: Console, files: tuple[str, ...]) -> None:
    printed = stdout_of(console.command("import", *files, "--dry-run"))
    assert "+ user press-7\n" in printed
    assert "permissions: + readWrite line/7/#\n" in printed
    assert "password_file line 2: press-8 is not imported" in printed
    assert "acl_file line 3: the access must be one of" in printed
    assert "Mosquitto accepts every SUBSCRIBE" in printed
    assert "plain-secret" not in printed
    assert HASH not in printed
    assert "dry run: nothing was written" in printed
    assert not users.exists("press-7")


def test_import_is_in_force_and_can_be_repeated(console: Console, files: tuple[str, ...]) -> None:
    assert "2 created" in stdout_of(console.command("import", *files))
    record = users.get("press-7")
    assert ([str(each) for each in record.permissions], record.roles) == (
        ["readWrite line/7/#"],
        ("mosquitto-patterns",),
    )
    assert record.has_password
    events = audit.events(1, 10, audit.AuditFilter(target="user:press-7")).items
    assert [event.action for event in events] == ["user.create"]

    again = json.loads(stdout_of(console.command("import", *files, "--json")))
    assert not again["changes"]
    assert again["counts"]["unchanged"] == 2


def test_existing_user_is_left_alone_without_update(console: Console, files: tuple[str, ...]) -> None:
    stdout_of(console.command("users", "create", "press-7", "--no-password", "--permission", "read mine"))
    printed = stdout_of(console.command("import", *files))
    assert "! user press-7: exists and differs\n" in printed
    assert [str(each) for each in users.get("press-7").permissions] == ["read mine"]

    assert "~ user press-7\n" in stdout_of(console.command("import", *files, "--update"))
    assert [str(each) for each in users.get("press-7").permissions] == ["readWrite line/7/#"]
    assert users.get("press-7").has_password


def test_update_keeps_what_the_files_do_not_say(console: Console, files: tuple[str, ...], tmp_path: Path) -> None:
    stdout_of(console.command("import", *files))
    roles.create(OPERATOR, "night", "", [])
    of_mine: users.UserChanges = {
        "enabled": False,
        "client_ids": ("%u",),
        "roles": (*users.get("press-7").roles, "night"),
        "grant_types": frozenset(GrantType),
        "permissions": (Permission.parse("read mine"),),
    }
    kept = users.change(OPERATOR, "press-7", of_mine, HASHER)
    for kind in ("mosquitto", "go-auth"):
        assert "1 unchanged" in stdout_of(console.command("import", kind, "--passwords", files[2], "--update"))
    assert users.get("press-7") == kept

    stdout_of(console.command("import", "dynsec", dynsec(tmp_path, client("press-7"), names=()), "--update"))
    stdout_of(console.command("import", *files, "--update"))
    assert "2 unchanged" in stdout_of(console.command("import", "mosquitto", "--acl", files[4], "--update"))
    again = users.get("press-7")
    assert (again.enabled, again.client_ids, again.roles) == (False, ("%u",), ("mosquitto-patterns", "night"))
    assert again.grant_types == frozenset(GrantType)
    assert [str(each) for each in again.permissions] == ["readWrite line/7/#"]


def test_user_of_a_directory_is_left_alone_with_or_without_update(console: Console, files: tuple[str, ...]) -> None:
    users.create_with_hash(OPERATOR, "press-7", {}, None, users.Origin.LDAP)
    before = users.get("press-7")
    assert "! user press-7: exists and differs\n" in stdout_of(console.command("import", *files))
    printed = stdout_of(console.command("import", *files, "--update"))
    assert "press-7 exists and signs in at its provider or directory, so it is left alone" in printed
    assert users.get("press-7") == before


def test_json_has_every_note_with_its_place(console: Console, files: tuple[str, ...]) -> None:
    shown = json.loads(stdout_of(console.command("import", *files, "--dry-run", "--json")))
    assert shown["dryRun"] is True
    by_kind = {kind: [note["place"] for note in shown["notes"] if note["kind"] == kind] for kind in ("leftOut",)}
    assert by_kind["leftOut"] == ["password_file line 2", "acl_file line 3"]
    assert all(note["message"] for note in shown["notes"])


def test_administrator_is_left_alone_even_with_update(console: Console, tmp_path: Path) -> None:
    before = users.get("admin")
    file = dynsec(tmp_path, client("admin", "operators"), client("press-7", "operators"))
    printed = stdout_of(console.command("import", "dynsec", file, "--update"))
    assert "admin exists and has rights over this service, so it is left alone" in printed
    assert users.get("admin") == before
    assert users.exists("press-7")


def test_role_that_has_rights_over_this_service_is_not_given_to_imported_users(
    console: Console, tmp_path: Path
) -> None:
    roles.create(OPERATOR, "operators", "", [EVERY_RIGHT])
    refused = error_of(console.command("import", "dynsec", dynsec(tmp_path, client("press-7", "operators"))))
    assert refused.startswith("the role operators exists and has rights over this service")
    assert not users.exists("press-7")


def test_existing_role_is_left_alone_with_a_note(console: Console, tmp_path: Path) -> None:
    roles.create(OPERATOR, "operators", "mine", [])
    printed = stdout_of(console.command("import", "dynsec", dynsec(tmp_path, client("press-7", "operators"))))
    assert "the role operators exists and differs; it is left alone, and imported users get it as it is" in printed
    assert roles.get("operators").description == "mine"


def test_tables_of_go_auth_are_imported(console: Console, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "go-auth.db")
    connection.execute("CREATE TABLE users AS SELECT 'press-7' AS name, ? AS hash", (f"$7$101${SALT}${HASH}",))
    connection.execute("CREATE TABLE acls AS SELECT 'press-7' AS name, 'devices/%u/#' AS topic, 3 AS rw")
    connection.commit()
    connection.close()
    url = f"sqlite:///{tmp_path}/go-auth.db"
    queries = ("--user-query", "SELECT * FROM users", "--acl-query", "SELECT * FROM acls")
    stdout_of(console.command("import", "go-auth", "--database", url, *queries))
    assert [str(each) for each in users.get("press-7").permissions] == ["readWrite devices/%u/#"]

    wrong = console.command("import", "go-auth", "--database", url, "--user-query", "SELECT 1 FROM elsewhere")
    assert error_of(wrong) == "--user-query: the database refuses it: no such table: elsewhere"


@pytest.mark.parametrize(
    "arguments",
    [
        ("mosquitto",),
        ("go-auth",),
        ("go-auth", "--database", "sqlite:///x.db"),
        ("go-auth", "--acl", __file__, "--database", "sqlite:///x.db", "--user-query", "SELECT 1"),
        ("dynsec", "/nowhere.json"),
    ],
)
def test_missing_arguments_are_a_usage_error(console: Console, arguments: tuple[str, ...]) -> None:
    assert console.command("import", *arguments).returncode == 2


def test_another_file_is_refused(console: Console) -> None:
    assert error_of(console.command("import", "dynsec", __file__)) == "FILE: is not JSON"
