"""Where a role with rights over this service can be given to a registration, the page says so."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.registry.environment import done

if TYPE_CHECKING:
    from flask.testing import FlaskClient

    from tests.registry.environment import Place

OVER_USERS = {"context": "http", "operation": "write", "resource": "/api/users/#", "effect": "allow"}


def marked_roles(page: str) -> set[str]:
    """Return the roles that can be ticked and carry the badge."""
    labels = re.findall(r'name="roles" value="([^"]+)"[^\n]*?</label>', page)
    assert {"admin", "line", "press"} <= set(labels)
    found = re.findall(r'name="roles" value="([^"]+)"[^\n]*?>rights over this service</span>', page)
    return set(found)


def test_a_role_with_rights_over_this_service_is_marked_where_a_registration_is_granted(
    place: Place, browser: FlaskClient
) -> None:
    done(place.alice.post("/api/roles", {"name": "clerk", "permissions": [OVER_USERS]}))
    place.unlock()
    registration = place.asks()
    page = browser.get(f"/admin/registry/registrations/{registration}").text
    assert marked_roles(page) == {"admin", "clerk", "minimum-access"}
    fields = {"ids": registration, "decision": "grant", "csrf_token": _csrf_token(page)}
    page = browser.post("/admin/registry/registrations/selected", data=fields).text
    assert marked_roles(page) == {"admin", "clerk", "minimum-access"}


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"roles": ["line"]}, "it starts with rights"),
        ({"roles": ["admin"]}, "it requests and starts with rights"),
        ({}, "it starts with rights"),
    ],
)
def test_the_page_says_where_the_rights_come_from(
    place: Place, browser: FlaskClient, wishes: dict[str, Any], words: str
) -> None:
    place.unlock(roles=["press"])
    registration = place.asks(**wishes)
    done(place.alice.patch("/api/roles/press", {"permissions": [OVER_USERS]}))
    page = browser.get(f"/admin/registry/registrations/{registration}").text
    assert words in page


def _csrf_token(page: str) -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert found
    return found[1]
