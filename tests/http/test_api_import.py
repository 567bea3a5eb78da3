"""Imports over REST: what they change, answer and refuse. What the files mean is tested in tests/importing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.http.broker import YES, broker_by
from tests.http.callers import Caller, basic, everything_stored, problem_of, refused_fields
from tests.importing.asking import password_of, pbkdf2
from tests.importing.systems import client, role
from tests.service import permission

if TYPE_CHECKING:
    from flask_openapi3.openapi import OpenAPI

SALT, HASH = pbkdf2("press-7")
PASSWORDS = f"press-7:$7$101${SALT}${HASH}\npress-8:plain-secret\n"
FILES = {"passwords": PASSWORDS, "acl": "user press-7\ntopic readwrite line/7/#\ntopic reed x\n"}
DYNSEC = {
    "file": json.dumps(
        {"clients": [client("press-7", "press")], "roles": [role("press", "allow publishClientSend line/7/# 0")]}
    )
}
KINDS = [("mosquitto", FILES), ("dynsec", DYNSEC), ("go-auth", FILES)]


@pytest.mark.parametrize(("kind", "body"), KINDS)
def test_imported_user_connects_with_its_password(alice: Caller, app: OpenAPI, kind: str, body: dict[str, Any]) -> None:
    answer = alice.post(f"/api/import/{kind}", body)
    assert answer.status_code == 200
    assert ("create", "user", "press-7") in {
        (change["action"], change["kind"], change["name"]) for change in answer.get_json()["changes"]
    }
    assert HASH not in answer.get_data(as_text=True)
    broker = broker_by("function", app)
    assert broker.logs_in("press-7", password_of("press-7")) == YES
    again = alice.post(f"/api/import/{kind}", body).get_json()
    assert (again["changes"], again["counts"]["created"]) == ([], 0)


def test_dry_run_answers_the_plan_and_notes_and_changes_nothing(alice: Caller) -> None:
    before = everything_stored()
    answer = alice.post("/api/import/mosquitto?dryRun=true", FILES).get_json()
    assert (answer["dryRun"], answer["counts"]["created"]) == (True, 1)
    notes = {note["place"]: note for note in answer["notes"] if note["kind"] == "leftOut"}
    assert notes.keys() == {"password_file line 2", "acl_file line 3"}
    assert notes["password_file line 2"]["users"] == ["press-8"]
    assert answer["noteCount"] == len(answer["notes"])
    assert "plain-secret" not in json.dumps(answer)
    assert everything_stored()["users"] == before["users"]


def test_names_that_match_no_placeholder_have_one_note(alice: Caller) -> None:
    names = [f"a/{number}" for number in range(21)]
    passwords = "".join(PASSWORDS.splitlines()[0].replace("press-7", name) + "\n" for name in names)
    notes = alice.post("/api/import/mosquitto?dryRun=true", {"passwords": PASSWORDS + passwords}).get_json()["notes"]
    (note,) = (note for note in notes if note["kind"] == "attention")
    assert "no permission with %u matches them" in note["message"]
    assert note["message"].endswith(", a/19 and 1 more")
    assert (note["users"], note["userCount"]) == (names[:20], 21)


def test_existing_users_are_changed_only_with_update(alice: Caller) -> None:
    alice.creates_user("press-7", "a password of mine")
    answer = alice.post("/api/import/mosquitto", FILES).get_json()
    assert answer["leftAlone"] == [{"kind": "user", "name": "press-7", "reason": "exists and differs"}]
    assert not alice.get("/api/users/press-7").get_json()["permissions"]
    assert alice.post("/api/import/mosquitto?update=true", FILES).get_json()["counts"]["changed"] == 1
    assert alice.get("/api/users/press-7").get_json()["permissions"] == [permission("readWrite line/7/#")]


@pytest.mark.parametrize(
    ("kind", "body", "fields"),
    [
        ("mosquitto", {}, ["body"]),
        ("mosquitto", {"passwords": 1}, ["passwords"]),
        ("mosquitto", {"passwords": "a\0b"}, ["passwords"]),
        ("mosquitto", {"file": "x"}, ["file"]),
        ("dynsec", {}, ["file"]),
        ("dynsec", {"file": "no JSON"}, ["file"]),
        ("go-auth", {"passwords": "", "saltEncoding": "hex"}, ["saltEncoding"]),
    ],
)
def test_wrong_bodies_are_refused_by_field(alice: Caller, kind: str, body: dict[str, Any], fields: list[str]) -> None:
    before = everything_stored()
    assert set(fields) <= set(refused_fields(alice.post(f"/api/import/{kind}", body)))
    assert everything_stored()["users"] == before["users"]


def test_caller_needs_the_permission_for_each_change(alice: Caller, anonymous: Caller) -> None:
    for name, rights in (("paul", []), ("paula", ["http write /api/users"])):
        given = list(map(permission, ["http write /api/import/#", *rights]))
        alice.creates_user(name, "a password of mine", permissions=given)
    paul = Caller(anonymous.client, basic("paul", "a password of mine"))
    for query in ("", "?dryRun=true"):
        refused = problem_of(paul.post(f"/api/import/mosquitto{query}", FILES), 403, "forbidden")
        assert "`http write /api/users`" in refused["detail"]
    paula = Caller(anonymous.client, basic("paula", "a password of mine"))
    assert paula.post("/api/import/mosquitto", FILES).status_code == 200


def test_import_gives_no_rights_over_this_service(alice: Caller) -> None:
    strong = {"name": "press", "permissions": [permission("http readWrite /#")]}
    assert alice.post("/api/roles", strong).status_code == 201
    problem_of(alice.post("/api/import/dynsec", DYNSEC), 409, "role-with-rights")
    assert alice.get("/api/users/press-7").status_code == 404
