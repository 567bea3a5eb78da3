"""Many users, roles and permissions, written straight into the SQLite file of a service before it starts."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import bcrypt

from authsvc.accounts import bootstrap
from authsvc.settings import from_environment
from authsvc.storage.database import database
from bench.deployment import default_service

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tests.service import Service

PASSWORD = "s3cret-7"
_PATIENCE = 120.0  # many users take long to read while others start beside them
_LONG_AGO = "2026-01-01 00:00:00"
_FIRST_ID = 1_000  # beyond what a first start makes
_READ_WRITE = ("mqtt", "readWrite", "allow")


class Population(NamedTuple):
    """How many users there are, how many permissions each has of its own, and how many roles, of which each has one."""

    users: int
    permissions: int
    roles: int


def username(number: int) -> str:
    """Return the name of a user, whose password is `PASSWORD`; they count from 0."""
    return f"press-{number:06}"


def topic(number: int, permission: int, rest: str) -> str:
    """Return a topic that the user may write by that one of its own permissions."""
    return f"plant/{username(number)}/{permission}/{rest}"


def settle(environment: Mapping[str, str], population: Population) -> None:
    """Prepare the database of a service with this environment and let them all live in it, in one transaction."""
    settings = from_environment(environment)
    bootstrap.prepare(settings)
    database.close()
    password_hash = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()
    users, roles = range(population.users), range(population.roles)
    with closing(sqlite3.connect(Path(settings.database_url.removeprefix("sqlite:///")))) as file, file:
        user_columns = "id, username, password_hash, enabled, grant_types, created_at, updated_at"
        rows = ((_id(n), username(n), password_hash, 1, "password", _LONG_AGO, _LONG_AGO) for n in users)
        _insert(file, "users", user_columns, rows)
        role_columns = "id, name, description, built_in, created_at, updated_at"
        _insert(file, "roles", role_columns, ((_id(n), f"line-{n:04}", "", 0, _LONG_AGO, _LONG_AGO) for n in roles))
        own = ((_id(n), _READ_WRITE, topic(n, each, "#")) for n in users for each in range(population.permissions))
        _insert(file, "permissions", "user_id, context, operation, effect, resource", _flat(own))
        of_roles = ((_id(n), _READ_WRITE, f"lines/{n}/#") for n in roles)
        _insert(file, "permissions", "role_id, context, operation, effect, resource", _flat(of_roles))
        if roles:
            _insert(file, "user_roles", "user_id, role_id", ((_id(n), _id(n % len(roles))) for n in users))


def _id(number: int) -> int:
    return _FIRST_ID + number


def _flat(rows: Iterable[tuple[int, tuple[str, ...], str]]) -> Iterable[tuple[Any, ...]]:
    return ((owner, *words, resource) for owner, words, resource in rows)


def _insert(file: sqlite3.Connection, table: str, columns: str, rows: Iterable[tuple[Any, ...]]) -> None:
    values = ", ".join("?" for _ in columns.split(","))
    file.executemany(f"INSERT INTO {table} ({columns}) VALUES ({values})", rows)


@contextmanager
def inhabited(population: Population) -> Iterator[Service]:
    """Yield a service in which all of them live, with its default settings and not yet started."""
    with TemporaryDirectory() as directory:
        service = default_service(Path(directory))
        service.patience = _PATIENCE
        settle(service.environment, population)
        yield service


def administrators_token(service: Service) -> str:
    """Return an API token of the administrator."""
    credentials = {"username": "admin", "password": service.environment["AUTHSVC_ADMIN_PASSWORD"]}
    token: str = service.call("POST", "/api/login", json=credentials).json()["token"]
    return token
