"""`authsvc users`, `roles`, `tokens`, `audit` and `explain`."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from tests.actors import BOBS_PASSWORD
from tests.http.broker import YES, broker_by, no
from tests.http.callers import Caller, everything_stored
from tests.http.console import error_of, stdout_of
from tests.service import permission

if TYPE_CHECKING:
    from flask_openapi3.openapi import OpenAPI

    from authsvc.web.request_context import Services
    from tests.http.broker import Broker
    from tests.http.console import Console
    from tests.service import Service

PRESS_PASSWORD = "press seven's secret"
RULES = ["readWrite devices/%u/#", "deny read secret/#", "http read /api/me"]


@pytest.fixture
def command_broker(app: OpenAPI) -> Broker:
    """A broker of the service whose data the commands change."""
    return broker_by("function", app)


def _told(shell: Service | Console, *arguments: str, stdin: str = "") -> Any:
    return json.loads(stdout_of(shell.command(*arguments, "--json", stdin=stdin)))


# Users.


def test_user_created_by_command_can_connect(shell: Service, command_broker: Broker, services: Services) -> None:
    made = _told(
        shell,
        *("users", "create", "press-7", "--password-stdin", "--role", "line"),
        *(word for rule in RULES for word in ("--permission", rule)),
        stdin=PRESS_PASSWORD + "\n",
    )
    assert made["permissions"] == [permission(rule) for rule in RULES]
    assert (made["roles"], made["grantTypes"], made["enabled"], made["hasPassword"]) == (
        ["line"],
        ["password"],
        True,
        True,
    )
    services.policy.catch_up()
    assert command_broker.logs_in("press-7", PRESS_PASSWORD) == YES
    assert command_broker.acl("press-7", "lines/7", 2) == YES


@pytest.mark.parametrize("grant_types", [("token",), ("certificate", "password")])
def test_grant_types_have_the_names_of_the_api(console: Console, grant_types: tuple[str, ...]) -> None:
    options = [word for name in grant_types for word in ("--grant-type", name)]
    made = _told(console, "users", "create", "press-7", "--no-password", *options)
    assert made["grantTypes"] == sorted(grant_types)


def test_user_json_of_command_equals_that_of_the_api(console: Console, alice: Caller) -> None:
    assert _told(console, "users", "show", "bob") == alice.get("/api/users/bob").get_json()
    assert (
        _told(console, "users", "list", "--per-page", "3", "--page", "2")
        == alice.get("/api/users?perPage=3&page=2").get_json()
    )


def test_denials_are_listed_with_advice(console: Console, command_broker: Broker, services: Services) -> None:
    assert command_broker.acl("bob", "elsewhere", 2, client_id="c\x1b7") == no("no-permission")
    assert command_broker.acl("bob", "sensors/secret/+", 4) == no("denied-by-permission")
    assert command_broker.logs_in("bob", "wr0ng") == no("wrong-password")
    services.denials.store()
    table = stdout_of(console.command("users", "denials", "bob"))
    for words in ("write elsewhere", "c\\x1b7", "subscribe sensors/secret/+", "denies it", "login", "wrong-password"):
        assert words in table
    assert error_of(console.command("users", "denials", "nemo")) == "no such user: nemo"


def test_users_are_listed_as_a_table(console: Console) -> None:
    table = stdout_of(console.command("users", "list", "--search", "do")).splitlines()
    assert table[0].split() == ["USERNAME", "ENABLED", "GRANT", "TYPES", "ROLES", "PERMISSIONS", "LAST", "SEEN"]
    assert [line.split()[:2] for line in table[1:]] == [["dora", "no"], ["dot", "yes"]]
    assert stdout_of(console.command("users", "list", "--per-page", "2")).endswith("page 1: 2 of 10 users\n")
    assert "readWrite devices/%u/#" in stdout_of(console.command("users", "show", "bob"))


def test_change_keeps_all_other_fields(shell: Service) -> None:
    before = _told(shell, "users", "show", "bob")
    changed = _told(
        shell,
        *("users", "change", "bob", "--disable", "--remove-role", "line", "--add-role", "minimum-access"),
        *("--add-permission", "deny write lines/7", "--remove-permission", "read sensors/#"),
    )
    assert changed["enabled"] is False
    assert changed["roles"] == ["minimum-access"]
    expected = [each for each in before["permissions"] if each["resource"] != "sensors/#"]
    assert changed["permissions"] == [*expected, permission("deny write lines/7")]
    assert (changed["grantTypes"], changed["hasPassword"]) == (before["grantTypes"], True)


def test_password_set_by_command_is_valid(shell: Service, command_broker: Broker, services: Services) -> None:
    assert command_broker.logs_in("bob", BOBS_PASSWORD) == YES
    done = shell.command("users", "set-password", "bob", "--password-stdin", stdin=PRESS_PASSWORD + "\r\n")
    assert stdout_of(done) == "password of bob set\n"
    services.policy.catch_up()
    assert command_broker.logs_in("bob", PRESS_PASSWORD) == YES
    assert command_broker.logs_in("bob", BOBS_PASSWORD) == no("wrong-password")


def test_user_deleted_by_command_cannot_log_in(shell: Service, command_broker: Broker, services: Services) -> None:
    assert stdout_of(shell.command("users", "delete", "bob")) == "bob deleted\n"
    services.policy.catch_up()
    assert command_broker.logs_in("bob", BOBS_PASSWORD) == no("unknown-user")


def test_password_is_prompted_twice_and_not_shown(shell: Service, command_broker: Broker, services: Services) -> None:
    screen = _at_a_terminal(shell, ["users", "set-password", "bob"], [PRESS_PASSWORD, PRESS_PASSWORD])
    assert "Password" in screen
    assert PRESS_PASSWORD not in screen
    services.policy.catch_up()
    assert command_broker.logs_in("bob", PRESS_PASSWORD) == YES


def _at_a_terminal(shell: Service, arguments: list[str], lines: list[str]) -> str:
    """Run a command at a terminal, type a line at each prompt, and return the screen output."""
    ours, theirs = pty.openpty()
    command = [str(Path(sys.executable).parent / "authsvc"), *arguments]
    environment = {**os.environ, **shell.environment}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    os.close(theirs)
    screen = ""
    while piece := _read(ours):
        screen += piece
        if piece.endswith(": ") and lines:
            os.write(ours, f"{lines.pop(0)}\n".encode())
    os.close(ours)
    assert process.wait(10) == 0, screen
    return screen


def _read(terminal: int) -> str:
    try:
        return os.read(terminal, 4096).decode()
    except OSError:  # Linux reports a closed terminal by EIO
        return ""


# Roles.


@pytest.mark.slow
def test_role_is_created_changed_and_deleted_by_command(shell: Service) -> None:
    made = _told(shell, "roles", "create", "queue", "--description", "who waits", "--permission", "read queue/#")
    assert made == {
        "name": "queue",
        "builtIn": False,
        "description": "who waits",
        "permissions": [permission("read queue/#")],
        "clientIds": [],
        "warnings": [],
    }
    changed = _told(shell, "roles", "change", "queue", "--add-permission", "deny http write /#")
    assert changed["permissions"] == [permission("read queue/#"), permission("deny http write /#")]
    assert changed["description"] == "who waits"
    assert _told(shell, "roles", "show", "queue") == changed
    assert changed in _told(shell, "roles", "list", "--search", "WAITS")["items"]
    assert stdout_of(shell.command("roles", "delete", "queue")) == "queue deleted\n"


# Tokens.


def test_token_issued_by_command_is_valid_until_revoked(shell: Service, anonymous: Caller) -> None:
    made = _told(shell, "tokens", "create", "charlie", "--label", "nightly job", "--hours", "0.5")
    caller = Caller(anonymous.client, f"Bearer {made['token']}")
    assert caller.get("/api/me").get_json()["username"] == "charlie"
    listed = _told(shell, "tokens", "list", "--user", "charlie")
    assert [(item["id"], item["label"]) for item in listed["items"]] == [(made["id"], "nightly job")]
    assert made["token"] not in json.dumps(listed)
    assert stdout_of(shell.command("tokens", "revoke", made["id"])) == f"token {made['id']} revoked\n"
    assert caller.get("/api/me").status_code == 401


def test_without_json_only_the_new_token_is_printed(shell: Service, anonymous: Caller) -> None:
    token = stdout_of(shell.command("tokens", "create", "charlie")).strip()
    assert Caller(anonymous.client, f"Bearer {token}").get("/api/me").status_code == 200


def test_rotated_key_signs_new_tokens_and_old_ones_stay_valid(shell: Service, alice: Caller) -> None:
    kid = stdout_of(shell.command("tokens", "rotate-key")).split()[-1]
    assert alice.get("/api/me").status_code == 200
    later = Caller(alice.client, f"Bearer {stdout_of(shell.command('tokens', 'create', 'alice')).strip()}")
    assert later.get("/api/me").status_code == 200
    assert kid in _header(later.token)
    assert kid not in _header(alice.token)


def _header(token: str) -> str:
    return json.dumps(jwt.get_unverified_header(token))


# The audit trail.


def test_changes_by_command_are_audited_with_the_system_account(shell: Service) -> None:
    stdout_of(shell.command("roles", "create", "queue"))
    (event,) = _told(shell, "audit", "--target", "role:queue")["items"]
    assert (event["via"], event["action"], event["address"]) == ("command", "role.create", None)
    assert event["actor"]
    table = stdout_of(shell.command("audit", "--action", "role.create", "--per-page", "1")).splitlines()
    assert table[0].split()[:4] == ["AT", "ACTOR", "VIA", "ACTION"]
    assert table[1].split()[2:5] == ["command", "role.create", "role:queue"]


def test_audit_json_of_command_equals_that_of_the_api(console: Console, alice: Caller) -> None:
    alice.creates_user("press-7")
    assert _told(console, "audit", "--per-page", "5") == alice.get("/api/audit?perPage=5").get_json()


# Explain.


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ("bob write devices/bob/up", 0, "allowed: permission `readWrite devices/%u/#` of the user's own"),
        ("bob write lines/7", 0, "allowed: permission `write lines/+` of role line"),
        ("bob read sensors/#", 0, "allowed: permission `read sensors/#` of the user's own"),
        ("bob write clients/c7/up --client-id c7", 0, "allowed: permission `write clients/%c/up` of the user's own"),
        ("bob read elsewhere", 1, "denied: no-permission"),
        (
            "bob read sensors/secret/1",
            1,
            "denied: denied-by-permission `deny readWrite sensors/secret/#` of the user's own",
        ),
        ("dora read a", 1, "denied: user-disabled"),
        ("nemo read a", 1, "denied: unknown-user"),
    ],
)
def test_explain_prints_decision_and_permission(console: Console, arguments: str, status: int, words: str) -> None:
    done = console.command("explain", *arguments.split())
    assert (done.returncode, done.stdout, done.stderr) == (status, words + "\n", "")


def test_explain_prints_json(console: Console) -> None:
    done = console.command("explain", "bob", "write", "lines/7", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == {
        "allowed": True,
        "reason": "permission",
        "permission": "write lines/+",
        "role": "line",
    }


# Errors.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["users", "show", "nemo"], "no such user"),
        (["users", "create", "bob", "--no-password"], "a user named bob exists"),
        (["users", "create", "a\nb", "--no-password"], "username: must not contain control characters"),
        (["users", "create", "press-7", "--password-stdin"], "password: must have at least 5 characters"),
        (["users", "create", "press-7", "--no-password", "--role", "none"], "roles[0]: no such role"),
        (
            ["users", "create", "press-7", "--no-password", "--permission", "fly high"],
            "permission: must be [allow|deny]",
        ),
        (["users", "change", "bob", "--add-permission", "read a#"], "permission.resource: + and # must be"),
        (["users", "set-password", "nemo", "--password-stdin"], "no such user"),
        (["users", "delete", "nemo"], "no such user"),
        (["roles", "create", "line"], "a role named line exists"),
        (["roles", "change", "admin", "--description", "x"], "the role admin is built in"),
        (["roles", "delete", "line"], "1 users have the role line"),
        (["tokens", "create", "nemo"], "no such user"),
        (["tokens", "revoke", "none"], "no such token"),
        (["explain", "bob", "write", "a/+"], "topic: must not contain + or #"),
    ],
)
def test_error_is_one_line_and_changes_nothing(console: Console, arguments: list[str], words: str) -> None:
    before = everything_stored()
    assert error_of(console.command(*arguments)).startswith(words)
    assert everything_stored() == before


def test_invalid_password_is_refused_without_echo(console: Console) -> None:
    secret = "far too long a secret " * 5
    done = console.command("users", "set-password", "bob", "--password-stdin", stdin=secret)
    assert error_of(done) == "password: must be at most 72 bytes in UTF-8"


@pytest.mark.parametrize(
    "arguments",
    [
        ["users"],
        ["frobnicate"],
        ["users", "create"],
        ["users", "create", "press-7", "--password", "secret"],
        ["users", "list", "--page", "0"],
        ["tokens", "create", "bob", "--hours", "0"],
        ["tokens", "create", "bob", "--hours", "nan"],
        ["explain", "bob", "fly", "a"],
    ],
)
def test_invalid_command_exits_with_2_and_prints_usage(console: Console, arguments: list[str]) -> None:
    done = console.command(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: authsvc")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["users", "list", "--search", "\udcff"],
        ["roles", "create", "queue", "--description", "\udcff"],
        ["tokens", "create", "bob", "--label", "\udcff"],
        ["tokens", "create", "bob", "--label", "x" * 201],
        ["explain", "bob", "read", "\udcff"],
    ],
)
def test_text_that_cannot_be_stored_is_refused(console: Console, arguments: list[str]) -> None:
    before = everything_stored()
    done = console.command(*arguments)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert everything_stored() == before


def test_audited_account_does_not_come_from_the_environment(console: Console) -> None:
    console.environment["LOGNAME"] = console.environment["USER"] = "somebody-else" * 10
    stdout_of(console.command("roles", "create", "queue"))
    (event,) = _told(console, "audit", "--target", "role:queue")["items"]
    assert "somebody-else" not in event["actor"]
