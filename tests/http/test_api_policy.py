"""The policy file over REST: export, apply, the JSON Schema; and batches of users."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import bcrypt
import jsonschema
import pytest
import yaml

from authsvc.accounts import users
from tests.actors import OPERATOR
from tests.http.broker import YES, broker_by
from tests.http.callers import Caller, basic, everything_stored, problem_of, refused_fields
from tests.service import permission

if TYPE_CHECKING:
    from flask_openapi3.openapi import OpenAPI

FILE = """\
roles:
- name: hall
  permissions: [readWrite hall/#]
users:
- username: press-7
  roles: [hall]
  permissions: [readWrite devices/%u/#]
preauthorizations:
- username: press-8
  roles: [hall]
"""
YAML = "application/yaml"


def apply(caller: Caller, content: str, query: str = "", content_type: str = YAML) -> Any:
    return caller.call("POST", f"/api/apply{query}", data=content, content_type=content_type)


# Policy files.


def test_apply_makes_the_database_what_the_file_says(alice: Caller) -> None:
    answer = apply(alice, FILE)
    assert answer.status_code == 200
    assert answer.get_json()["counts"] == {"created": 3, "changed": 0, "removed": 0, "unchanged": 0, "leftAlone": 0}
    assert answer.get_json()["changes"][1] == {
        "action": "create",
        "kind": "user",
        "name": "press-7",
        "differences": [
            {"field": "roles", "before": [], "after": ["hall"]},
            {"field": "permissions", "before": [], "after": ["readWrite devices/%u/#"]},
        ],
    }
    assert alice.get("/api/users/press-7").get_json()["permissions"] == [permission("readWrite devices/%u/#")]
    assert alice.get("/api/client-registry/preauthorizations").get_json()["total"] == 1
    again = apply(alice, FILE).get_json()
    assert (again["changes"], again["counts"]["unchanged"]) == ([], 3)


def test_audit_events_have_the_caller_and_the_digest_of_the_body(alice: Caller) -> None:
    apply(alice, FILE)
    events = alice.get("/api/audit?target=user:press-7").get_json()["items"]
    digest = f"sha256:{hashlib.sha256(FILE.encode()).hexdigest()}"
    assert [(event["actor"], event["via"], event["after"]["policyFile"]) for event in events] == [
        ("alice", "api", digest)
    ]


def test_json_is_accepted(alice: Caller) -> None:
    answer = apply(alice, json.dumps(yaml.safe_load(FILE)), content_type="application/json")
    assert answer.get_json()["counts"]["created"] == 3


def test_a_body_without_a_known_type_is_yaml(alice: Caller) -> None:
    assert apply(alice, FILE, content_type="application/x-www-form-urlencoded").get_json()["counts"]["created"] == 3


def test_a_dry_run_changes_nothing(alice: Caller) -> None:
    before = everything_stored()
    answer = apply(alice, FILE, "?dryRun=true").get_json()
    assert (answer["dryRun"], answer["counts"]["created"]) == (True, 3)
    assert everything_stored() == before


def test_prune_removes_what_the_file_does_not_name(alice: Caller) -> None:
    exported = alice.get("/api/export").text
    apply(alice, FILE)
    answer = apply(alice, exported, "?prune=true").get_json()
    assert {(each["action"], each["name"]) for each in answer["changes"]} == {
        ("remove", "press-7"),
        ("remove", "press-8"),
        ("remove", "hall"),
    }
    assert alice.get("/api/export").text == exported


def test_export_has_no_secrets_and_names_the_schema_of_this_service(alice: Caller, anonymous: Caller) -> None:
    answer = alice.get("/api/export")
    assert answer.content_type == YAML
    assert "passwordHash" not in answer.text
    assert "$2b$" not in answer.text
    first_line = answer.text.splitlines()[0]
    assert first_line == "# yaml-language-server: $schema=http://localhost/api/policy.schema.json"
    schema = anonymous.get("/api/policy.schema.json")
    assert schema.status_code == 200
    jsonschema.validate(yaml.safe_load(answer.text), schema.get_json())


@pytest.mark.parametrize(
    ("wrong", "content_type", "field"),
    [
        ("users:\n- username: bob\n  colour: secret-red\n", YAML, "users[0].colour"),
        ('{"users": [{"username": "bob", "colour": "secret-red"}]}', "application/json", "users[0].colour"),
        ("users:\n- username: bob\n  passwordHash: secret-red\n", YAML, "users[0].passwordHash"),
        ("users: [", YAML, "body"),
        ("{", "application/json", "body"),
        ("[" * 100_000, "application/json", "body"),
        ("[" * 100_000, YAML, "body"),
    ],
)
def test_what_is_not_a_policy_is_refused(alice: Caller, wrong: str, content_type: str, field: str) -> None:
    before = everything_stored()
    answer = apply(alice, wrong, content_type=content_type)
    assert refused_fields(answer) == [field]
    assert "secret-red" not in answer.text
    assert everything_stored() == before


@pytest.mark.parametrize(
    ("given", "needed"),
    [
        ("users:\n- username: press-7\n", "/api/users"),
        ("users:\n- username: bob\n", "/api/users/bob"),
        ("roles:\n- name: hall\n", "/api/roles"),
        ("preauthorizations:\n- username: press-7\n", "/api/client-registry/preauthorizations"),
    ],
)
def test_each_change_needs_the_permission_to_make_it_elsewhere(
    alice: Caller, anonymous: Caller, given: str, needed: str
) -> None:
    for name, rights in (
        ("paul", ["http write /api/apply"]),
        ("paula", ["http write /api/apply", "http write " + needed]),
    ):
        alice.creates_user(name, "a password of mine", permissions=list(map(permission, rights)))
    before = everything_stored()
    paul = Caller(anonymous.client, basic("paul", "a password of mine"))
    for query in ("", "?dryRun=true"):
        answer = problem_of(apply(paul, given, query), 403, "forbidden")
        assert f"`http write {needed}`" in answer["detail"]
    assert everything_stored()["users"] == before["users"]
    paula = Caller(anonymous.client, basic("paula", "a password of mine"))
    assert apply(paula, given).status_code == 200


def test_a_new_user_of_a_file_connects_with_the_password_of_its_hash(alice: Caller, app: OpenAPI) -> None:
    hashed = bcrypt.hashpw(b"press seven's secret", bcrypt.gensalt(4)).decode()
    apply(alice, f"users:\n- username: press-7\n  passwordHash: {hashed}\n")
    broker = broker_by("function", app)
    assert broker.logs_in("press-7", "press seven's secret") == YES


# Batches.


def test_batch_creates_all_users_with_generated_passwords(alice: Caller, app: OpenAPI) -> None:
    names = [f"press-{number}" for number in range(200)]
    body = {"users": [{"username": name, "roles": ["line"]} for name in names], "generatePasswords": True}
    answer = alice.post("/api/users/batch", body)
    assert answer.status_code == 201
    assert answer.get_json()["created"] == 200
    assert [each["username"] for each in answer.get_json()["passwords"]] == names
    broker = broker_by("function", app)
    given = answer.get_json()["passwords"][150]
    assert broker.logs_in(given["username"], given["password"]) == YES
    assert len(alice.get("/api/audit?action=user.create&perPage=1000").get_json()["items"]) >= 200


def test_batch_takes_passwords_and_hashes(alice: Caller) -> None:
    body = {
        "users": [
            {"username": "press-1", "password": "press one's secret"},
            {"username": "press-2", "passwordHash": "$2b$04$" + "a" * 53},
            {"username": "press-3"},
        ]
    }
    assert alice.post("/api/users/batch", body).get_json() == {"created": 3, "passwords": [], "warnings": []}
    found = [alice.get(f"/api/users/press-{number}").get_json()["hasPassword"] for number in (1, 2, 3)]
    assert found == [True, True, False]


@pytest.mark.parametrize(
    ("second", "status", "fields"),
    [
        ({"username": "bob"}, 409, {"users[1].username"}),
        ({"username": "press-1"}, 400, {"users[1].username"}),
        ({"username": "x\ny"}, 400, {"users[1].username"}),
        ({"username": "press-2", "password": "x"}, 400, {"users[1].password"}),
        ({"username": "press-2", "passwordHash": "plain"}, 400, {"users[1].passwordHash"}),
        ({"username": "press-2", "roles": ["none"]}, 400, {"users[1].roles"}),
        ({"username": "press-2", "colour": "red"}, 400, {"users[1].colour"}),
        (
            {"username": "press-2", "permissions": [{"context": "mqtt", "operation": "read", "resource": "a#"}]},
            400,
            {"users[1].permissions[0].resource"},
        ),
    ],
)
def test_batch_is_refused_as_a_whole(alice: Caller, second: dict[str, Any], status: int, fields: set[str]) -> None:
    before = everything_stored()
    answer = alice.post("/api/users/batch", {"users": [{"username": "press-1"}, second]})
    assert answer.status_code == status
    assert {error["field"] for error in answer.get_json()["errors"]} == fields
    assert everything_stored() == before


def test_names_that_match_no_placeholder_have_a_warning(alice: Caller) -> None:
    batch = alice.post("/api/users/batch", {"users": [{"username": name} for name in ("press-1", "a/1", "a#2")]})
    (warning,) = batch.get_json()["warnings"]
    assert warning["code"] == "name-without-topics"
    assert warning["message"].endswith(": a/1, a#2")
    file = "users:\n- username: press-1\n- username: a/3\n"
    (warning,) = apply(alice, file).get_json()["warnings"]
    assert warning["message"].endswith(": a/3")
    assert apply(alice, file).get_json()["warnings"] == []


def test_batch_with_the_name_of_a_user_of_a_directory_is_refused(alice: Caller) -> None:
    users.create_with_hash(OPERATOR, "olga", {}, None, users.Origin.LDAP)
    answer = alice.post("/api/users/batch", {"users": [{"username": "olga"}]})
    problem_of(answer, 409, "user-exists")


def test_batch_has_at_most_10000_users_and_100_passwords(alice: Caller) -> None:
    many = [{"username": f"press-{number}"} for number in range(10_001)]
    assert refused_fields(alice.post("/api/users/batch", {"users": many})) == ["users"]
    with_passwords = [{"username": f"press-{number}", "password": "a secret"} for number in range(101)]
    assert refused_fields(alice.post("/api/users/batch", {"users": with_passwords})) == ["users"]


def test_batch_deletes_all_or_none(alice: Caller) -> None:
    for name in ("press-1", "press-2"):
        alice.creates_user(name)
    before = everything_stored()
    answer = alice.post("/api/users/batch-delete", {"usernames": ["press-1", "nobody", "press-2"]})
    assert refused_fields(answer) == ["usernames[1]"]
    assert everything_stored() == before
    assert alice.post("/api/users/batch-delete", {"usernames": ["press-1", "press-2"]}).get_json() == {"deleted": 2}
    assert alice.get("/api/users/press-1").status_code == 404


def test_batch_keeps_the_last_administrator(alice: Caller) -> None:
    before = everything_stored()
    answer = alice.post("/api/users/batch-delete", {"usernames": ["admin", "alice"]})
    problem_of(answer, 409, "last-administrator")
    assert everything_stored() == before


def test_users_are_listed_as_csv(alice: Caller) -> None:
    answer = alice.get("/api/users?role=line", headers={"Accept": "text/csv"})
    assert answer.content_type == "text/csv; charset=utf-8"
    header, *rows = answer.text.splitlines()
    assert header.startswith('"username","enabled","grantTypes","roles"')
    assert [row.split('"')[1] for row in rows] == [
        user["username"] for user in alice.get("/api/users?role=line").get_json()["items"]
    ]
