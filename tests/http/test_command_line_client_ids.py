"""Allowed client ids in `authsvc users`, `roles` and `explain`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.http.console import error_of, stdout_of

if TYPE_CHECKING:
    from tests.http.callers import Caller
    from tests.http.console import Console


def _json(console: Console, *arguments: str) -> Any:
    return json.loads(stdout_of(console.command(*arguments, "--json")))


@pytest.mark.parametrize("noun", ["users", "roles"])
def test_allowed_client_ids_are_set_kept_replaced_and_removed(console: Console, noun: str) -> None:
    password = ["--no-password"] if noun == "users" else []
    made = _json(console, noun, "create", "press-7", *password, "--client-id", "%u", "--client-id", "%u-*")
    assert made["clientIds"] == ["%u", "%u-*"]
    assert _json(console, noun, "change", "press-7")["clientIds"] == ["%u", "%u-*"]
    assert _json(console, noun, "change", "press-7", "--client-id", "gateway")["clientIds"] == ["gateway"]
    assert "client ids   gateway\n" in stdout_of(console.command(noun, "show", "press-7"))
    assert _json(console, noun, "change", "press-7", "--any-client-id")["clientIds"] == []


@pytest.mark.parametrize("noun", ["users", "roles"])
def test_client_ids_are_set_or_removed_but_not_both(console: Console, noun: str) -> None:
    name = {"users": "bob", "roles": "line"}[noun]
    done = console.command(noun, "change", name, "--client-id", "x", "--any-client-id")
    assert done.returncode == 2
    assert "--client-id and --any-client-id exclude each other" in done.stderr


@pytest.mark.parametrize(("noun", "name"), [("users", "bob"), ("roles", "line")])
def test_invalid_client_id_is_refused(console: Console, noun: str, name: str) -> None:
    done = console.command(noun, "change", name, "--client-id", "%u", "--client-id", "%c")
    assert error_of(done).startswith("clientIds[1]: must not contain %c")


def test_a_warning_is_shown_with_the_user_and_with_the_role(console: Console) -> None:
    assert "warning      a rule of its own uses %c" in stdout_of(console.command("users", "show", "bob"))
    stdout_of(console.command("users", "change", "bob", "--client-id", "%u"))
    assert "warning" not in stdout_of(console.command("users", "show", "bob"))
    made = stdout_of(console.command("roles", "create", "inboxes", "--permission", "read inbox/%c/#"))
    assert "warning      a rule uses %c and the role allows any client id" in made


def test_role_json_of_command_agrees_with_the_api(console: Console, alice: Caller) -> None:
    stdout_of(console.command("roles", "create", "inboxes", "--permission", "read inbox/%c/#"))
    shown = alice.get("/api/roles/inboxes").get_json()
    body = _json(console, "roles", "show", "inboxes")
    assert body == {name: shown[name] for name in body}


def test_explain_checks_the_given_client_id(console: Console) -> None:
    stdout_of(console.command("users", "change", "bob", "--client-id", "%u"))
    question = ("explain", "bob", "write", "lines/7")
    assert "allowed" in stdout_of(console.command(*question))
    assert "allowed" in stdout_of(console.command(*question, "--client-id", "bob"))
    refused = console.command(*question, "--client-id", "press-7")
    assert (refused.returncode, refused.stdout) == (1, "denied: client-id-not-allowed\n")
