"""`/api/login`, `/api/tokens` and `/api/me`: issue, use, list and revoke tokens."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import time_machine

from authsvc.accounts import signing_keys
from tests.actors import BOBS_PASSWORD, OPERATOR
from tests.http.callers import Caller, basic, everything_stored, problem_of, refused_fields
from tests.http.seed_data import ALICES_PASSWORD, CHARLIES_PASSWORD, DOTS_PASSWORD
from tests.service import permission

if TYPE_CHECKING:
    from flask.testing import FlaskClient
    from werkzeug.test import TestResponse

ALICES = {"username": "alice", "password": ALICES_PASSWORD}


def _log_in(client: FlaskClient, **fields: Any) -> TestResponse:
    return client.post("/api/login", json={**ALICES, **fields})


def _lifetime(answer: TestResponse) -> timedelta:
    return datetime.fromisoformat(answer.get_json()["expiresAt"]) - datetime.now(UTC)


def test_login_returns_a_valid_token(client: FlaskClient) -> None:
    answer = _log_in(client, label="Alice's laptop")
    assert answer.status_code == 200
    body = answer.get_json()
    assert set(body) == {"token", "id", "label", "expiresAt"}
    assert body["label"] == "Alice's laptop"
    assert Caller(client, f"Bearer {body['token']}").get("/api/me").get_json()["username"] == "alice"
    assert answer.headers["Cache-Control"] == "no-store"


def test_token_of_a_login_lasts_12_hours_by_default(client: FlaskClient) -> None:
    assert abs(_lifetime(_log_in(client)) - timedelta(hours=12)) < timedelta(seconds=10)


@pytest.mark.parametrize("hours", [1, 0.5, 24.0, 99_999, 876_000])
def test_token_of_a_login_lasts_the_requested_hours(client: FlaskClient, hours: float) -> None:
    answer = _log_in(client, expireTimeInHours=hours)
    assert abs(_lifetime(answer) - timedelta(hours=hours)) < timedelta(seconds=10)
    assert Caller(client, f"Bearer {answer.get_json()['token']}").get("/api/me").status_code == 200


@pytest.mark.parametrize("hours", [0, -0.0, -1, -99_999, 876_001, 1e308, 10**400, "12", "", None, True, [12]])
def test_invalid_lifetime_is_refused(client: FlaskClient, hours: object) -> None:
    before = everything_stored()
    assert refused_fields(_log_in(client, expireTimeInHours=hours)) == ["expireTimeInHours"]
    assert everything_stored() == before


@pytest.mark.parametrize("hours", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_infinity_and_nan_are_refused_as_lifetime(client: FlaskClient, hours: str) -> None:
    body = json.dumps(ALICES)[:-1] + f', "expireTimeInHours": {hours}}}'
    assert refused_fields(client.post("/api/login", data=body, content_type="application/json")) == [
        "expireTimeInHours"
    ]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"username": None}, "username"),
        ({"username": 7}, "username"),
        ({"username": "alice\0"}, "username"),
        ({"password": 7}, "password"),
        ({"password": None}, "password"),
        ({"password": "x\0"}, "password"),
        ({"password": "x" * 5000}, "password"),
        ({"label": 7}, "label"),
        ({"label": "x" * 201}, "label"),
        ({"label": "a\0b"}, "label"),
        ({"label": "a\ud800b"}, "label"),
        ({"remember": True}, "remember"),
    ],
)
def test_malformed_login_is_refused(client: FlaskClient, fields: dict[str, Any], field: str) -> None:
    assert refused_fields(_log_in(client, **fields)) == [field]


@pytest.mark.parametrize(
    ("username", "password"),
    [
        ("alice", "wrong"),
        ("alice", ""),
        ("alice", ALICES_PASSWORD + " "),
        ("Alice", ALICES_PASSWORD),
        ("nemo", "whatever"),
        ("", ""),
        ("nick", ""),
        ("dora", BOBS_PASSWORD),
        ("carol", BOBS_PASSWORD),
        ("tess", BOBS_PASSWORD),
    ],
)
def test_refused_login_gives_the_same_answer_for_every_cause(client: FlaskClient, username: str, password: str) -> None:
    answer = client.post("/api/login", json={"username": username, "password": password})
    body = problem_of(answer, 401, "wrong-credentials")
    assert body["detail"] == "username or password is wrong"


def test_login_audits_the_new_token(alice: Caller) -> None:
    body = _log_in(alice.client, label="laptop").get_json()
    (event,) = alice.get(f"/api/audit?target=token:{body['id']}").get_json()["items"]
    assert (event["actor"], event["action"]) == ("alice", "token.create")
    assert (event["after"]["username"], event["after"]["label"]) == ("alice", "laptop")


# Credentials of a request.


def test_a_token_works_as_bearer(alice: Caller) -> None:
    assert alice.get("/api/me").status_code == 200
    assert alice.get("/api/me", headers={"Authorization": f"bearer {alice.token}"}).status_code == 200


@pytest.mark.parametrize(
    "query",
    ["apiToken={0}", "perPage=5&apiToken={0}", "apiToken={0}&perPage=5", "a%70iToken={0}", "%61pi%54oken={0}&page=1"],
)
def test_token_works_as_query_parameter(anonymous: Caller, alice: Caller, query: str) -> None:
    answer = anonymous.get("/api/users?" + query.format(alice.token))
    assert answer.status_code == 200, answer.text
    if "perPage" in query:
        assert answer.get_json()["perPage"] == 5


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/api/me"), ("PATCH", "/api/users/bob"), ("DELETE", "/api/users/bob")]
)
def test_token_as_query_parameter_works_for_every_operation(
    anonymous: Caller, alice: Caller, method: str, path: str
) -> None:
    body = {"enabled": False} if method == "PATCH" else None
    assert anonymous.call(method, f"{path}?apiToken={alice.token}", json=body).status_code in (200, 204)


@pytest.mark.parametrize(
    "query", ["apitoken={0}", "token={0}", "apiToken=", "apiToken", "apiToken={0}x", "x=apiToken={0}"]
)
def test_other_query_parameters_are_no_token(anonymous: Caller, alice: Caller, query: str) -> None:
    assert anonymous.get("/api/me?" + query.format(alice.token)).status_code == 401


def test_a_password_works_as_http_basic(client: FlaskClient) -> None:
    assert Caller(client, basic("alice", ALICES_PASSWORD)).get("/api/me").get_json()["username"] == "alice"


@pytest.mark.parametrize(
    "authorization",
    [
        basic("alice", "wrong"),
        basic("nemo", ALICES_PASSWORD),
        basic("dora", BOBS_PASSWORD),
        basic("tess", BOBS_PASSWORD),
        basic("", ""),
        "Basic",
        "Basic !!!",
        "Basic " + base64.b64encode(b"alice").decode(),
        "Basic " + base64.b64encode(b"\xff:\xff").decode(),
        "Bearer",
        "Bearer x",
        "Bearer a.b.c",
        "Bearer eyJ.eyJ.x",
        "Bearer " + "x" * 3000,
        "Digest username=alice",
        "alice",
    ],
)
def test_wrong_credentials_are_401_with_www_authenticate(client: FlaskClient, authorization: str) -> None:
    answer = Caller(client, authorization).get("/api/me")
    assert answer.status_code == 401
    assert answer.content_type == "application/problem+json"
    challenge = answer.headers["WWW-Authenticate"]
    assert "Bearer" in challenge
    assert "Basic" in challenge


def test_wrong_credentials_in_the_header_win_over_a_token_in_the_query(client: FlaskClient, alice: Caller) -> None:
    intruder = Caller(client, basic("alice", "wrong"))
    assert intruder.get(f"/api/me?apiToken={alice.token}").status_code == 401


@pytest.mark.parametrize("part", [0, 1, 2])
def test_modified_token_is_refused(alice: Caller, part: int) -> None:
    parts = alice.token.split(".")
    parts[part] = parts[part][:5] + ("A" if parts[part][5] != "A" else "B") + parts[part][6:]
    problem_of(Caller(alice.client, "Bearer " + ".".join(parts)).get("/api/me"), 401, "invalid-token")


def test_a_token_without_a_signature_is_refused(alice: Caller) -> None:
    _, claims, _ = alice.token.split(".")
    header = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
    for forged in (f"{header}.{claims}.", f"{header}.{claims}.x"):
        problem_of(Caller(alice.client, f"Bearer {forged}").get("/api/me"), 401, "invalid-token")


def test_expired_token_is_refused(client: FlaskClient) -> None:
    caller = Caller(client).signs_in("alice", ALICES_PASSWORD, expireTimeInHours=2)
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=119)):
        assert caller.get("/api/me").status_code == 200
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=121)):
        problem_of(caller.get("/api/me"), 401, "expired-token")


def test_tokens_stay_valid_after_key_rotation(alice: Caller) -> None:
    signing_keys.rotate(OPERATOR)
    later = alice.signs_in("alice", ALICES_PASSWORD)
    assert alice.get("/api/me").status_code == 200
    assert later.get("/api/me").status_code == 200
    assert alice.token.split(".")[0] != later.token.split(".")[0]


# A token has the current rights of its user.


def test_removed_permission_takes_effect_at_the_next_request(alice: Caller, charlie: Caller) -> None:
    assert charlie.get("/api/users").status_code == 200
    alice.patch("/api/users/charlie", {"permissions": []})
    problem_of(charlie.get("/api/users"), 403, "forbidden")


def test_removed_role_takes_effect_at_the_next_request(alice: Caller, anonymous: Caller) -> None:
    alice.creates_user("anna", "anna administers too", roles=["admin"])
    anna = anonymous.signs_in("anna", "anna administers too")
    assert anna.get("/api/audit").status_code == 200
    alice.patch("/api/users/anna", {"roles": []})
    problem_of(anna.get("/api/audit"), 403, "forbidden")


def test_added_permission_takes_effect_at_the_next_request(alice: Caller, dot: Caller) -> None:
    problem_of(dot.get("/api/users/bob"), 403, "forbidden")
    alice.patch("/api/users/dot", {"permissions": [permission("http read /api/users/+")]})
    assert dot.get("/api/users/bob").status_code == 200


def test_token_is_invalid_while_its_user_is_disabled(alice: Caller, charlie: Caller) -> None:
    alice.patch("/api/users/charlie", {"enabled": False})
    assert charlie.get("/api/me").status_code == 401
    alice.patch("/api/users/charlie", {"enabled": True})
    assert charlie.get("/api/me").status_code == 200


# List and revocation.


def test_token_list_has_users_and_labels_but_no_secrets(alice: Caller, client: FlaskClient) -> None:
    made = client.post(
        "/api/login", json={"username": "charlie", "password": CHARLIES_PASSWORD, "label": "Charlie's phone"}
    ).get_json()
    answer = alice.get("/api/tokens?username=charlie")
    (item,) = answer.get_json()["items"]
    assert set(item) == {"id", "username", "label", "createdAt", "expiresAt", "lastUsedAt"}
    assert (item["id"], item["username"], item["label"]) == (made["id"], "charlie", "Charlie's phone")
    assert item["expiresAt"] == made["expiresAt"]
    assert item["lastUsedAt"] is None
    assert made["token"].split(".")[2] not in answer.text


def test_token_list_has_the_time_of_last_use(alice: Caller, charlie: Caller) -> None:
    noon = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    with time_machine.travel(noon, tick=False):
        assert charlie.get("/api/me").status_code == 200
        assert alice.get("/api/tokens?username=charlie").get_json()["items"][0]["lastUsedAt"] == _spell(noon)
    with time_machine.travel(noon + timedelta(hours=1), tick=False):
        assert alice.get("/api/tokens?username=charlie").get_json()["items"][0]["lastUsedAt"] == _spell(noon)


def _spell(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def test_the_list_comes_newest_first_in_pages_and_can_be_searched(alice: Caller, anonymous: Caller) -> None:
    start = datetime.now(UTC) + timedelta(minutes=1)
    for number in range(5):
        with time_machine.travel(start + timedelta(seconds=number), tick=False):
            anonymous.signs_in("dot", DOTS_PASSWORD, label=f"robot {number}")
    pages = [alice.get(f"/api/tokens?search=robot&perPage=2&page={page}").get_json() for page in (1, 2, 3)]
    labels = [item["label"] for page in pages for item in page["items"]]
    assert labels == ["robot 4", "robot 3", "robot 2", "robot 1", "robot 0"]
    assert {page["total"] for page in pages} == {5}
    assert alice.get("/api/tokens?search=obot%203").get_json()["total"] == 1
    assert alice.get("/api/tokens?username=nemo").get_json()["total"] == 0


def test_deleted_token_is_invalid_at_once_and_others_stay_valid(alice: Caller, anonymous: Caller) -> None:
    phone = anonymous.signs_in("charlie", CHARLIES_PASSWORD, label="phone")
    laptop = anonymous.signs_in("charlie", CHARLIES_PASSWORD, label="laptop")
    (item,) = alice.get("/api/tokens?search=phone").get_json()["items"]
    answer = alice.delete(f"/api/tokens/{item['id']}")
    assert (answer.status_code, answer.data) == (204, b"")
    problem_of(phone.get("/api/me"), 401, "invalid-token")
    assert laptop.get("/api/me").status_code == 200


@pytest.mark.parametrize("token_id", ["0" * 32, "x", "alice"])
def test_unknown_token_cannot_be_deleted(alice: Caller, token_id: str) -> None:
    before = everything_stored()
    problem_of(alice.delete(f"/api/tokens/{token_id}"), 404, "token-not-found")
    assert everything_stored() == before


def test_read_permission_does_not_allow_deleting_tokens(alice: Caller, dot: Caller) -> None:
    alice.patch("/api/users/dot", {"permissions": [permission("http read /api/tokens")]})
    listed = dot.get("/api/tokens")
    assert listed.status_code == 200
    problem_of(dot.delete(f"/api/tokens/{listed.get_json()['items'][0]['id']}"), 403, "forbidden")


# The caller.


def test_me_returns_the_caller_with_effective_permissions(alice: Caller, anonymous: Caller) -> None:
    mine = [permission("http read /api/me"), permission("write lines/9")]
    alice.creates_user("anna", "anna's own secret", roles=["line"], permissions=mine)
    body = anonymous.signs_in("anna", "anna's own secret").get("/api/me").get_json()
    assert (body["username"], body["enabled"], body["grantTypes"]) == ("anna", True, ["password"])
    assert (body["roles"], body["permissions"]) == (["line"], mine)
    through_role = {**permission("write lines/+"), "role": "line"}
    assert body["effectivePermissions"] == [*({**each, "role": None} for each in mine), through_role]
