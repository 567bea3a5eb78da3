"""A service with its registry, and its callers: unknown devices, the broker, Alice and Charlie."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from threading import Barrier
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from authsvc.accounts import roles, users
from authsvc.accounts.users import UserChanges
from authsvc.activity import audit
from authsvc.broker.goauth_protocol import WebhookRequest
from authsvc.broker.signals import unknown_username
from authsvc.storage import models as foundation
from authsvc.storage.database import database, is_sqlite, session, transaction
from authsvc.storage.fields import Model, UtcDateTimeField
from authsvc.storage.models import Attempt, AuditEvent
from authsvc.web.request_context import EXTENSION, Services
from registry import decisions, models
from registry.api import routes
from registry.models import EnrolmentKey, Preauthorization, Registration, UnknownNameReport, Window
from tests.actors import HASHER, OPERATOR, http, mqtt
from tests.http.callers import Caller, basic
from tests.shared_routes import app_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flask.testing import FlaskClient
    from flask_openapi3.openapi import OpenAPI
    from werkzeug.test import TestResponse

    from authsvc.settings import Settings
    from registry.mqtt_registration.attempted_names import AttemptedNames
    from registry.mqtt_registration.registration import MqttRegistration
    from registry.mqtt_registration.unknown_names import UnknownNames

ALICES_PASSWORD = "alice may do anything"
CHARLIES_PASSWORD = "charlie looks after the registry"
BOBS_PASSWORD = "bob's very own secret"
REGISTER = "/api/client-registry/register"
REGISTRATIONS = "/api/client-registry/registrations"

ON_BOTH_DATABASES = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
ON_POSTGRESQL = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

Result = TypeVar("Result")


def with_settings(**changes: Any) -> pytest.MarkDecorator:
    """Change settings of the service in a test."""
    return pytest.mark.parametrize("settings", [changes], indirect=True, ids=[""])


def seed_users_and_roles() -> None:
    """Create Alice, an administrator, Charlie, who has all permissions on the registry only, and two roles."""
    roles.create(OPERATOR, "press", "what every press may do", [mqtt("readWrite", "presses/%u/#")])
    roles.create(OPERATOR, "line", "what a line needs", [mqtt("write", "lines/+")])
    _create_user("alice", password=ALICES_PASSWORD, roles=("admin",))
    _create_user("charlie", password=CHARLIES_PASSWORD, permissions=(http("readWrite", "/api/client-registry/#"),))


def _create_user(username: str, **fields: Any) -> None:
    users.create(OPERATOR, username, UserChanges(**fields), HASHER)  # type: ignore[typeddict-item]


@dataclass(frozen=True)
class Environment:
    """An app and its callers."""

    app: OpenAPI

    @classmethod
    def opened(cls, settings: Settings) -> Environment:
        """Create the app without its background threads."""
        env = cls(app_for(settings))
        env.services.policy.catch_up()
        return env

    def close(self) -> None:
        """Disconnect from the signal, which is shared by the whole process."""
        unknown_username.disconnect(self.mqtt.enqueue)

    @property
    def anonymous(self) -> Caller:
        return Caller(self.app.test_client())

    @property
    def alice(self) -> Caller:
        return Caller(self.app.test_client(), basic("alice", ALICES_PASSWORD))

    @property
    def charlie(self) -> Caller:
        return Caller(self.app.test_client(), basic("charlie", CHARLIES_PASSWORD))

    @property
    def services(self) -> Services:
        parts = self.app.extensions[EXTENSION]
        assert isinstance(parts, Services)
        return parts

    @property
    def mqtt(self) -> MqttRegistration:
        parts = self.app.extensions[routes.EXTENSION]
        assert isinstance(parts, routes.Registry)
        return parts.mqtt_registration

    @property
    def unknown_names(self) -> UnknownNames:
        parts = self.app.extensions[routes.EXTENSION]
        assert isinstance(parts, routes.Registry)
        return parts.rest_registration.unknown_names

    @property
    def attempted(self) -> AttemptedNames:
        parts = self.app.extensions[routes.EXTENSION]
        assert isinstance(parts, routes.Registry)
        return parts.rest_registration.attempted

    def authenticate(self, username: str, password: str, client_id: str = "c1") -> str:
        """Send one CONNECT to the broker webhook; return the reason of the denial, empty if allowed."""
        fields = {"username": username, "password": password, "clientid": client_id}
        request = WebhookRequest("user", b"", b"application/json", b"", json.dumps(fields).encode())
        reason: str = json.loads(self.services.webhooks.answer(request).body)["error"]
        return reason

    def connect(self, username: str, password: str, client_id: str = "c1") -> bool:
        """Update the policy, send a CONNECT, write unknown names; return whether the CONNECT is allowed."""
        self.services.policy.catch_up()
        answers = iter(lambda: self.authenticate(username, password, client_id), None)
        # A device retries while its password is being verified.
        reason = next(answer for answer in answers if answer not in ("verifying", "hashing-busy"))
        self.flush()
        return not reason

    def flush(self) -> None:
        """Write all queued contacts."""
        self.mqtt.flush()
        while self.mqtt.waiting:
            self.mqtt.flush()

    def register(self, username: str = "bob", *, address: str = "127.0.0.1", **body: Any) -> TestResponse:
        """Send a registration, with Bob's password unless the body has other credentials."""
        held = body if {"password", "csr"} & set(body) else {"password": BOBS_PASSWORD, **body}
        client = {"REMOTE_ADDR": address}
        return self.anonymous.post(REGISTER, {"username": username, **held}, environ_base=client)

    def register_pending(self, username: str = "bob", **body: Any) -> str:
        """Register with the expected answer 202; return the registration's id."""
        answer = self.register(username, **body)
        assert answer.status_code == 202, answer.text
        registration: str = answer.get_json()["id"]
        return registration

    def unlock(self, **limits: Any) -> None:
        expect_success(self.alice.post("/api/client-registry/unlock", limits))

    def lock(self) -> None:
        expect_success(self.alice.post("/api/client-registry/lock"))

    def grant(self, registration: str, **given: Any) -> TestResponse:
        return self.alice.post(f"{REGISTRATIONS}/{registration}/grant", given)

    def grant_successfully(self, registration: str, **given: Any) -> dict[str, Any]:
        """Let Alice grant a registration and assert that it succeeds."""
        return expect_success(self.grant(registration, **given))

    def deny(self, registration: str, **body: Any) -> TestResponse:
        return self.alice.post(f"{REGISTRATIONS}/{registration}/deny", body)

    def registrations(self, **query: Any) -> list[dict[str, Any]]:
        """Return the registrations that Alice sees."""
        items: list[dict[str, Any]] = expect_success(self.alice.get(REGISTRATIONS, query_string=query))["items"]
        return items

    def registration(self, username: str = "bob") -> dict[str, Any]:
        """Return the registration of a username that Alice sees."""
        (found,) = [one for one in self.registrations(search=username) if one["username"] == username]
        return found

    def user(self, username: str = "bob") -> dict[str, Any] | None:
        """Return the user that Alice sees, or None."""
        answer = self.alice.get(f"/api/users/{username}")
        return None if answer.status_code == 404 else expect_success(answer)

    def create_in_status(self, status: str, username: str = "bob") -> str:
        """Create a registration in a status and return its id."""
        self.unlock()
        registration = self.register_pending(username)
        if status == "granted":
            self.grant_successfully(registration)
        elif status == "denied":
            expect_success(self.deny(registration))
        elif status == "expired":
            expire()
        assert self.registration(username)["status"] == status
        return registration


def csrf_token(browser: FlaskClient, path: str) -> str:
    """Return the CSRF token of the first form on a page."""
    found = re.search(r'name="csrf_token" value="([^"]+)"', browser.get(path).text)
    assert found
    return found[1]


def expect_success(answer: TestResponse) -> dict[str, Any]:
    """Assert that the status is 200 or 201; return the body."""
    assert answer.status_code in (200, 201), answer.text
    body: dict[str, Any] = answer.get_json()
    return body


def shift_time(passed: timedelta) -> None:
    """Move all times that the registry has stored into the past."""
    with transaction():
        for model in (Registration, Window, Preauthorization, EnrolmentKey, UnknownNameReport, Attempt):
            for row in list(model.select()):
                _shift(row, passed)


def _shift(row: Model, passed: timedelta) -> None:
    for name, field in row._meta.fields.items():
        moment = getattr(row, name)
        if isinstance(field, UtcDateTimeField) and moment:
            setattr(row, name, moment - passed)
    row.save()


def expire(ttl_hours: int = 24) -> int:
    """Expire all pending registrations; return how many."""
    shift_time(timedelta(hours=ttl_hours, seconds=1))
    return decisions.expire(ttl_hours)


def stored_registration(username: str = "bob") -> Registration | None:
    """Return the database row of a registration."""
    with session():
        row: Registration | None = Registration.get_or_none(Registration.username == username)
        return row


def actions() -> list[str]:
    """Return the actions of the audit trail, oldest first."""
    return [event.action for event in events()]


def events() -> list[audit.Event]:
    """Return the audit trail, oldest first."""
    with session():
        count = AuditEvent.select().count()
    return audit.events(1, count + 1, audit.AuditFilter()).items[::-1]


def all_rows() -> dict[str, list[Any]]:
    """Return every row of every table."""
    with session():
        return {model.__name__: sorted(model.select().tuples(), key=repr) for model in (*foundation.ALL, *models.ALL)}


@contextmanager
def failing_writes(table: str, condition: str, event: str = "INSERT") -> Iterator[None]:
    """Let the database refuse rows that meet the condition."""
    before = f"BEFORE {event} ON {table} FOR EACH ROW WHEN ({condition})"
    body = "BEGIN SELECT RAISE(ABORT, 'broken'); END"
    with session():
        if not is_sqlite():
            language = "LANGUAGE plpgsql AS 'BEGIN RAISE ''broken''; END'"
            database.execute_sql(f"CREATE FUNCTION refuse() RETURNS trigger {language}")
            body = "EXECUTE FUNCTION refuse()"
        database.execute_sql(f"CREATE TRIGGER broken {before} {body}")
    yield
    with session():
        database.execute_sql("DROP TRIGGER broken" + ("" if is_sqlite() else f" ON {table}"))


def wait_until(ask: Callable[[], Result], within: float = 10.0) -> Result:
    """Poll until the result is true and return it; fail after `within` seconds."""
    deadline = time.monotonic() + within
    while not (answer := ask()):
        assert time.monotonic() < deadline, "nothing came within the time limit"
        time.sleep(0.01)
    return answer


@contextmanager
def no_writes() -> Iterator[None]:
    """Assert that the block does not change the database."""
    before = all_rows()
    yield
    assert all_rows() == before


def in_parallel(number: int, action: Callable[[int], Result]) -> list[Result]:
    """Run the action in this many threads that start at the same moment."""
    ready = Barrier(number)

    def act(position: int) -> Result:
        ready.wait()
        return action(position)

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(act, range(number)))
