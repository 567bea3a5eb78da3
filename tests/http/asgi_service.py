"""A running service with few threads, for tests of the broker listener under load."""

from __future__ import annotations

import resource
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.actors import ADMIN_PASSWORD
from tests.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


MANY = 1000
SLOW_HASH = "12"
QUESTION = {"username": "bob", "topic": "devices/bob/up", "acc": 2, "clientid": "c1"}
ALLOWED = (200, b'{"ok":true,"error":""}')
HEAD = b"POST /auth/acl HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


@contextmanager
def many_descriptors() -> Iterator[None]:
    """Raise the limit of file descriptors for this process and its children."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * MANY if hard == resource.RLIM_INFINITY else min(hard, 4 * MANY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def started(seed_directory: Path, directory: Path) -> Iterator[Service]:
    """The service with the seed data as a process, with 2 API threads and slow hashes."""
    shutil.copytree(seed_directory, directory / "data")
    environment = {
        "AUTHSVC_ADMIN_PASSWORD": ADMIN_PASSWORD,
        "AUTHSVC_THREADS": "2",
        "AUTHSVC_BCRYPT_COST": SLOW_HASH,
    }
    with many_descriptors(), Service(directory, environment) as service:
        yield service
