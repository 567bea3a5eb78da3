"""Writes many users, roles and permissions directly into the database of a service."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import bcrypt
import psycopg

from authsvc.accounts import bootstrap
from authsvc.settings import from_environment
from authsvc.storage.database import close_all_connections
from bench.deployment import default_service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from tests.service import Service

    Insert = Callable[[str, str, Iterable[tuple[Any, ...]]], None]

PASSWORD = "s3cret-7"
_PATIENCE = 600.0  # reading many users takes long while other services start
_LONG_AGO = "2026-01-01 00:00:00"
_FIRST_ID = 1_000  # greater than the ids that a first start uses
_READ_WRITE = ("mqtt", "readWrite", "allow")


class Population(NamedTuple):
    """The number of users, of permissions per user, and of roles; each user has one role."""

    users: int
    permissions: int
    roles: int


def username(number: int) -> str:
    """Return the username of a user by number, from 0; the password is `PASSWORD`."""
    return f"press-{number:06}"


def role(number: int) -> str:
    """Return the name of a role by number, from 0."""
    return f"line-{number:04}"


def topic(number: int, permission: int, rest: str) -> str:
    """Return a topic that this permission of the user allows."""
    return f"plant/{username(number)}/{permission}/{rest}"


def write_population(environment: Mapping[str, str], population: Population) -> None:
    """Prepare the database of a service with this environment and insert the population in one transaction."""
    bootstrap.prepare(from_environment(environment))
    close_all_connections()
    with inserting(environment) as insert:
        _write(insert, population)


@contextmanager
def inserting(environment: Mapping[str, str]) -> Iterator[Insert]:
    """Yield a function that inserts rows into a table, given its name and columns; all is one transaction."""
    url = from_environment(environment).database_url
    if url.startswith("sqlite:"):
        with closing(sqlite3.connect(Path(url.removeprefix("sqlite:///")))) as file, file:
            yield partial(_insert, file)
    else:
        with psycopg.connect(url, autocommit=True) as server:
            with server.transaction():
                yield partial(_copy, server)
            server.execute("ANALYZE")


def _write(insert: Insert, population: Population) -> None:
    password_hash = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()
    users, roles = range(population.users), range(population.roles)
    user_columns = "id, username, password_hash, enabled, grant_types, client_ids, created_at, updated_at"
    rows = ((_id(n), username(n), password_hash, 1, "password", "[]", _LONG_AGO, _LONG_AGO) for n in users)
    insert("users", user_columns, rows)
    role_columns = "id, name, description, built_in, client_ids, created_at, updated_at"
    insert("roles", role_columns, ((_id(n), role(n), "", 0, "[]", _LONG_AGO, _LONG_AGO) for n in roles))
    own = ((_id(n), _READ_WRITE, topic(n, each, "#")) for n in users for each in range(population.permissions))
    insert("permissions", "user_id, context, operation, effect, resource", _flat(own))
    of_roles = ((_id(n), _READ_WRITE, f"lines/{n}/#") for n in roles)
    insert("permissions", "role_id, context, operation, effect, resource", _flat(of_roles))
    if roles:
        insert("user_roles", "user_id, role_id", ((_id(n), _id(n % len(roles))) for n in users))


def _id(number: int) -> int:
    return _FIRST_ID + number


def _flat(rows: Iterable[tuple[int, tuple[str, ...], str]]) -> Iterable[tuple[Any, ...]]:
    return ((owner, *words, resource) for owner, words, resource in rows)


def _insert(file: sqlite3.Connection, table: str, columns: str, rows: Iterable[tuple[Any, ...]]) -> None:
    values = ", ".join("?" for _ in columns.split(","))
    file.executemany(f"INSERT INTO {table} ({columns}) VALUES ({values})", rows)


def _copy(server: psycopg.Connection[Any], table: str, columns: str, rows: Iterable[tuple[Any, ...]]) -> None:
    with server.cursor().copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


@contextmanager
def populated_service(population: Population, environment: Mapping[str, str] | None = None) -> Iterator[Service]:
    """Yield a service with this population and default settings or those given; it is not started."""
    with TemporaryDirectory() as directory:
        service = default_service(Path(directory), environment)
        service.patience = _PATIENCE
        write_population(service.environment, population)
        yield service


def administrators_token(service: Service) -> str:
    """Return an API token of the administrator."""
    credentials = {"username": "admin", "password": service.environment["AUTHSVC_ADMIN_PASSWORD"]}
    token: str = service.call("POST", "/api/login", json=credentials).json()["token"]
    return token
