"""Preauthorizations from a CSV file: all or none, and errors name the line."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from registry import preauthorizations
from tests.http.callers import problem_of, refused_fields
from tests.registry.environment import ON_BOTH_DATABASES, expect_success
from tests.registry.signing import new_key, signing_request, spki
from tests.registry.test_preauthorizations import PREAUTHORIZATIONS, waiting

if TYPE_CHECKING:
    from werkzeug.test import TestResponse

    from tests.registry.environment import Environment


def upload(env: Environment, text: str) -> TestResponse:
    return env.alice.call("POST", f"{PREAUTHORIZATIONS}/csv", data=text.encode(), content_type="text/csv")


@ON_BOTH_DATABASES
def test_csv_file_preauthorizes_every_name(env: Environment) -> None:
    key = new_key()
    digest = hashlib.sha256(spki(key.public_key())).hexdigest()
    rows = ["username,roles,csrFingerprint", "bob,press line,", f"carol,,{digest}", '"dave",press', "erin"]
    assert expect_success(upload(env, "\r\n".join(rows) + "\r\n")) == {"created": 4, "secrets": []}
    assert waiting(env) == ["bob", "carol", "dave", "erin"]
    assert env.register("bob").status_code == 201
    user = env.user()
    assert user
    assert user["roles"] == ["line", "press"]
    problem_of(env.register("carol"), 423, "registry-locked")
    assert env.register("carol", csr=signing_request("carol", key)).status_code == 201


@pytest.mark.parametrize(
    "text", ["username\nbob\n", "\ufeffusername\nbob", "roles,username\npress,bob\n", "username\rbob"]
)
def test_csv_dialects_of_spreadsheets_are_accepted(env: Environment, text: str) -> None:
    assert expect_success(upload(env, text)) == {"created": 1, "secrets": []}
    assert waiting(env) == ["bob"]


@pytest.mark.parametrize("text", ["", "bob\n", "name,roles\nbob,press\n", "username,password\nbob,secret\n", "\x00"])
def test_csv_without_header_is_refused(env: Environment, text: str) -> None:
    assert refused_fields(upload(env, text)) == ["csv"]


@ON_BOTH_DATABASES
@pytest.mark.parametrize(
    ("row", "status", "code"),
    [
        ("not a name", 400, "invalid-input"),
        ("carol,nobody", 400, "invalid-input"),
        ("carol,press,,more", 400, "invalid-input"),
        ("alice", 409, "username-taken"),
        ("bob", 409, "username-taken"),
    ],
)
def test_invalid_line_preauthorizes_no_name(env: Environment, row: str, status: int, code: str) -> None:
    problem_of(upload(env, f"username,roles,csrFingerprint\nbob\n{row}\ndave\n"), status, code)
    assert waiting(env) == []


@pytest.mark.parametrize("row", ["not a name", "carol,nobody", "alice", "bob"])
def test_error_names_the_invalid_line(env: Environment, row: str) -> None:
    answer = upload(env, f"username,roles\nbob\n\n{row}\ndave\n").get_json()
    assert answer["detail"].startswith(("csv[4]: ", "line 4: "))


@ON_BOTH_DATABASES
@pytest.mark.parametrize("fingerprint", ["AB" * 32, "ab", "z" * 64, "a" * 100])
def test_invalid_fingerprint_is_refused(env: Environment, fingerprint: str) -> None:
    answer = upload(env, f"username,csrFingerprint\nbob,{fingerprint}\n")
    assert answer.status_code == 400
    assert waiting(env) == []


@pytest.mark.parametrize("name", ["x" * 200_000, '"bob" by the door', '"bob'], ids=["endless", "quoted", "unfinished"])
def test_unreadable_csv_is_refused(env: Environment, name: str) -> None:
    assert refused_fields(upload(env, f"username\n{name}")) == ["csv"]


def test_csv_with_too_many_lines_is_refused(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preauthorizations, "MAX_CSV_ROWS", 3)
    assert refused_fields(upload(env, "username\nbob\ncarol\ndave\nerin\n")) == ["csv"]
    assert waiting(env) == []
    assert expect_success(upload(env, "username\nbob\ncarol\ndave\n")) == {"created": 3, "secrets": []}


def test_upload_needs_a_constant_number_of_statements_per_batch(
    env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "peewee")
    counts = []
    for file in ("short", "long"):
        caplog.clear()
        names = [f"{file}-{number}" for number in range(10 if file == "short" else 100)]
        expect_success(upload(env, "\n".join(["username", *names])))
        counts.append(len(caplog.records))
    assert counts[1] <= counts[0] + 10


def test_csv_is_accepted_with_curls_default_content_type(env: Environment) -> None:
    form = "application/x-www-form-urlencoded"
    answer = env.alice.call("POST", f"{PREAUTHORIZATIONS}/csv", data=b"username\nbob\n", content_type=form)
    assert expect_success(answer) == {"created": 1, "secrets": []}


def test_actor_cannot_upload_rights_that_it_lacks(env: Environment) -> None:
    answer = env.charlie.call(
        "POST", f"{PREAUTHORIZATIONS}/csv", data=b"username,roles\nbob,press\ncarol,admin\n", content_type="text/csv"
    )
    problem_of(answer, 403, "beyond-own-rights")
    assert waiting(env) == []
