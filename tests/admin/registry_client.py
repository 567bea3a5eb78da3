"""The client registry of a running service: unknown devices, registrations, and their rows and dialog on the page."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import requests
from playwright.sync_api import expect

from tests.registry.environment import REGISTER, REGISTRATIONS, soon

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from tests.service import Service

_numbers = count(1)


@dataclass(frozen=True)
class Registry:
    """The client registry of a service, as devices and the administrator use it."""

    service: Service

    def call_api(self, method: str, path: str, **body: Any) -> Any:
        """Return the JSON response to the administrator's API call, which must succeed."""
        answer = self.service.call(method, f"/api/client-registry{path}", json=body)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    def unlock(self, **limits: Any) -> None:
        self.call_api("POST", "/unlock", **limits)

    def lock(self) -> None:
        self.call_api("POST", "/lock")

    def attempt_login(self, username: str, password: str = "factory default", client_id: str = "plc") -> None:
        """Send the broker's webhook for an unknown device, and wait until the registry has recorded the attempt."""
        before = self.registration_of(username)
        fields = {"username": username, "password": password, "clientid": client_id}
        assert requests.post(self.service.url + "/auth/user", json=fields, timeout=10).status_code == 403
        soon(lambda: self.registration_of(username) != before)

    def add_unknown_device(self, *, locked: bool = False, **fields: str) -> str:
        """Return the username of a new unknown device whose attempt to connect was recorded."""
        self.lock() if locked else self.unlock()
        username = f"unknown-{next(_numbers)}"
        self.attempt_login(username, **fields)
        return username

    def register_over_rest(self, **body: Any) -> dict[str, Any]:
        """Return the registry's response to a new device that registers over REST, with its username added."""
        self.unlock()
        username = f"applicant-{next(_numbers)}"
        wanted = {"username": username, "password": "factory default", **body}
        answer = requests.post(self.service.url + REGISTER, json=wanted, timeout=10)
        assert answer.status_code == 202, answer.text
        return {**answer.json(), "username": username}

    def registration_of(self, username: str) -> dict[str, Any] | None:
        found = self.service.call("GET", REGISTRATIONS, params={"search": username}).json()["items"]
        return next((one for one in found if one["username"] == username), None)

    def id_of(self, username: str) -> str:
        registration = self.registration_of(username)
        assert registration
        return str(registration["id"])

    def status_of(self, username: str) -> str:
        registration = self.registration_of(username)
        return str(registration["status"]) if registration else "forgotten"

    def user(self, username: str) -> dict[str, Any]:
        """Return a user, which must exist."""
        answer = self.service.call("GET", f"/api/users/{username}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def can_log_in(self, username: str, password: str = "factory default") -> bool:
        fields = {"username": username, "password": password, "clientid": "plc"}
        return requests.post(self.service.broker_url + "/auth/user", json=fields, timeout=10).status_code == 200


def registration_row(page: Page, username: str) -> Locator:
    """Return the table row of a registration; it may not be displayed yet."""
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=username))


def open_decision_dialog(page: Page, username: str) -> Locator:
    """Open the dialog of a registration and return it."""
    registration_row(page, username).get_by_role("button", name="Decide").click()
    dialog = page.get_by_role("dialog", name=f"Grant access to {username}")
    expect(dialog).to_be_visible()
    return dialog
