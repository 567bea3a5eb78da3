"""Many grants in advance from one CSV file: all of them or none, and what is wrong is named by its line."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from registry import preauthorizations
from tests.http.callers import problem_of, refused_fields
from tests.registry.environment import ON_BOTH_DATABASES, done
from tests.registry.signing import new_key, signing_request, spki
from tests.registry.test_preauthorizations import ADVANCES, waiting

if TYPE_CHECKING:
    from werkzeug.test import TestResponse

    from tests.registry.environment import Place


def upload(place: Place, text: str) -> TestResponse:
    return place.alice.call("POST", f"{ADVANCES}/csv", data=text.encode(), content_type="text/csv")


@ON_BOTH_DATABASES
def test_a_file_preauthorizes_everybody_in_it(place: Place) -> None:
    key = new_key()
    digest = hashlib.sha256(spki(key.public_key())).hexdigest()
    rows = ["username,roles,csrFingerprint", "bob,press line,", f"carol,,{digest}", '"dave",press', "erin"]
    assert done(upload(place, "\r\n".join(rows) + "\r\n")) == {"created": 4, "secrets": []}
    assert waiting(place) == ["bob", "carol", "dave", "erin"]
    assert place.registers("bob").status_code == 201
    user = place.user()
    assert user
    assert user["roles"] == ["line", "press"]
    problem_of(place.registers("carol"), 423, "registry-locked")
    assert place.registers("carol", csr=signing_request("carol", key)).status_code == 201


@pytest.mark.parametrize(
    "text", ["username\nbob\n", "\ufeffusername\nbob", "roles,username\npress,bob\n", "username\rbob"]
)
def test_a_file_may_look_as_spreadsheets_write_it(place: Place, text: str) -> None:
    assert done(upload(place, text)) == {"created": 1, "secrets": []}
    assert waiting(place) == ["bob"]


@pytest.mark.parametrize("text", ["", "bob\n", "name,roles\nbob,press\n", "username,password\nbob,secret\n", "\x00"])
def test_a_file_without_the_first_line_is_refused(place: Place, text: str) -> None:
    assert refused_fields(upload(place, text)) == ["csv"]


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
def test_one_bad_line_and_nobody_is_preauthorized(place: Place, row: str, status: int, code: str) -> None:
    problem_of(upload(place, f"username,roles,csrFingerprint\nbob\n{row}\ndave\n"), status, code)
    assert waiting(place) == []


@pytest.mark.parametrize("row", ["not a name", "carol,nobody", "alice", "bob"])
def test_a_bad_line_is_named(place: Place, row: str) -> None:
    answer = upload(place, f"username,roles\nbob\n\n{row}\ndave\n").get_json()
    assert answer["detail"].startswith(("csv[4]: ", "line 4: "))


@ON_BOTH_DATABASES
@pytest.mark.parametrize("fingerprint", ["AB" * 32, "ab", "z" * 64, "a" * 100])
def test_a_fingerprint_that_no_key_can_have_is_refused(place: Place, fingerprint: str) -> None:
    answer = upload(place, f"username,csrFingerprint\nbob,{fingerprint}\n")
    assert answer.status_code == 400
    assert waiting(place) == []


@pytest.mark.parametrize("name", ["x" * 200_000, '"bob" by the door', '"bob'], ids=["endless", "quoted", "unfinished"])
def test_a_file_that_cannot_be_read_is_refused(place: Place, name: str) -> None:
    assert refused_fields(upload(place, f"username\n{name}")) == ["csv"]


def test_a_file_of_too_many_lines_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preauthorizations, "MAX_CSV_ROWS", 3)
    assert refused_fields(upload(place, "username\nbob\ncarol\ndave\nerin\n")) == ["csv"]
    assert waiting(place) == []
    assert done(upload(place, "username\nbob\ncarol\ndave\n")) == {"created": 3, "secrets": []}


def test_a_long_file_takes_as_many_statements_as_a_short_one(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "peewee")
    counts = []
    for file in ("short", "long"):
        caplog.clear()
        names = [f"{file}-{number}" for number in range(10 if file == "short" else 100)]
        done(upload(place, "\n".join(["username", *names])))
        counts.append(len(caplog.records))
    assert counts[1] <= counts[0] + 10


def test_a_file_is_taken_also_as_curl_sends_it_unless_told_otherwise(place: Place) -> None:
    form = "application/x-www-form-urlencoded"
    answer = place.alice.call("POST", f"{ADVANCES}/csv", data=b"username\nbob\n", content_type=form)
    assert done(answer) == {"created": 1, "secrets": []}


def test_charlie_uploads_no_rights_that_he_lacks(place: Place) -> None:
    answer = place.charlie.call(
        "POST", f"{ADVANCES}/csv", data=b"username,roles\nbob,press\ncarol,admin\n", content_type="text/csv"
    )
    problem_of(answer, 403, "beyond-own-rights")
    assert waiting(place) == []
