"""Creates registrations for tests of the Client Registry's pages."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import requests
from playwright.sync_api import expect

from tests.registry.environment import REGISTER, REGISTRATIONS, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from tests.service import Service

_numbers = count(1)


@dataclass(frozen=True)
class RegistryDriver:
    """The registry of a service, its devices and its registrations."""

    service: Service

    def call(self, method: str, path: str, **body: Any) -> Any:
        """Call the API as administrator and assert success."""
        answer = self.service.call(method, f"/api/client-registry{path}", json=body)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    def unlock(self, **limits: Any) -> None:
        self.call("POST", "/unlock", **limits)

    def lock(self) -> None:
        self.call("POST", "/lock")

    def try_to_connect(self, username: str, password: str = "factory default", client_id: str = "plc") -> None:
        """Send a CONNECT to the broker webhook and wait until it is recorded."""
        before = self.find_registration(username)
        fields = {"username": username, "password": password, "clientid": client_id}
        assert requests.post(self.service.broker_url + "/auth/user", json=fields, timeout=10).status_code == 403
        wait_until(lambda: self.find_registration(username) != before)

    def add_unknown_device(self, *, locked: bool = False, **fields: str) -> str:
        """Let an unknown device try to connect; return its username."""
        self.lock() if locked else self.unlock()
        username = f"unknown-{next(_numbers)}"
        self.try_to_connect(username, **fields)
        return username

    def add_rest_client(self, **body: Any) -> dict[str, Any]:
        """Register a client over REST; return the answer and the username."""
        self.unlock()
        username = f"rest-client-{next(_numbers)}"
        wanted = {"username": username, "password": "factory default", **body}
        answer = requests.post(self.service.url + REGISTER, json=wanted, timeout=10)
        assert answer.status_code == 202, answer.text
        return {**answer.json(), "username": username}

    def find_registration(self, username: str) -> dict[str, Any] | None:
        """Return the registration of a username, or None."""
        found = self.service.call("GET", REGISTRATIONS, params={"search": username}).json()["items"]
        return next((one for one in found if one["username"] == username), None)

    def id_of(self, username: str) -> str:
        registration = self.find_registration(username)
        assert registration
        return str(registration["id"])

    def status_of(self, username: str) -> str:
        registration = self.find_registration(username)
        return str(registration["status"]) if registration else "deleted"

    def user(self, username: str) -> dict[str, Any]:
        """Return an existing user."""
        answer = self.service.call("GET", f"/api/users/{username}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def can_log_in(self, username: str, password: str = "factory default") -> bool:
        fields = {"username": username, "password": password, "clientid": "plc"}
        return requests.post(self.service.broker_url + "/auth/user", json=fields, timeout=10).status_code == 200


def row_of(page: Page, username: str) -> Locator:
    """Return the table row of a username."""
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=username))


def open_decision_dialog(page: Page, username: str) -> Locator:
    """Open the dialog of a registration; return the dialog."""
    row_of(page, username).get_by_role("button", name="Decide").click()
    dialog = page.get_by_role("dialog", name=f"Grant access to {username}")
    expect(dialog).to_be_visible()
    return dialog
