"""The built-in administrator signs in to the API with its password and to the broker with nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.actors import ADMIN_PASSWORD, BOBS_PASSWORD
from tests.http.broker import no
from tests.http.callers import Caller, basic, problem_of

if TYPE_CHECKING:
    from tests.http.broker import Broker


def test_admin_signs_in_to_the_api_and_cannot_log_in_to_the_broker(nobody: Caller, broker: Broker) -> None:
    admin = nobody.signs_in("admin", ADMIN_PASSWORD)
    assert admin.get("/api/me").get_json()["grantTypes"] == []
    assert nobody.get("/api/me", headers={"Authorization": basic("admin", ADMIN_PASSWORD)}).status_code == 200
    for password in (ADMIN_PASSWORD, admin.token, "wrong"):
        assert broker.logs_in("admin", password) == no("grant-type-missing")


@pytest.mark.parametrize("grant_types", [["certificate"], ["token"], ["certificate", "token"]])
def test_a_user_that_was_told_to_use_no_password_cannot_sign_in_to_the_api_with_one(
    alice: Caller, nobody: Caller, grant_types: list[str]
) -> None:
    alice.creates_user("press-7", BOBS_PASSWORD, grantTypes=grant_types)
    answer = nobody.post("/api/login", {"username": "press-7", "password": BOBS_PASSWORD})
    problem_of(answer, 401, "wrong-credentials")


@pytest.mark.parametrize("fields", [{"enabled": False}, {"password": None}])
def test_a_user_without_grant_types_needs_a_password_and_to_be_enabled(
    alice: Caller, nobody: Caller, fields: dict[str, object]
) -> None:
    alice.creates_user("clerk", BOBS_PASSWORD, grantTypes=[])
    assert nobody.signs_in("clerk", BOBS_PASSWORD)
    assert alice.patch("/api/users/clerk", fields).status_code == 200
    answer = nobody.post("/api/login", {"username": "clerk", "password": BOBS_PASSWORD})
    problem_of(answer, 401, "wrong-credentials")
