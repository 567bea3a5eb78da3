"""A service on SQLite with seed data behind Flask's test client, and its callers."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import pytest

from authsvc.accounts import api_tokens, bootstrap
from authsvc.app import compose
from authsvc.settings import Settings
from authsvc.storage.database import database
from authsvc.web.request_context import EXTENSION
from tests.actors import ADMIN_PASSWORD, OPERATOR
from tests.databases import kept_open
from tests.http.broker import ADAPTERS, broker_by, services_of
from tests.http.callers import Caller
from tests.http.console import Console
from tests.http.seed_data import CHARLIES_PASSWORD, DOTS_PASSWORD, create_users
from tests.service import Service
from tests.shared_routes import app_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flask.testing import FlaskClient
    from flask_openapi3.openapi import OpenAPI

    from authsvc.web.request_context import Services
    from tests.http.broker import Broker


class Seed(NamedTuple):
    """A data directory and an API token of Alice."""

    directory: Path
    alices_token: str


@pytest.fixture(scope="session")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Seed:
    """A data directory after its first start, with the seed data, and a token. Tests copy it and do not change it."""
    settings = _settings(tmp_path_factory.mktemp("seed") / "data")
    bootstrap.prepare(settings)
    create_users()
    # For a year, because some tests set the clock to a later date.
    token = api_tokens.issue_token(OPERATOR, "alice", "", 24 * 365).token
    database.initialize(None)
    return Seed(settings.data_dir, token)


@pytest.fixture(scope="session")
def seed_directory(seed: Seed) -> Path:
    """The data directory of the seed."""
    return seed.directory


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The settings of a service on SQLite; `tests/storage` tests both databases."""
    return _settings(tmp_path / "data")


@pytest.fixture
def seeded(settings: Settings, seed_directory: Path) -> Iterator[Settings]:
    """The settings of a service with the seed data in a database of this test."""
    shutil.copytree(seed_directory, settings.data_dir)
    bootstrap.open_database(settings)
    with kept_open(settings.database_url):
        yield settings
    database.initialize(None)


@pytest.fixture(scope="session")
def routes(tmp_path_factory: pytest.TempPathFactory) -> OpenAPI:
    """The routes of the service, created once; each test sets its own `Services` behind them."""
    return app_for(_settings(tmp_path_factory.mktemp("routes")))


@pytest.fixture
def app(routes: OpenAPI, seeded: Settings) -> OpenAPI:
    """The service with the seed data as gunicorn loads it, without background threads."""
    return with_services_of(routes, seeded)


@pytest.fixture
def services(app: OpenAPI) -> Services:
    """The `Services` of the app."""
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
    """A test client without credentials."""
    return app.test_client()


@pytest.fixture
def anonymous(client: FlaskClient) -> Caller:
    """A caller without credentials."""
    return Caller(client)


@pytest.fixture
def alice(client: FlaskClient, seed: Seed) -> Caller:
    """Alice, an administrator."""
    return Caller(client, f"Bearer {seed.alices_token}")


@pytest.fixture
def charlie(anonymous: Caller) -> Caller:
    """Charlie, who may only manage users."""
    return anonymous.signs_in("charlie", CHARLIES_PASSWORD)


@pytest.fixture
def dot(anonymous: Caller) -> Caller:
    """Dot, whose token is valid and who has no permissions."""
    return anonymous.signs_in("dot", DOTS_PASSWORD)


def with_services_of(routes: OpenAPI, settings: Settings) -> OpenAPI:
    """Set the `Services` for these settings behind the routes, with the policy loaded."""
    routes.extensions[EXTENSION] = parts = compose(settings)
    parts.policy.catch_up()
    return routes


def _settings(data_dir: Path) -> Settings:
    return Settings(
        data_dir=data_dir,
        database_url=f"sqlite:///{data_dir}/authsvc.db",
        admin_password=ADMIN_PASSWORD,
        bcrypt_cost=4,
        # Brokers wait for a password hash even on a busy machine.
        connect_budget_ms=4000,
        # schemathesis guesses hundreds of passwords; other tests cover this limit.
        wrong_passwords_per_minute=1_000_000,
    )


@pytest.fixture
def prepared_on_either(database_url: str, tmp_path: Path) -> Settings:
    """The settings of a service after its first start, on SQLite and on PostgreSQL."""
    settings = replace(_settings(tmp_path / "data"), database_url=database_url)
    bootstrap.prepare(settings)
    return settings


@pytest.fixture
def shell(seeded: Settings, tmp_path: Path) -> Service:
    """The command line with the seed data; the service does not run."""
    assert seeded.data_dir == tmp_path / "data"
    return Service(tmp_path)


@pytest.fixture
def console(shell: Service, capsys: pytest.CaptureFixture[str]) -> Console:
    """The same command line in this process, which is faster."""
    return Console(shell.environment, capsys)


@pytest.fixture
def running(tmp_path: Path, seed_directory: Path) -> Iterator[Service]:
    """The service with the seed data, not started, so that a test can change its environment."""
    shutil.copytree(seed_directory, tmp_path / "data")
    service = Service(tmp_path, {"AUTHSVC_ADMIN_PASSWORD": ADMIN_PASSWORD})
    yield service
    service.kill()
