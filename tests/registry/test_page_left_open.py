"""Polling does not extend a browser session."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import time_machine

if TYPE_CHECKING:
    from flask.testing import FlaskClient

BY_ITSELF = {"HX-Request": "true"}
POLLS = ("/admin/registry/lock", "/admin/registry/registrations")


@pytest.mark.parametrize("poll", POLLS)
def test_polling_page_does_not_extend_the_browser_session(browser: FlaskClient, poll: str) -> None:
    begin = datetime.now(UTC)
    for minutes in (10, 20, 29):
        with time_machine.travel(begin + timedelta(minutes=minutes)):
            assert browser.get(poll, headers=BY_ITSELF).status_code == 200
    with time_machine.travel(begin + timedelta(minutes=31)):
        answer = browser.get(poll, headers=BY_ITSELF)
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (401, "/admin/sign-in")


def test_clicks_extend_the_browser_session(browser: FlaskClient) -> None:
    begin = datetime.now(UTC)
    for minutes in (20, 40, 60):
        with time_machine.travel(begin + timedelta(minutes=minutes)):
            assert browser.get("/admin/registry").status_code == 200
