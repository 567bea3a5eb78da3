"""Figure 13: 100,000 users arrive at a running service, from Mosquitto's files and from a policy file.

python -m bench.moving_in [--rounds N] [--quick]
"""

from __future__ import annotations

import hashlib
import os
import time
from base64 import b64encode
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from bench import command, postgres
from bench.broker_connection import BrokerConnection, acl_request
from bench.deployment import default_service, seconds_of
from bench.population import username
from bench.report import Figure, Limit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.service import Service

_PERMISSIONS = 5
_PATIENCE = 600.0
_SLOWEST = 60  # seconds of one command


def measure(rounds: int, *, quick: bool) -> Figure:
    """Let each command create all users in an empty database, and repeat it, which changes nothing."""
    users = 1_000 if quick else 100_000
    times: dict[str, list[float]] = {}
    in_force: list[float] = []
    with TemporaryDirectory() as name:
        passwords, acl, policy = _write_files(Path(name), users)
        commands = {
            "import mosquitto": ("import", "mosquitto", "--passwords", passwords, "--acl", acl),
            "apply": ("apply", policy),
        }
        for _ in range(rounds):
            for database in ("SQLite", "PostgreSQL"):
                for what, arguments in commands.items():
                    with _service(database) as service:
                        times.setdefault(f"`{what}`, {database}", []).append(seconds_of(service, *arguments))
                        in_force.append(_seconds_until_in_force(service, users))
                        newest = _newest_event(service)
                        times.setdefault(f"`{what}` again, {database}", []).append(seconds_of(service, *arguments))
                        assert _newest_event(service) == newest
    return Figure(
        "13. 100,000 users arrive",
        f"Commands that create {users:,} users in an empty database beside a running service, and the same commands "
        f"again. `import mosquitto` reads a password_file with `$7$` hashes and an acl_file, `apply` a policy file; "
        f"each user has {_PERMISSIONS} rules. Load of the machine at the end: {os.getloadavg()[1]:.1f} on "
        f"{os.cpu_count()} cores.",
        [
            ["", "median", "longest"],
            *(
                [what, *(f"{seconds:.1f} s" for seconds in (median(taken), max(taken)))]
                for what, taken in times.items()
            ),
        ],
        [
            Limit("the longest command", max(map(max, times.values())), at_most=_SLOWEST, unit="s"),
            Limit("the last user's permission is in force after the command", max(in_force), at_most=10, unit="s"),
        ],
    )


def _write_files(directory: Path, users: int) -> tuple[str, str, str]:
    """Write a password_file, an acl_file and a policy file with the same users; return their paths."""
    salt = b"0123456789ab"
    digest = b64encode(hashlib.pbkdf2_hmac("sha512", b"s3cret-7", salt, 101)).decode()
    names = [username(number) for number in range(users)]
    rules = range(_PERMISSIONS)
    contents = {
        "passwd": (f"{name}:$7$101${b64encode(salt).decode()}${digest}\n" for name in names),
        "acl": (_block(f"user {name}", (f"topic readwrite plant/{name}/{rule}/#" for rule in rules)) for name in names),
        "policy.yaml": _policy(names),
    }
    for file, lines in contents.items():
        path = directory / file
        path.write_text("".join(lines))
        path.chmod(0o600)
    passwords, acl, policy = (str(directory / file) for file in contents)
    return passwords, acl, policy


def _policy(names: list[str]) -> Iterator[str]:
    yield "users:\n"
    for name in names:
        rules = (f"  - readWrite plant/{name}/{rule}/#" for rule in range(_PERMISSIONS))
        yield _block(f"- username: {name}\n  permissions:", rules)


def _block(first: str, lines: Iterator[str]) -> str:
    return "\n".join((first, *lines, ""))


@contextmanager
def _service(database: str) -> Iterator[Service]:
    """Yield a running service with an empty database."""
    with ExitStack() as running:
        settings = {}
        if database == "PostgreSQL":
            settings["AUTHSVC_DATABASE_URL"] = postgres.address(running.enter_context(postgres.running()))
        directory = Path(running.enter_context(TemporaryDirectory()))
        service = default_service(directory, settings)
        service.patience = _PATIENCE
        yield running.enter_context(service)


def _newest_event(service: Service) -> Any:
    return service.call("GET", "/api/audit?perPage=1").json()["items"]


def _seconds_until_in_force(service: Service, users: int) -> float:
    """Return the seconds until the webhook allows what the last user may do."""
    last = username(users - 1)
    asked = acl_request(last, f"plant/{last}/{_PERMISSIONS - 1}/x")
    begun = time.perf_counter()
    with closing(BrokerConnection(service.broker_port)) as broker:
        while broker.status(asked) != b"200":
            if time.perf_counter() - begun > _PATIENCE:
                return float("inf")
    return time.perf_counter() - begun


if __name__ == "__main__":
    command.run(measure, __doc__)
