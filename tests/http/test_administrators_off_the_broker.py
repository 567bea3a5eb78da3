"""The built-in administrator can sign in to the API and cannot log in to the broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.actors import ADMIN_PASSWORD, BOBS_PASSWORD
from tests.http.broker import no
from tests.http.callers import Caller, basic, problem_of

if TYPE_CHECKING:
    from tests.http.broker import Broker


def test_admin_signs_in_to_the_api_and_cannot_log_in_to_the_broker(anonymous: Caller, broker: Broker) -> None:
    admin = anonymous.signs_in("admin", ADMIN_PASSWORD)
    assert admin.get("/api/me").get_json()["grantTypes"] == []
    assert anonymous.get("/api/me", headers={"Authorization": basic("admin", ADMIN_PASSWORD)}).status_code == 200
    for password in (ADMIN_PASSWORD, admin.token, "wrong"):
        assert broker.logs_in("admin", password) == no("grant-type-missing")


@pytest.mark.parametrize("grant_types", [["certificate"], ["token"], ["certificate", "token"]])
def test_user_with_grant_types_but_without_password_cannot_sign_in_to_the_api(
    alice: Caller, anonymous: Caller, grant_types: list[str]
) -> None:
    alice.creates_user("press-7", BOBS_PASSWORD, grantTypes=grant_types)
    answer = anonymous.post("/api/login", {"username": "press-7", "password": BOBS_PASSWORD})
    problem_of(answer, 401, "wrong-credentials")


@pytest.mark.parametrize("fields", [{"enabled": False}, {"password": None}])
def test_user_without_grant_types_must_have_a_password_and_be_enabled(
    alice: Caller, anonymous: Caller, fields: dict[str, object]
) -> None:
    alice.creates_user("clerk", BOBS_PASSWORD, grantTypes=[])
    assert anonymous.signs_in("clerk", BOBS_PASSWORD)
    assert alice.patch("/api/users/clerk", fields).status_code == 200
    answer = anonymous.post("/api/login", {"username": "clerk", "password": BOBS_PASSWORD})
    problem_of(answer, 401, "wrong-credentials")
