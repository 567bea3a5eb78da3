"""Fixtures: a service on SQLite or PostgreSQL with the user bob, who may log in with a certificate."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from werkzeug.serving import make_server

from authsvc.accounts import bootstrap
from authsvc.settings import Settings
from authsvc.storage.database import database
from tests.actors import ADMIN_PASSWORD
from tests.broker import free_port
from tests.certificates.environment import Environment
from tests.certificates.fake_broker import FakeBroker
from tests.databases import kept_open

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def first_started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data directory with SQLite after the first start. Tests copy it, which is faster than another start."""
    directory = tmp_path_factory.mktemp("first") / "data"
    url = f"sqlite:///{directory}/authsvc.db"
    bootstrap.prepare(Settings(directory, url, admin_password=ADMIN_PASSWORD, bcrypt_cost=4))
    database.initialize(None)
    return directory


@pytest.fixture
def prepared(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    """Return the settings of a service after its first start; its database stays connected during the test."""
    # A broker waits for its hash even on a busy machine.
    settings = replace(settings, connect_budget_ms=4000)
    if settings.database_url.startswith("sqlite:"):
        shutil.copytree(request.getfixturevalue("first_started"), settings.data_dir)
        bootstrap.open_database(settings)
    else:
        bootstrap.prepare(settings)
    return settings


@pytest.fixture
def env(prepared: Settings) -> Iterator[Environment]:
    """Return the service after its first start, with the user bob."""
    with kept_open(prepared.database_url):
        env = Environment.opened(prepared)
        env.create_user("bob")
        yield env
        env.close()


@pytest.fixture
def server(env: Environment) -> Iterator[str]:
    """Return the URL of the service."""
    listening = make_server("127.0.0.1", free_port(), env.app, threaded=True)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{listening.server_port}"
    listening.shutdown()
    thread.join()
    listening.server_close()


@pytest.fixture
def fake_broker() -> Iterator[FakeBroker]:
    """Return a broker that accepts every connection."""
    with FakeBroker() as fake_broker:
        yield fake_broker
