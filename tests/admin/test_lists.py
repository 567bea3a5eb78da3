"""The number of SQL statements of a list does not depend on its number of rows."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

import pytest

from authsvc.app import create_app
from authsvc.web.request_context import EXTENSION
from tests.actors import ADMIN_PASSWORD, http, mqtt
from tests.storage.environment import create_role, create_user

if TYPE_CHECKING:
    from collections.abc import Callable

    from authsvc.settings import Settings

MANY = 60


@pytest.fixture
def count_statements(prepared: Settings, caplog: pytest.LogCaptureFixture) -> Callable[[str], int]:
    """A function that returns the number of SQL statements that rendering a page takes."""
    app = create_app(prepared)
    app.extensions[EXTENSION].policy.catch_up()
    client = app.test_client()
    token = re.search(r'name="csrf_token" value="([^"]+)"', client.get("/admin/sign-in").text)
    assert token
    form = {"csrf_token": token[1], "username": "admin", "password": ADMIN_PASSWORD}
    assert client.post("/admin/sign-in", data=form).status_code == 303

    def count(path: str) -> int:
        caplog.clear()
        with caplog.at_level(logging.DEBUG, "peewee"):
            answer = client.get(path)
        assert answer.status_code == 200, answer.text
        assert answer.text.count('scope="row"') == int(path.rpartition("perPage=")[2])
        return sum(record.name == "peewee" for record in caplog.records)

    return count


def test_lists_run_the_same_number_of_statements_for_many_rows_as_for_few(
    count_statements: Callable[[str], int],
) -> None:
    for number in range(MANY):
        role = create_role(f"role-{number}", mqtt("read", f"halls/{number}"))
        create_user(f"device-{number}", password=None, roles=(role.name,), permissions=(http("read", "/api/me"),))
    few, many = count_statements("/admin/users?perPage=2"), count_statements("/admin/users?perPage=50")
    assert 0 < many <= few
    few, many = count_statements("/admin/roles?perPage=2"), count_statements("/admin/roles?perPage=50")
    assert 0 < many <= few
