"""An inhabited service on SQLite behind Flask's test client, and the people who call it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from authsvc.accounts import bootstrap
from authsvc.app import compose, create_app
from authsvc.settings import Settings
from authsvc.storage.database import database
from authsvc.web.request_context import EXTENSION
from tests.actors import ADMIN_PASSWORD
from tests.http.broker import ADAPTERS, broker_by, services_of
from tests.http.callers import Caller
from tests.http.console import Console
from tests.http.seed_data import ALICES_PASSWORD, CHARLIES_PASSWORD, DOTS_PASSWORD, create_users
from tests.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask.testing import FlaskClient
    from flask_openapi3.openapi import OpenAPI

    from authsvc.web.request_context import Services
    from tests.http.broker import Broker


@pytest.fixture(scope="session")
def village(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory after its first start, with everybody in it; to be copied, not used."""
    settings = _settings(tmp_path_factory.mktemp("village") / "data")
    bootstrap.prepare(settings)
    create_users()
    database.initialize(None)
    return settings.data_dir


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The settings of a service on SQLite; what both databases have to do alike is tested in `tests/storage`."""
    return _settings(tmp_path / "data")


@pytest.fixture
def inhabited(settings: Settings, village: Path) -> Iterator[Settings]:
    """The settings of a service that everybody lives in, connected to a database of this test's own."""
    shutil.copytree(village, settings.data_dir)
    bootstrap.open_database(settings)
    yield settings
    database.initialize(None)


@pytest.fixture(scope="session")
def routes() -> OpenAPI:
    """The service's addresses, which no test changes; each test puts its own parts behind them."""
    return create_app(_settings(Path("nowhere")))


@pytest.fixture
def app(routes: OpenAPI, inhabited: Settings) -> OpenAPI:
    """The inhabited service as gunicorn would load it, without the threads beside it."""
    return with_parts_of(routes, inhabited)


@pytest.fixture
def services(app: OpenAPI) -> Services:
    """The parts of the service."""
    return services_of(app)


@pytest.fixture
def broker(app: OpenAPI) -> Broker:
    """A broker that calls `Webhooks.answer`; `test_webhook_adapters.py` tests the two adapters."""
    return broker_by("function", app)


@pytest.fixture(params=ADAPTERS)
def adapter(request: pytest.FixtureRequest, app: OpenAPI) -> Broker:
    """A broker that calls the webhooks through the Flask view or the ASGI application."""
    return broker_by(request.param, app)


@pytest.fixture
def client(app: OpenAPI) -> FlaskClient:
    """A client that nobody has signed in with."""
    return app.test_client()


@pytest.fixture
def nobody(client: FlaskClient) -> Caller:
    """A caller without credentials."""
    return Caller(client)


@pytest.fixture
def alice(nobody: Caller) -> Caller:
    """Alice, who administers."""
    return nobody.signs_in("alice", ALICES_PASSWORD)


@pytest.fixture
def charlie(nobody: Caller) -> Caller:
    """Charlie, who looks after users and must not reach further."""
    return nobody.signs_in("charlie", CHARLIES_PASSWORD)


@pytest.fixture
def dot(nobody: Caller) -> Caller:
    """Dot, whose token is good and has no rights at all."""
    return nobody.signs_in("dot", DOTS_PASSWORD)


def with_parts_of(routes: OpenAPI, settings: Settings) -> OpenAPI:
    """Put the parts of a service with these settings behind the addresses, its policy loaded."""
    routes.extensions[EXTENSION] = parts = compose(settings)
    parts.policy.catch_up()
    return routes


def _settings(data_dir: Path) -> Settings:
    return Settings(
        data_dir=data_dir,
        database_url=f"sqlite:///{data_dir}/authsvc.db",
        admin_password=ADMIN_PASSWORD,
        bcrypt_cost=4,
        # However busy the machine, a broker waits for its hash.
        connect_budget_ms=4000,
        # A generator of requests guesses passwords by the hundred; who is throttled is tested where people sign in.
        wrong_passwords_per_minute=1_000_000,
    )


@pytest.fixture
def prepared_on_either(database_url: str, tmp_path: Path) -> Settings:
    """The settings of a service after its first start, on SQLite and on PostgreSQL."""
    settings = replace(_settings(tmp_path / "data"), database_url=database_url)
    bootstrap.prepare(settings)
    return settings


@pytest.fixture
def shell(inhabited: Settings, tmp_path: Path) -> Service:
    """The command line on the inhabited service's data; the service itself does not run."""
    assert inhabited.data_dir == tmp_path / "data"
    return Service(tmp_path)


@pytest.fixture
def console(shell: Service, capsys: pytest.CaptureFixture[str]) -> Console:
    """The same command line without a process of its own: for the many ways in which a command can be refused."""
    return Console(shell.environment, capsys)


@pytest.fixture
def running(tmp_path: Path, village: Path) -> Iterator[Service]:
    """The inhabited service, to be started as a process of its own; its environment may be changed before."""
    shutil.copytree(village, tmp_path / "data")
    service = Service(tmp_path, {"AUTHSVC_ADMIN_PASSWORD": ADMIN_PASSWORD})
    yield service
    service.kill()
