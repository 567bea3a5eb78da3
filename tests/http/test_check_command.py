"""`authsvc check` lists settings and users that an operator should change."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.http.console import stdout_of
from tests.storage.environment import execute

if TYPE_CHECKING:
    from tests.http.console import Console


def test_check_lists_administrators_that_may_log_in_to_the_broker(console: Console) -> None:
    done = console.command("check", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    found = [(finding["code"], finding["target"]) for finding in json.loads(done.stdout)]
    assert found == [("administrator-on-broker", "user:alice"), ("administrator-on-broker", "user:charlie")]
    table = console.command("check")
    assert table.returncode == 1
    assert "authsvc users change alice --no-grant-types" in table.stdout


def test_check_finds_nothing_after_its_advice_was_followed(console: Console) -> None:
    for username in ("alice", "charlie"):
        shown = json.loads(stdout_of(console.command("users", "change", username, "--no-grant-types", "--json")))
        assert (shown["grantTypes"], shown["administratorOnBroker"]) == ([], False)
    done = console.command("check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing to change\n", "")


def test_check_lists_damaged_users_and_roles(console: Console) -> None:
    execute("UPDATE permissions SET operation = 'raed' WHERE role_id = (SELECT id FROM roles WHERE name = 'line')")
    execute("UPDATE users SET grant_types = 'pasword' WHERE username = 'dot'")
    found = json.loads(console.command("check", "--json").stdout)
    damaged = [finding["target"] for finding in found if finding["code"] == "damaged-policy"]
    assert damaged == ["user:dot", "role:line"]
    assert "damaged" in stdout_of(console.command("users", "show", "dot"))
    assert "damaged" in stdout_of(console.command("roles", "show", "line"))
    assert json.loads(stdout_of(console.command("roles", "show", "line", "--json")))["damage"]


def test_grant_type_option_and_no_grant_types_option_exclude_each_other(console: Console) -> None:
    done = console.command("users", "change", "bob", "--grant-type", "token", "--no-grant-types")
    assert (done.returncode, done.stdout) == (1, "")
    assert "--no-grant-types" in done.stderr
