"""Limits of API tokens: number per user, number per minute, lifetime."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from authsvc.accounts import api_tokens
from tests.actors import OPERATOR
from tests.http.callers import Caller, problem_of, refused_fields
from tests.http.conftest import with_services_of
from tests.http.console import error_of, stdout_of
from tests.http.seed_data import ALICES_PASSWORD, CHARLIES_PASSWORD

if TYPE_CHECKING:
    from flask.testing import FlaskClient
    from flask_openapi3.openapi import OpenAPI

    from authsvc.settings import Settings
    from tests.http.console import Console

LOGIN = {"username": "charlie", "password": CHARLIES_PASSWORD}


@pytest.fixture
def limited(routes: OpenAPI, seeded: Settings) -> FlaskClient:
    """A client of a service with limits of 5 tokens per minute and user, and of 30 days."""
    return with_services_of(routes, replace(seeded, tokens_per_minute=5, token_max_days=30)).test_client()


def test_user_with_100_tokens_gets_no_more_by_login_or_from_others(alice: Caller, client: FlaskClient) -> None:
    for _ in range(api_tokens.MAX_TOKENS):
        last = api_tokens.issue_token(OPERATOR, "charlie", "", 12)
    problem_of(client.post("/api/login", json=LOGIN), 409, "too-many-tokens")
    problem_of(alice.post("/api/tokens", {"username": "charlie"}), 409, "too-many-tokens")
    assert alice.delete(f"/api/tokens/{last.record.id}").status_code == 204
    assert client.post("/api/login", json=LOGIN).status_code == 200


def test_tokens_beyond_the_limit_per_minute_are_refused_for_that_user_only(limited: FlaskClient) -> None:
    alice = Caller(limited).signs_in("alice", ALICES_PASSWORD)
    assert [limited.post("/api/login", json=LOGIN).status_code for _ in range(6)] == [200] * 5 + [429]
    refused = alice.post("/api/tokens", {"username": "charlie"})
    problem_of(refused, 429, "too-many-attempts")
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    assert alice.post("/api/tokens", {"username": "bob"}).status_code == 201


def test_lifetime_beyond_the_limit_is_refused_with_field_and_limit(limited: FlaskClient) -> None:
    alice = Caller(limited).signs_in("alice", ALICES_PASSWORD)
    for answer in (
        limited.post("/api/login", json={**LOGIN, "expireTimeInHours": 721}),
        alice.post("/api/tokens", {"username": "bob", "expireTimeInHours": 99_999}),
    ):
        assert refused_fields(answer) == ["expireTimeInHours"]
        assert "720 hours" in answer.text
    made = limited.post("/api/login", json={**LOGIN, "expireTimeInHours": 720}).get_json()
    assert datetime.fromisoformat(made["expiresAt"]) <= datetime.now(UTC) + timedelta(days=30)


def test_token_issued_before_the_limit_stays_valid(limited: FlaskClient) -> None:
    issued = api_tokens.issue_token(OPERATOR, "charlie", "made earlier", 99_999)
    assert Caller(limited, f"Bearer {issued.token}").get("/api/me").status_code == 200


def test_command_line_applies_the_lifetime_limit(console: Console) -> None:
    console.environment["AUTHSVC_TOKEN_MAX_DAYS"] = "30"
    assert "720 hours" in error_of(console.command("tokens", "create", "bob", "--hours", "721"))
    assert stdout_of(console.command("tokens", "create", "bob", "--hours", "720"))
