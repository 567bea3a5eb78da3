"""`authsvc export` and `authsvc apply`."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.http.callers import everything_stored
from tests.http.console import error_of, stdout_of
from tests.http.seed_data import ALICES_PASSWORD

if TYPE_CHECKING:
    from tests.http.callers import Caller
    from tests.http.console import Console
    from tests.service import Service

pytestmark = pytest.mark.usefixtures("app")

FILE = """\
roles:
- name: hall
  permissions: [readWrite hall/#]
users:
- username: bob
  enabled: false
- username: press-7
  roles: [hall]
  permissions: [readWrite devices/%u/#, deny read secret/#]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_text(FILE)
    return file


def test_apply_prints_a_diff_and_changes_the_database(console: Console, alice: Caller, file: Path) -> None:
    alice.patch("/api/users/bob", {"roles": [], "permissions": [], "clientIds": []})
    assert stdout_of(console.command("apply", str(file))).splitlines() == [
        "+ role hall",
        "    permissions: + readWrite hall/#",
        "~ user bob",
        "    enabled: true -> false",
        "+ user press-7",
        "    roles: + hall",
        "    permissions: + deny read secret/#",
        "    permissions: + readWrite devices/%u/#",
        "2 created, 1 changed",
    ]
    assert '"enabled":false' in alice.get("/api/users/bob").text
    assert stdout_of(console.command("apply", str(file))) == "3 unchanged\n"


def test_apply_warns_about_new_names_that_match_no_placeholder(console: Console, file: Path) -> None:
    file.write_text("users:\n- username: tenant/7\n")
    last = stdout_of(console.command("apply", str(file))).splitlines()[-1]
    assert last.startswith("warning: usernames with + or # or /: no permission with %u matches them")
    assert last.endswith(": tenant/7")
    assert stdout_of(console.command("apply", str(file))) == "1 unchanged\n"


def test_dry_run_exits_with_3_if_there_are_differences(console: Console, file: Path) -> None:
    before = everything_stored()
    done = console.command("apply", str(file), "--dry-run")
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.splitlines()[-1].endswith("(dry run: nothing was written)")
    assert everything_stored() == before
    stdout_of(console.command("apply", str(file)))
    stdout_of(console.command("apply", str(file), "--dry-run"))


def test_audit_events_name_the_digest_of_the_file(console: Console, file: Path) -> None:
    stdout_of(console.command("apply", str(file)))
    sum_of_file = subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True).stdout.split()[0]
    events = json.loads(stdout_of(console.command("audit", "--target", "user:press-7", "--json")))["items"]
    assert [event["after"]["policyFile"] for event in events] == [f"sha256:{sum_of_file}"]


def test_every_error_of_a_file_is_a_line(console: Console, file: Path) -> None:
    file.write_text("users:\n- username: bob\n  colour: red\n- username: bob\n  enabled: 1\n")
    before = everything_stored()
    done = console.command("apply", str(file))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        f"authsvc: {file}: users[0].colour: line 3: is not a known field",
        f"authsvc: {file}: users[1].enabled: line 5: must be true or false",
    ]
    assert everything_stored() == before


def test_a_file_that_is_not_text_is_refused(console: Console, file: Path) -> None:
    file.write_bytes(b"\xff\xfe")
    assert error_of(console.command("apply", str(file))) == "file: is not UTF-8 text"


def test_export_is_a_file_that_changes_nothing(console: Console, file: Path, tmp_path: Path) -> None:
    stdout_of(console.command("apply", str(file)))
    printed = stdout_of(console.command("export"))
    exported = tmp_path / "exported.yaml"
    done = console.command("export", str(exported))
    assert (done.returncode, done.stdout) == (0, "")
    assert exported.read_text() == printed
    assert printed.startswith("# yaml-language-server: $schema=http://")
    assert "unchanged" in stdout_of(console.command("apply", str(exported), "--prune", "--dry-run"))


def test_only_an_export_with_hashes_has_secrets_and_nobody_else_can_read_it(
    console: Console, file: Path, tmp_path: Path
) -> None:
    assert "passwordHash" not in stdout_of(console.command("export"))
    file.chmod(0o644)
    assert console.command("export", str(file), "--with-hashes").returncode == 0
    assert "passwordHash: $2b$" in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert ALICES_PASSWORD not in file.read_text()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_prune_without_a_terminal_needs_yes(console: Console, file: Path, alice: Caller) -> None:
    exported = stdout_of(console.command("export"))
    alice.creates_user("press-8")
    file.write_text(exported)
    before = everything_stored()
    message = "this would remove 1; to do so without a question, add --yes"
    assert error_of(console.command("apply", str(file), "--prune")) == message
    assert everything_stored() == before
    assert console.command("apply", str(file), "--prune", "--dry-run").returncode == 3
    assert "- user press-8" in stdout_of(console.command("apply", str(file), "--prune", "--yes")).splitlines()
    assert alice.get("/api/users/press-8").status_code == 404


def test_prune_asks_in_a_terminal(shell: Service, console: Console, file: Path, alice: Caller) -> None:
    file.write_text(stdout_of(console.command("export")))
    alice.creates_user("press-8")
    for answer, status in (("n", 200), ("y", 404)):
        leader, follower = pty.openpty()
        command = [str(Path(sys.executable).parent / "authsvc"), "apply", str(file), "--prune"]
        environment = {**os.environ, **shell.environment}
        with subprocess.Popen(command, stdin=follower, stdout=subprocess.PIPE, env=environment) as process:
            os.close(follower)
            os.write(leader, f"{answer}\n".encode())
            output = process.stdout.read().decode() if process.stdout else ""
        os.close(leader)
        assert "- user press-8" in output
        assert "Remove 1?" in output
        assert process.returncode == (1 if answer == "n" else 0)
        assert alice.get("/api/users/press-8").status_code == status


def test_json_has_all_changes(console: Console, file: Path) -> None:
    done = console.command("apply", str(file), "--dry-run", "--json")
    found = json.loads(done.stdout)
    assert (found["dryRun"], found["counts"]["created"]) == (True, 2)
    assert {"action": "create", "kind": "role", "name": "hall"}.items() <= found["changes"][0].items()
    assert found["changes"][0]["differences"] == [{"field": "permissions", "before": [], "after": ["readWrite hall/#"]}]
