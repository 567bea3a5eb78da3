"""Callers of the API, checks of its errors, and all stored rows for comparison."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from authsvc.storage.database import session
from authsvc.storage.models import ALL
from registry.models import ALL as REGISTRY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flask.testing import FlaskClient
    from werkzeug.test import TestResponse


class Caller:
    """A client of the API that sends the same Authorization header with every request, or none."""

    def __init__(self, client: FlaskClient, authorization: str | None = None) -> None:
        self.client = client
        self.headers = {"Authorization": authorization} if authorization else {}

    def get(self, path: str, **options: Any) -> TestResponse:
        return self.call("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> TestResponse:
        return self.call("POST", path, json=body, **options)

    def patch(self, path: str, body: Any = None, **options: Any) -> TestResponse:
        return self.call("PATCH", path, json=body, **options)

    def delete(self, path: str, **options: Any) -> TestResponse:
        return self.call("DELETE", path, **options)

    def call(self, method: str, path: str, **options: Any) -> TestResponse:
        headers: Mapping[str, str] = {**self.headers, **options.pop("headers", {})}
        return self.client.open(path, method=method, headers=headers, buffered=True, **options)

    def creates_user(self, username: str, password: str | None = None, **fields: Any) -> None:
        """Create a user, which must succeed."""
        answer = self.post("/api/users", {"username": username, "password": password, **fields})
        assert answer.status_code == 201, answer.text

    def signs_in(self, username: str, password: str, **fields: Any) -> Caller:
        """Log in, which must succeed, and return a caller with the new token."""
        answer = self.client.post("/api/login", json={"username": username, "password": password, **fields})
        assert answer.status_code == 200, answer.text
        return Caller(self.client, f"Bearer {answer.get_json()['token']}")

    @property
    def token(self) -> str:
        """The API token of this caller."""
        return self.headers["Authorization"].removeprefix("Bearer ")


def basic(username: str, password: str) -> str:
    """Return an Authorization header of HTTP Basic."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def everything_stored() -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of all tables, including the policy version and the audit trail."""
    with session():
        models: tuple[Any, ...] = (*ALL, *REGISTRY)
        return {model._meta.table_name: list(model.select().tuples()) for model in models}


def problem_of(answer: TestResponse, status: int, code: str) -> dict[str, Any]:
    """Check the status, code and form of an error response and return its body."""
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/problem+json"
    problem: dict[str, Any] = answer.get_json()
    assert problem["status"] == status
    assert problem["code"] == code, problem
    assert problem["type"] == f"urn:authsvc:problem:{code}"
    assert problem["title"]
    assert problem["detail"]
    return problem


def refused_fields(answer: TestResponse, code: str = "invalid-input") -> list[str]:
    """Return the names of the invalid fields in a 400 response."""
    return [error["field"] for error in problem_of(answer, 400, code)["errors"]]
