"""authsvc's own plugin with a real service: several processes and replicas, changes, disconnects, an outage."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.brokers.site import Site, broker_for
from tests.devices import FIRST_FAILURE, NOT_AUTHORIZED, SOON, V5
from tests.service import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.broker import Mosquitto

IN_FORCE_WITHIN = 1.0
KNOWN = "readWrite line/#"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with two broker processes, of which the plugin's stream reaches one."""
    with Service(tmp_path_factory.mktemp("service"), {"AUTHSVC_WORKERS": "2"}) as service:
        yield service


@pytest.fixture(scope="module")
def broker(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with broker_for(service, tmp_path_factory.mktemp("broker"), "authsvc") as broker:
        yield broker


def seconds_until(reached: Callable[[], bool]) -> float:
    """Return the seconds until a condition holds, at most `SOON`."""
    started = time.monotonic()
    while not reached() and time.monotonic() - started < SOON:
        time.sleep(0.005)
    return time.monotonic() - started


def test_permission_is_in_force_within_a_second_without_a_new_login(site: Site) -> None:
    bob = site.connected("bob", protocol=V5)
    for each in range(5):
        site.service.call(
            "PATCH",
            f"/api/users/{bob.username}",
            json={"permissions": [{"context": "mqtt", "operation": "write", "resource": f"line/{each}"}]},
        )
        assert seconds_until(lambda: bob.publish(f"line/{each}") == 0) < IN_FORCE_WITHIN  # noqa: B023 - called at once
    assert bob.publish("line/0") == NOT_AUTHORIZED
    assert bob.stayed_connected()


def test_changed_role_is_in_force_for_all_its_users_within_a_second(site: Site) -> None:
    role = {"permissions": [{"context": "mqtt", "operation": "write", "resource": "line/1"}]}
    assert site.service.call("POST", "/api/roles", json={"name": "changed", **role}).ok
    presses = [site.connect(site.add_user("bob", roles=["changed"]), protocol=V5) for _ in range(3)]
    assert {press.publish("line/1") for press in presses} == {0}

    role["permissions"][0]["resource"] = "line/2"
    assert site.service.call("PATCH", "/api/roles/changed", json=role).ok
    assert seconds_until(lambda: all(press.publish("line/2") == 0 for press in presses)) < IN_FORCE_WITHIN
    assert {press.publish("line/1") for press in presses} == {NOT_AUTHORIZED}


@pytest.mark.parametrize("fields", [{"enabled": False}, {"password": "another"}, {"grantTypes": ["certificate"]}])
def test_client_is_disconnected_within_a_second_when_its_login_is_no_longer_valid(
    site: Site, fields: dict[str, object]
) -> None:
    bob, carol = site.connected("bob", KNOWN, protocol=V5), site.connected("carol", KNOWN, protocol=V5)
    assert site.service.call("PATCH", f"/api/users/{bob.username}", json=fields).ok
    assert bob.ends.get(timeout=IN_FORCE_WITHIN) >= FIRST_FAILURE
    assert carol.stayed_connected()


def test_client_with_a_revoked_token_is_disconnected_and_one_with_the_password_is_not(site: Site) -> None:
    bob = site.add_user("bob", KNOWN, grantTypes=["password", "token"])
    sign_in = {"username": bob, "password": "secret"}
    issued = site.service.call("POST", "/api/login", json=sign_in).json()
    by_password = site.connect(bob, protocol=V5)
    by_token = site.device(bob, issued["token"], f"{bob}-token", protocol=V5)
    by_token.start(site.broker.port)
    assert by_token.connack() == 0

    assert site.service.call("DELETE", f"/api/tokens/{issued['id']}").status_code == 204
    assert by_token.ends.get(timeout=IN_FORCE_WITHIN) >= FIRST_FAILURE
    assert by_password.stayed_connected()


def test_denials_of_the_plugin_are_shown_with_what_would_allow_them(site: Site) -> None:
    bob = site.connected("bob", protocol=V5)
    assert bob.publish("line/7") == NOT_AUTHORIZED
    path = f"/api/users/{bob.username}/denials"

    def shown() -> list[str]:
        return [item["topic"] for item in site.service.call("GET", path).json()["items"]]

    assert seconds_until(lambda: shown() == ["line/7"]) < SOON


@pytest.mark.slow
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_known_clients_go_on_while_the_service_is_away_and_changes_hold_when_it_is_back(site: Site, end: str) -> None:
    service = site.service
    assert isinstance(service, Service)
    bob, carol = site.connected("bob", KNOWN, protocol=V5), site.connected("carol", KNOWN, protocol=V5)
    assert carol.subscribe("line/#") == [1]
    never_seen = site.add_user("dora", KNOWN)
    (service.stop if end == "stop" else service.kill)()
    for each in range(10):
        assert bob.publish("line/1", str(each)) == 0
    assert [carol.received()[1] for _ in range(10)] == [str(each).encode() for each in range(10)]
    # One that logged in before comes back by memory; another is refused without a wait.
    assert site.try_to_connect(bob.username, client_id=f"{bob.username}-again") == 0
    assert site.try_to_connect(never_seen) == NOT_AUTHORIZED

    # A change that is made while brokers cannot reach the service.
    changed = service.command("users", "change", bob.username, "--disable")
    assert changed.returncode == 0, changed.stderr
    service.start()
    assert bob.ends.get(timeout=2.0) >= FIRST_FAILURE
    assert carol.stayed_connected()
    assert seconds_until(lambda: site.try_to_connect(never_seen) == 0) < SOON


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_change_at_another_replica_is_in_force_within_a_second(database_url: str, tmp_path: Path) -> None:
    environment = {"AUTHSVC_DATABASE_URL": database_url}
    with ExitStack() as running:
        replicas = []
        for name in ("here", "there"):
            (tmp_path / name).mkdir()
            replicas.append(running.enter_context(Service(tmp_path / name, environment)))
        here, there = replicas
        (tmp_path / "broker").mkdir()
        broker = running.enter_context(broker_for(here, tmp_path / "broker", "authsvc"))
        site = running.enter_context(Site(here, broker))
        bob, carol = site.connected("bob", KNOWN, protocol=V5), site.connected("carol", KNOWN, protocol=V5)
        second = site.connect(carol.username, f"{carol.username}-2", protocol=V5)
        assert bob.publish("line/1") == 0

        assert there.call("PATCH", f"/api/users/{bob.username}", json={"enabled": False}).ok
        assert bob.ends.get(timeout=IN_FORCE_WITHIN) >= FIRST_FAILURE

        def listed() -> dict[str, str]:
            items = there.call("GET", "/api/clients", params={"username": carol.username}).json()["items"]
            return {item["clientId"]: item["broker"] for item in items}

        assert seconds_until(lambda: len(listed()) == 2) < SOON
        path = f"/api/clients/{listed()[second.client_id]}/{second.client_id}/disconnect"
        assert there.call("POST", path).json()["disconnected"] is True
        assert second.ends.get(timeout=IN_FORCE_WITHIN) >= FIRST_FAILURE
        assert carol.stayed_connected()
