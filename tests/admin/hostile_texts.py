"""Devices that nobody knows, as the Client Registry's page shows them."""

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
class Gate:
    """A service's registry: who comes to it, and what it knows of them."""

    service: Service

    def told(self, method: str, path: str, **body: Any) -> Any:
        """Let the administrator ask the API for something that must succeed."""
        answer = self.service.call(method, f"/api/client-registry{path}", json=body)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    def unlock(self, **limits: Any) -> None:
        self.told("POST", "/unlock", **limits)

    def lock(self) -> None:
        self.told("POST", "/lock")

    def knock(self, username: str, password: str = "factory default", client_id: str = "plc") -> None:
        """Try to connect, as the broker tells it, and wait until that is recorded."""
        before = self.seen(username)
        fields = {"username": username, "password": password, "clientid": client_id}
        assert requests.post(self.service.broker_url + "/auth/user", json=fields, timeout=10).status_code == 403
        soon(lambda: self.seen(username) != before)

    def stranger(self, *, locked: bool = False, **fields: str) -> str:
        """Return the name of a device that has just tried to connect."""
        self.lock() if locked else self.unlock()
        username = f"stranger-{next(_numbers)}"
        self.knock(username, **fields)
        return username

    def applicant(self, **body: Any) -> dict[str, Any]:
        """Return what the registry answers to a device that has just asked over REST, with its name."""
        self.unlock()
        username = f"applicant-{next(_numbers)}"
        wanted = {"username": username, "password": "factory default", **body}
        answer = requests.post(self.service.url + REGISTER, json=wanted, timeout=10)
        assert answer.status_code == 202, answer.text
        return {**answer.json(), "username": username}

    def seen(self, username: str) -> dict[str, Any] | None:
        """Return the registration of a name, if there is one."""
        found = self.service.call("GET", REGISTRATIONS, params={"search": username}).json()["items"]
        return next((one for one in found if one["username"] == username), None)

    def id_of(self, username: str) -> str:
        registration = self.seen(username)
        assert registration
        return str(registration["id"])

    def status_of(self, username: str) -> str:
        registration = self.seen(username)
        return str(registration["status"]) if registration else "forgotten"

    def user(self, username: str) -> dict[str, Any]:
        """Return a user that there must be."""
        answer = self.service.call("GET", f"/api/users/{username}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def gets_in(self, username: str, password: str = "factory default") -> bool:
        fields = {"username": username, "password": password, "clientid": "plc"}
        return requests.post(self.service.broker_url + "/auth/user", json=fields, timeout=10).status_code == 200


def row_of(page: Page, username: str) -> Locator:
    """Return the row of a name; it may be yet to come."""
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=username))


def decide_on(page: Page, username: str) -> Locator:
    """Open the dialog of a registration and return it."""
    row_of(page, username).get_by_role("button", name="Decide").click()
    dialog = page.get_by_role("dialog", name=f"Grant access to {username}")
    expect(dialog).to_be_visible()
    return dialog
