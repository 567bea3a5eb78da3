"""Ids and names on the command line: beginnings of ids, usernames in place of ids, and suggestions for wrong names."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from authsvc.accounts import browser_sessions
from authsvc.accounts.sign_in.methods import How, Method
from authsvc.policy.actors import Actor, Via
from authsvc.storage.models import Token
from tests.http.console import error_of, stdout_of

if TYPE_CHECKING:
    from authsvc.settings import Settings
    from tests.http.console import Console


def _token(console: Console, username: str) -> str:
    made = json.loads(stdout_of(console.command("tokens", "create", username, "--json")))
    return str(made["id"])


@pytest.mark.parametrize("shown", [4, 12, 31, 32])
def test_beginning_of_an_id_names_a_token(console: Console, shown: int) -> None:
    token_id = _token(console, "charlie")
    assert stdout_of(console.command("tokens", "revoke", token_id[:shown])) == f"token {token_id} revoked\n"


def test_id_that_a_terminal_has_cut_names_a_token(console: Console) -> None:
    token_id = _token(console, "charlie")
    assert stdout_of(console.command("tokens", "revoke", f"{token_id[:9]}…")) == f"token {token_id} revoked\n"


def test_three_characters_of_an_id_are_too_few(console: Console) -> None:
    token_id = _token(console, "charlie")
    assert "at least 4 characters" in error_of(console.command("tokens", "revoke", token_id[:3]))


def test_username_names_its_only_token(console: Console) -> None:
    first = _token(console, "charlie")
    assert stdout_of(console.command("tokens", "revoke", "charlie")) == f"token {first} revoked\n"
    second, third = sorted((_token(console, "charlie"), _token(console, "charlie")))
    error = error_of(console.command("tokens", "revoke", "charlie"))
    assert error == f"'charlie' names several tokens; use the beginning of one id: {second[:12]}, {third[:12]}"


def test_beginning_of_two_ids_is_refused(console: Console) -> None:
    for last in "12":
        token_id = _token(console, "charlie")
        Token.update(id=f"{'ab' * 15}a{last}").where(Token.id == token_id).execute()
    assert "names several tokens" in error_of(console.command("tokens", "revoke", "abab"))
    assert "revoked" in stdout_of(console.command("tokens", "revoke", "ab" * 15 + "a2"))


def test_username_that_looks_like_the_beginning_of_another_id_is_refused(console: Console) -> None:
    token_id = _token(console, "charlie")
    stdout_of(console.command("users", "create", token_id[:6], "--no-password"))
    _token(console, token_id[:6])
    assert "names several tokens" in error_of(console.command("tokens", "revoke", token_id[:6]))
    assert token_id in stdout_of(console.command("tokens", "revoke", token_id))


def test_browser_session_is_listed_and_ended(console: Console, seeded: Settings) -> None:
    actor = Actor("charlie", Via.PAGE)
    browser_sessions.begin(actor, How(Method.PASSWORD), seeded.session_lifetime, "Firefox")
    browser_sessions.begin(Actor("alice", actor.via), How(Method.PASSWORD), seeded.session_lifetime, "Chromium")
    table = stdout_of(console.command("sessions", "list", "--user", "charlie")).splitlines()
    assert table[0].split()[:3] == ["ID", "USERNAME", "CREATED"]
    assert table[1].split()[-3:] == ["-", "no", "Firefox"]
    listed = json.loads(stdout_of(console.command("sessions", "list", "--json")))
    assert {item["username"] for item in listed["items"]} == {"charlie", "alice"}
    (alices,) = [item["id"] for item in listed["items"] if item["username"] == "alice"]
    ended = stdout_of(console.command("sessions", "delete", "charlie", alices[:8])).splitlines()
    assert ended[1] == f"session {alices} ended"
    assert json.loads(stdout_of(console.command("sessions", "list", "--json")))["total"] == 0
    assert error_of(console.command("sessions", "delete", "charlie")) == "no such session"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("users", "show", "bobb"), "no such user: bobb. Did you mean bob?"),
        (("users", "delete", "zzz"), "no such user: zzz"),
        (("tokens", "create", "charli"), "no such user: charli. Did you mean charlie or carol?"),
        (("roles", "show", "lien"), "no such role: lien. Did you mean line?"),
        (("users", "change", "bob", "--add-role", "lin"), "roles[1]: no such role: lin. Did you mean line?"),
        (
            ("users", "create", "press-7", "--no-password", "--role", "line", "--role", "minimum-acces"),
            "roles[1]: no such role: minimum-acces. Did you mean minimum-access?",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_unknown_name_suggests_near_ones(console: Console, arguments: tuple[str, ...], message: str) -> None:
    assert error_of(console.command(*arguments)) == message


@pytest.mark.parametrize(
    ("arguments", "suggested"),
    [
        (("user", "list"), "No such command 'user'. Did you mean users"),
        (("registy", "list"), "Did you mean registry"),
        (("users", "lst"), "No such command 'lst'. Did you mean list"),
        (("users", "list", "--serch", "x"), "Did you mean one of: '--search', '--sort'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_unknown_command_or_option_suggests_near_ones(
    console: Console, arguments: tuple[str, ...], suggested: str
) -> None:
    done = console.command(*arguments)
    assert done.returncode == 2
    assert suggested in done.stderr


def test_grant_types_are_added_and_removed(console: Console) -> None:
    options = ("--add-grant-type", "token", "--add-grant-type", "certificate", "--remove-grant-type", "password")
    changed = json.loads(stdout_of(console.command("users", "change", "bob", *options, "--json")))
    assert changed["grantTypes"] == ["certificate", "token"]
    both = console.command("users", "change", "bob", "--grant-type", "password", "--add-grant-type", "token")
    assert both.returncode == 2
