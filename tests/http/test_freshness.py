"""A stale or missing policy is reported in the log, in a metric, at `/readyz` and on pages."""

from __future__ import annotations

import json
import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest
import requests

from tests.actors import ADMIN_PASSWORD
from tests.admin.page_objects import FormClient
from tests.http.wire import logs_in, publishes, within
from tests.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

BANNER = "The policy has not been refreshed"
STALE = "policy cannot be refreshed"


def events(service: Service, name: str) -> list[str]:
    """Return the level of each log entry of an event."""
    lines = [json.loads(line) for line in service.log_text().splitlines() if line.startswith("{")]
    return [line["level"] for line in lines if line["event"] == name]


@contextmanager
def without_descriptors(pid: int) -> Iterator[None]:
    """Let a process open no file and no connection during the block."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    yield
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def readiness(service: Service) -> tuple[int, str]:
    """Return the status of `/readyz` and its field `policy`."""
    answer = service.call("GET", "/readyz")
    return answer.status_code, answer.json()["policy"]


def test_policy_that_cannot_be_refreshed_is_reported_everywhere_and_once(running: Service) -> None:
    running.start()
    form = FormClient(running.url)
    form.sign_in("admin", ADMIN_PASSWORD)
    assert readiness(running) == (200, "ok")
    pages = ("/admin", "/admin/users", "/admin/users/nobody", "/admin/nowhere")
    (worker,) = running.workers("broker")
    with without_descriptors(worker):
        assert within(20, lambda: readiness(running) == (503, "stale"))
        assert within(20, lambda: events(running, STALE) == ["error"])
        for page in pages:
            assert BANNER in form.get(page).text
        assert "authsvc_policy_stale 1.0" in running.call("GET", "/metrics").text
        # After two more refreshes there is still one error.
        assert not within(2, lambda: len(events(running, STALE)) > 1)
    assert within(20, lambda: readiness(running) == (200, "ok"))
    for page in pages:
        assert BANNER not in form.get(page).text
    assert within(5, lambda: "authsvc_policy_stale 0.0" in running.call("GET", "/metrics").text)
    assert events(running, "policy is refreshed again") == ["info"]


@pytest.fixture
def with_many_users(database_url: str, tmp_path: Path) -> Iterator[Service]:
    """A service that is not started, on a database whose reading a test can delay."""
    service = Service(tmp_path, {"AUTHSVC_DATABASE_URL": database_url})
    prepared = service.command("init")
    assert prepared.returncode == 0, prepared.stderr
    yield service
    service.stop()


@contextmanager
def loading(service: Service) -> Iterator[None]:
    """Start a service whose policy cannot be read before the end of the block; wait until it responds."""
    with psycopg.connect(service.environment["AUTHSVC_DATABASE_URL"]) as holder:
        holder.execute("LOCK TABLE user_roles IN ACCESS EXCLUSIVE MODE")
        service.wait_for = "/healthz"
        service.start()
        yield


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True, ids=[""])
def test_service_is_not_ready_until_its_policy_is_loaded(with_many_users: Service) -> None:
    service = with_many_users
    with loading(service):
        assert readiness(service) == (503, "loading")
        assert requests.get(service.broker_url + "/readyz", timeout=10).status_code == 503
        assert logs_in(service, "bob", "secret") == "policy-not-loaded"
        assert publishes(service, "bob", "devices/bob") == "policy-not-loaded"
        refused = service.call("GET", "/api/users")
        assert (refused.status_code, refused.json()["code"]) == (503, "policy-loading")
        assert requests.get(service.url + "/admin/sign-in", timeout=10).status_code == 503
    assert within(20, lambda: readiness(service) == (200, "ok"))
    assert requests.get(service.broker_url + "/readyz", timeout=10).status_code == 200
    assert service.call("GET", "/api/users").status_code == 200
    service.create_user("carol", "secret")
    assert logs_in(service, "carol", "secret") in ("ok", "verifying")
    assert "WORKER TIMEOUT" not in service.log_text()
