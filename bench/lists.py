"""Figure 12: the API, the page, CRLs and a backup with a million users, while brokers are answered.

python -m bench.lists [--rounds N] [--quick]
"""

from __future__ import annotations

import json
import os
import re
import select
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, closing, contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import requests

from bench import command
from bench.broker_connection import BrokerConnection, acl_request
from bench.deployment import default_service, seconds_of
from bench.population import Population, administrators_token, populated_service, role, topic, username
from bench.report import Figure, Limit, table
from bench.turns import Times
from tests.service import permission

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.service import Service

_BROKERS = 8
_PAUSE = 0.02  # between two questions of one broker
_PER_PAGE = 50
_SLOWEST = 0.5  # seconds of a request to the API
# What a population does not have. Its users have the ids from 1000.
_HISTORY = """
UPDATE users SET last_seen_at = datetime('2026-01-01', id * 7 % 5000000 || ' seconds');
UPDATE users SET grant_types = 'password,certificate' WHERE id < 1000 + {certificates};
INSERT INTO certificates
    (serial, authority_id, user_id, username, fingerprint, certificate, not_before, not_after, created_at)
    SELECT printf('1%039x', id), (SELECT MAX(id) FROM authorities), id, username, printf('%064x', id),
           printf('%.1000c', 'x'), '2026-01-01 00:00:00', datetime('2036-01-01', id || ' seconds'),
           '2026-01-01 00:00:00'
    FROM users WHERE username LIKE 'press-%' AND id < 1000 + {certificates};
INSERT INTO registrations
    (id, username, kind, status, recorded_while_locked, client_ids, attempts, conflicts, first_seen, last_seen,
     requested_roles, requested_permissions, starting_roles, skeleton)
    SELECT printf('%032x', id), 'new-' || username, 'implicit', 'pending', FALSE, '["' || username || '"]', 1, 0,
           datetime('now', -id || ' seconds'), datetime('now', -id || ' seconds'), '[]', '[]', '[]',
           'new-' || username
    FROM users WHERE username LIKE 'press-%' AND id < 1000 + {certificates};
INSERT INTO audit_events (at, actor, via, action, target)
    SELECT datetime('now', -id || ' seconds'), 'admin', 'rest', 'user.update', 'user:' || username
    FROM users WHERE username LIKE 'press-%' AND id < 1000 + 3 * {certificates};
"""


def measure(rounds: int, *, quick: bool) -> Figure:
    """Send each request some times, one after the other, while eight brokers ask; then back up and restore."""
    users, certificates, ended, seconds = (10_000, 1_000, 100, 5) if quick else (1_000_000, 100_000, 10_000, 15)
    beside: dict[str, Times] = {}
    with populated_service(Population(users, 5, 1)) as service, TemporaryDirectory() as elsewhere:
        database, backup = Path(service.environment["AUTHSVC_DATA_DIR"]) / "authsvc.db", f"{elsewhere}/backup"
        with closing(sqlite3.connect(database)) as file:
            file.executescript(_HISTORY.format(certificates=certificates))
        with service:
            administrator = Administrator(service)
            with _brokers_ask(service, users, beside, "nothing else"):
                time.sleep(seconds)
            with _brokers_ask(service, users, beside, "the requests above"):
                administrator.send(_requests(users, certificates), 4 * rounds)
                administrator.change_and_revoke(4 * rounds)
            with _brokers_ask(service, users, beside, f"{ended:,} certificates that end at once"):
                administrator.fetch_crls_while_certificates_end(database, ended)
            with _brokers_ask(service, users, beside, "a backup"):
                backup_seconds = seconds_of(service, "backup", backup)
        restored = default_service(Path(elsewhere))
        restored.patience = service.patience
        restore_seconds = seconds_of(restored, "restore", backup)
        size = Path(backup).stat().st_size / 1e6
    return Figure(
        "12. Lists with a million users",
        f"{users:,} users with five permissions and one role, which all have, {certificates:,} certificates and "
        f"as many pending registrations, {3 * certificates:,} audit events, SQLite. An administrator sends one request "
        f"after the other, each {4 * rounds} times, while {_BROKERS} brokers ask up to {_BROKERS / _PAUSE:.0f} "
        "questions a second about all users. "
        f"Load of the machine during the run: {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores.",
        [
            ["", "p50", "longest"],
            *(
                [name, *map(_milliseconds, (Times.of(times).p50, max(times)))]
                for name, times in administrator.times.items()
            ),
        ],
        [
            Limit(
                "the longest request of all", max(map(max, administrator.times.values())), at_most=_SLOWEST, unit="s"
            ),
        ],
        "\n\n".join(
            (
                "How long a broker waited for an answer:",
                table(
                    [
                        ["beside", "p50", "p99"],
                        *([name, *map(_milliseconds, times)] for name, times in beside.items()),
                    ]
                ),
                f"A backup takes {backup_seconds:.0f} s and {size:.0f} MB, restoring it {restore_seconds:.0f} s.",
            )
        ),
    )


class Administrator:
    """An administrator with a token and a browser session; `times` has the seconds of each request by its name."""

    def __init__(self, service: Service) -> None:
        self.times: dict[str, list[float]] = {}
        self._url = service.url
        self._api, self._page = requests.Session(), requests.Session()
        self._api.headers["Authorization"] = f"Bearer {administrators_token(service)}"
        form = self._page.get(f"{self._url}/admin/sign-in", timeout=60).text
        (token,) = re.findall(r'name="csrf_token" value="([^"]+)"', form)
        fields = {"csrf_token": token, "username": "admin", "password": service.environment["AUTHSVC_ADMIN_PASSWORD"]}
        answer = self._page.post(f"{self._url}/admin/sign-in", data=fields, timeout=60, allow_redirects=False)
        assert answer.status_code == 303, answer.text

    def send(self, paths: Mapping[str, str], times: int) -> None:
        """GET each path this number of times."""
        for name, path in paths.items():
            for _ in range(times):
                self._send(name, "GET", path)

    def change_and_revoke(self, times: int) -> None:
        """Create, change and delete users, change the role that all have, and revoke certificates."""
        for number in range(times):
            news = {"permissions": [permission(f"write news/{number}")]}
            self._send("a role that all have is changed", "PATCH", f"/api/roles/{role(0)}", json=news)
            self._send("a user is created", "POST", "/api/users", json={"username": f"more-{number}"})
            self._send("a user is changed", "PATCH", f"/api/users/more-{number}", json=news)
            self._send("a user is deleted", "DELETE", f"/api/users/more-{number}")
            self._send("a certificate is revoked", "POST", f"/api/certificates/1{number + 1500:039x}/revoke", json={})
            self._send("CRL after a change", "GET", "/pki/crl.pem")
            self._send("CRL once more", "GET", "/pki/crl.pem")

    def fetch_crls_while_certificates_end(self, database: Path, number: int) -> None:
        """Fetch CRLs until one has this number of certificates more, whose time of revocation has come."""
        time.sleep(2)  # the time of a revocation has whole seconds
        before = self._send("CRL once more", "GET", "/pki/crl.pem")
        with closing(sqlite3.connect(database, timeout=60)) as file, file:
            file.execute(
                "UPDATE certificates SET revoked_at = datetime('now'), reason = 'superseded' WHERE serial IN "
                "(SELECT serial FROM certificates WHERE revoked_at IS NULL LIMIT ?)",
                (number,),
            )
        name = f"CRL, {number:,} certificates end at once"
        while len(self._send(name, "GET", "/pki/crl.pem")) < len(before) + 40 * number:
            time.sleep(0.05)

    def _send(self, name: str, method: str, path: str, **options: Any) -> bytes:
        begun = time.perf_counter()
        session = self._page if path.startswith("/admin") else self._api
        answer = session.request(method, self._url + path, timeout=120, **options)
        self.times.setdefault(name, []).append(time.perf_counter() - begun)
        assert answer.ok, (method, path, answer.text)
        return answer.content


def _requests(users: int, certificates: int) -> dict[str, str]:
    """Return the paths to GET by name."""
    listed, registrations = f"/api/users?perPage={_PER_PAGE}", "/api/client-registry/registrations"
    audit, middle = f"/api/audit?perPage={_PER_PAGE}", username(users // 2)

    def page(number: int) -> str:
        return f"&page={number // _PER_PAGE}"

    return {
        "users": listed,
        "users, the last page": listed + page(users),
        "users, search": f"{listed}&search={middle[:-2]}",
        "users, by last seen": f"{listed}&sort=-lastSeen",
        "users, by last seen, a page in the middle": f"{listed}&sort=lastSeen{page(users // 2)}",
        "users seen since a time": f"{listed}&lastSeenAfter=2026-01-20T00:00:00Z",
        "users not seen since a time": f"{listed}&lastSeenBefore=2026-01-03T00:00:00Z",
        "users, disabled": f"{listed}&enabled=false",
        "users with a grant type": f"{listed}&grantType=certificate",
        "users of a role that all have": f"{listed}&role={role(0)}",
        "users of a role that all have, a page in the middle": f"{listed}&role={role(0)}{page(users // 2)}",
        "one user": f"/api/users/{middle}",
        "why a user may publish": f"/api/users/{middle}/decision?topic=plant/{middle}/1/x&operation=write",
        "roles": "/api/roles",
        "certificates": f"/api/certificates?perPage={_PER_PAGE}",
        "certificates, the last page": f"/api/certificates?perPage={_PER_PAGE}{page(certificates)}",
        "certificates, search": f"/api/certificates?search={username(certificates // 2)}",
        "certificates, revoked": "/api/certificates?status=revoked",
        "registrations": registrations,
        "registrations, the last page": f"{registrations}?perPage={_PER_PAGE}{page(certificates)}",
        "registrations, search": f"{registrations}?search=new-{username(certificates // 2)}",
        "audit trail": audit,
        "audit trail, the last page": audit + page(3 * certificates),
        "audit trail, one user": f"{audit}&target=user:{username(certificates // 2)}",
        "connected clients": "/api/clients",
        "denials": "/api/denials",
        "status": "/api/status",
        "page: overview": "/admin",
        "page: users": "/admin/users",
        "page: users by last seen": "/admin/users?sort=-lastSeen",
        "page: one user": f"/admin/users/{middle}",
        "page: roles": "/admin/roles",
        "page: certificates": "/admin/certificates",
        "page: registry": "/admin/registry",
        "page: audit trail": "/admin/audit",
        "page: status": "/admin/status",
        "metrics": "/metrics",
    }


@contextmanager
def _brokers_ask(service: Service, users: int, taken: dict[str, Times], name: str) -> Iterator[None]:
    """Let brokers ask during the block, in a process of their own; then add the times of their answers."""
    asking = [sys.executable, "-m", "bench.lists", "ask", str(service.broker_port), str(users)]
    with subprocess.Popen(
        asking, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as brokers:
        yield
        output, _ = brokers.communicate("")
    taken[name] = Times.of(json.loads(output))


def _ask(port: int, users: int) -> list[float]:
    """Ask on each connection in turn until standard input ends; return the times of the answers."""
    times: list[float] = []
    with ExitStack() as opened:
        brokers = [opened.enter_context(closing(BrokerConnection(port))) for _ in range(_BROKERS)]
        for number in count():
            user = number * 7919 % users
            times += brokers[number % _BROKERS].times([acl_request(username(user), topic(user, number % 5, "x"))])
            if select.select([sys.stdin], [], [], _PAUSE / _BROKERS)[0]:
                break
    return times


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"


if __name__ == "__main__":
    if sys.argv[1:2] == ["ask"]:
        print(json.dumps(_ask(*map(int, sys.argv[2:]))))
    else:
        command.run(measure, __doc__)
