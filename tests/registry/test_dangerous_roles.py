"""The pages mark roles with rights over this service."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.registry.environment import expect_success

if TYPE_CHECKING:
    from flask.testing import FlaskClient

    from tests.registry.environment import Environment

OVER_USERS = {"context": "http", "operation": "write", "resource": "/api/users/#", "effect": "allow"}


def marked_roles(page: str) -> set[str]:
    """Return the roles in the picker that have the badge."""
    labels = re.findall(r'name="roles" value="([^"]+)".*?</label>', page, re.DOTALL)
    assert {"admin", "line", "press"} <= set(labels)
    found = re.findall(
        r'name="roles" value="([^"]+)"(?:(?!</label>).)*?>rights over this service</span>', page, re.DOTALL
    )
    return set(found)


def test_role_with_http_rights_is_marked_in_the_grant_dialog(env: Environment, browser: FlaskClient) -> None:
    expect_success(env.alice.post("/api/roles", {"name": "clerk", "permissions": [OVER_USERS]}))
    env.unlock()
    registration = env.register_pending()
    page = browser.get(f"/admin/registry/registrations/{registration}").text
    assert marked_roles(page) == {"admin", "clerk", "minimum-access"}
    fields = {"ids": registration, "decision": "grant", "csrf_token": _csrf_token(page)}
    page = browser.post("/admin/registry/registrations/selected", data=fields).text
    assert marked_roles(page) == {"admin", "clerk", "minimum-access"}


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"roles": ["line"]}, "the starting rights include rights"),
        ({"roles": ["admin"]}, "the requested and starting rights include rights"),
        ({}, "the starting rights include rights"),
    ],
)
def test_page_says_whether_http_rights_are_requested_or_starting_rights(
    env: Environment, browser: FlaskClient, wishes: dict[str, Any], words: str
) -> None:
    env.unlock(roles=["press"])
    registration = env.register_pending(**wishes)
    expect_success(env.alice.patch("/api/roles/press", {"permissions": [OVER_USERS]}))
    page = browser.get(f"/admin/registry/registrations/{registration}").text
    assert words in page


def _csrf_token(page: str) -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert found
    return found[1]
