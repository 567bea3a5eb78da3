"""A real service of which the tests of its front ask much."""

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
def room_for_many() -> Iterator[None]:
    """Enough file descriptors for this test and for what it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * MANY if hard == resource.RLIM_INFINITY else min(hard, 4 * MANY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def started(village: Path, directory: Path) -> Iterator[Service]:
    """The inhabited service as a process, with few threads and slow hashes for the API, and room for many."""
    shutil.copytree(village, directory / "data")
    environment = {
        "AUTHSVC_ADMIN_PASSWORD": ADMIN_PASSWORD,
        "AUTHSVC_THREADS": "2",
        "AUTHSVC_BCRYPT_COST": SLOW_HASH,
    }
    with room_for_many(), Service(directory, environment) as service:
        yield service
