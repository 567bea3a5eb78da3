"""A service with Bob in it, who may log in by certificate, on either database."""

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
from tests.certificates.environment import Scene
from tests.certificates.fake_broker import Gate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def first_started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory on SQLite after its first start; to be copied, which is faster than another one."""
    directory = tmp_path_factory.mktemp("first") / "data"
    url = f"sqlite:///{directory}/authsvc.db"
    bootstrap.prepare(Settings(directory, url, admin_password=ADMIN_PASSWORD, bcrypt_cost=4))
    database.initialize(None)
    return directory


@pytest.fixture
def prepared(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    """The settings of a service after its first start, connected to its database until the test is over."""
    # However busy the machine, a broker waits for its hash.
    settings = replace(settings, connect_budget_ms=4000)
    if settings.database_url.startswith("sqlite:"):
        shutil.copytree(request.getfixturevalue("first_started"), settings.data_dir)
        bootstrap.open_database(settings)
    else:
        bootstrap.prepare(settings)
    return settings


@pytest.fixture
def scene(prepared: Settings) -> Iterator[Scene]:
    """The service after its first start, with Bob in it."""
    scene = Scene.opened(prepared)
    scene.moves_in("bob")
    yield scene
    scene.close()


@pytest.fixture
def server(scene: Scene) -> Iterator[str]:
    """Where the service answers over HTTP."""
    listening = make_server("127.0.0.1", free_port(), scene.app, threaded=True)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{listening.server_port}"
    listening.shutdown()
    thread.join()
    listening.server_close()


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A broker that lets everybody in."""
    with Gate() as gate:
        yield gate
