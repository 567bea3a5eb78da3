"""One service with its registry, seen by those who meet there: strangers, the broker, Alice, and Charlie."""

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
from authsvc.app import create_app
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
    """Give the service of a test other settings."""
    return pytest.mark.parametrize("settings", [changes], indirect=True, ids=[""])


def settle() -> None:
    """Make Alice, who administers, Charlie, who may do all in the registry and nothing else, and roles to give."""
    roles.create(OPERATOR, "press", "what every press may do", [mqtt("readWrite", "presses/%u/#")])
    roles.create(OPERATOR, "line", "what a line needs", [mqtt("write", "lines/+")])
    _move_in("alice", password=ALICES_PASSWORD, roles=("admin",))
    _move_in("charlie", password=CHARLIES_PASSWORD, permissions=(http("readWrite", "/api/client-registry/#"),))


def _move_in(username: str, **fields: Any) -> None:
    users.create(OPERATOR, username, UserChanges(**fields), HASHER)  # type: ignore[typeddict-item]


@dataclass(frozen=True)
class Place:
    """A running app and the ways to it."""

    app: OpenAPI

    @classmethod
    def opened(cls, settings: Settings) -> Place:
        """Return the app as gunicorn would load it, without the threads beside it."""
        place = cls(create_app(settings))
        place.services.policy.catch_up()
        return place

    def close(self) -> None:
        """Listen to strangers no more; the signal is the whole process's."""
        unknown_username.disconnect(self.intake.enqueue)

    @property
    def stranger(self) -> Caller:
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
    def intake(self) -> MqttRegistration:
        parts = self.app.extensions[routes.EXTENSION]
        assert isinstance(parts, routes.Registry)
        return parts.intake

    @property
    def unknown_names(self) -> UnknownNames:
        parts = self.app.extensions[routes.EXTENSION]
        assert isinstance(parts, routes.Registry)
        return parts.explicit.unknown_names

    @property
    def attempted(self) -> AttemptedNames:
        parts = self.app.extensions[routes.EXTENSION]
        assert isinstance(parts, routes.Registry)
        return parts.explicit.attempted

    def hears(self, username: str, password: str, client_id: str = "c1") -> str:
        """Let the broker ask about one CONNECT, and return the reason that it is given."""
        fields = {"username": username, "password": password, "clientid": client_id}
        request = WebhookRequest("user", b"", b"application/json", b"", json.dumps(fields).encode())
        reason: str = json.loads(self.services.webhooks.answer(request).body)["error"]
        return reason

    def connects(self, username: str, password: str, client_id: str = "c1") -> bool:
        """Say whether a CONNECT is let in, once all that was known is in force; a stranger's is written down."""
        self.services.policy.catch_up()
        answers = iter(lambda: self.hears(username, password, client_id), None)
        # A device that comes while its hash is being verified comes again.
        reason = next(answer for answer in answers if answer not in ("verifying", "hashing-busy"))
        self.writes_down()
        return not reason

    def writes_down(self) -> None:
        """Write what was heard, however many turns that takes."""
        self.intake.flush()
        while self.intake.waiting:
            self.intake.flush()

    def registers(self, username: str = "bob", *, address: str = "127.0.0.1", **body: Any) -> TestResponse:
        """Ask as a client does; with Bob's password unless it brings something else."""
        held = body if {"password", "csr"} & set(body) else {"password": BOBS_PASSWORD, **body}
        client = {"REMOTE_ADDR": address}
        return self.stranger.post(REGISTER, {"username": username, **held}, environ_base=client)

    def asks(self, username: str = "bob", **body: Any) -> str:
        """Register, which must be taken down, and return the registration's id."""
        answer = self.registers(username, **body)
        assert answer.status_code == 202, answer.text
        registration: str = answer.get_json()["id"]
        return registration

    def unlock(self, **limits: Any) -> None:
        done(self.alice.post("/api/client-registry/unlock", limits))

    def lock(self) -> None:
        done(self.alice.post("/api/client-registry/lock"))

    def grant(self, registration: str, **given: Any) -> TestResponse:
        return self.alice.post(f"{REGISTRATIONS}/{registration}/grant", given)

    def granted(self, registration: str, **given: Any) -> dict[str, Any]:
        """Let Alice grant it, which must succeed."""
        return done(self.grant(registration, **given))

    def deny(self, registration: str, **body: Any) -> TestResponse:
        return self.alice.post(f"{REGISTRATIONS}/{registration}/deny", body)

    def registrations(self, **query: Any) -> list[dict[str, Any]]:
        """Return what Alice sees."""
        items: list[dict[str, Any]] = done(self.alice.get(REGISTRATIONS, query_string=query))["items"]
        return items

    def registration(self, username: str = "bob") -> dict[str, Any]:
        """Return the one registration under a name, as Alice sees it."""
        (found,) = [one for one in self.registrations(search=username) if one["username"] == username]
        return found

    def user(self, username: str = "bob") -> dict[str, Any] | None:
        """Return the user as Alice sees it, if there is one."""
        answer = self.alice.get(f"/api/users/{username}")
        return None if answer.status_code == 404 else done(answer)

    def in_status(self, status: str, username: str = "bob") -> str:
        """Bring a registration to a status and return its id."""
        self.unlock()
        registration = self.asks(username)
        if status == "granted":
            self.granted(registration)
        elif status == "denied":
            done(self.deny(registration))
        elif status == "expired":
            expire()
        assert self.registration(username)["status"] == status
        return registration


def csrf_token(browser: FlaskClient, path: str) -> str:
    """Return the CSRF token of the first form on a page."""
    found = re.search(r'name="csrf_token" value="([^"]+)"', browser.get(path).text)
    assert found
    return found[1]


def done(answer: TestResponse) -> dict[str, Any]:
    """Return the body of an answer that must be a success."""
    assert answer.status_code in (200, 201), answer.text
    body: dict[str, Any] = answer.get_json()
    return body


def time_passes(passed: timedelta) -> None:
    """Let all that the registry has stored have happened so much earlier."""
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
    """Let all that is pending run out."""
    time_passes(timedelta(hours=ttl_hours, seconds=1))
    return decisions.expire(ttl_hours)


def stored(username: str = "bob") -> Registration | None:
    """Return the row of a registration, with what nobody is shown."""
    with session():
        row: Registration | None = Registration.get_or_none(Registration.username == username)
        return row


def actions() -> list[str]:
    """Return what the audit trail says was done, oldest first."""
    return [event.action for event in events()]


def events() -> list[audit.Event]:
    """Return the audit trail, oldest first."""
    with session():
        count = AuditEvent.select().count()
    return audit.events(1, count + 1, {}).items[::-1]


def everything() -> dict[str, list[Any]]:
    """Return every row of every table, to be compared with itself later."""
    with session():
        return {model.__name__: sorted(model.select().tuples(), key=repr) for model in (*foundation.ALL, *models.ALL)}


@contextmanager
def broken(table: str, condition: str, event: str = "INSERT") -> Iterator[None]:
    """Let the database refuse such rows."""
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


def soon(ask: Callable[[], Result], within: float = 10.0) -> Result:
    """Ask until there is something to return; what does not come is an error."""
    deadline = time.monotonic() + within
    while not (answer := ask()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)
    return answer


@contextmanager
def no_writes() -> Iterator[None]:
    """Hold what happens inside to changing nothing in the database."""
    before = everything()
    yield
    assert everything() == before


def at_once(number: int, action: Callable[[int], Result]) -> list[Result]:
    """Do the same in so many threads, which all begin at the same moment."""
    ready = Barrier(number)

    def act(position: int) -> Result:
        ready.wait()
        return action(position)

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(act, range(number)))
