"""What the service is told."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.devices import BOTH_PROTOCOLS, V5
from tests.plugin.fake_service import wait_for
from tests.plugin.in_broker.raw_mqtt import publish_packet
from tests.plugin.in_broker.site import NAME, Site

if TYPE_CHECKING:
    from collections.abc import Callable

    from paho.mqtt.enums import MQTTProtocolVersion

pytestmark = pytest.mark.slow

MOST = 500  # entries in one list


def clients_of(reports: list[dict[str, Any]]) -> dict[int, str]:
    """Return the connected clients that a service knows after these reports, by their numbers."""
    clients: dict[int, tuple[int, str]] = {}
    for report in reports:
        clients |= {client["id"]: (report["generation"], client["clientid"]) for client in report["connected"]}
        newest = report["generation"]
        clients = {
            number: client
            for number, client in clients.items()
            if client[0] >= newest and number not in report["disconnected"]
        }
    return {number: client_id for number, (_, client_id) in clients.items()}


@BOTH_PROTOCOLS
def test_connections_are_reported_with_their_beginning_and_end(site: Site, protocol: MQTTProtocolVersion) -> None:
    device = site.connected(site.user(), protocol=protocol)
    wait_for(lambda: site.connections(device.username))
    (reported,) = site.connections(device.username)
    client = dict(reported)
    assert abs(client.pop("since") - time.time()) < 10
    number = client.pop("id")
    assert client == {
        "username": device.username,
        "clientid": device.client_id,
        "address": "127.0.0.1",
        "protocol": "MQTT 5.0" if protocol is V5 else "MQTT 3.1.1",
        "credential": "p",
    }
    device.vanish()
    wait_for(lambda: number in site.reported("disconnected"))


def test_reports_name_the_broker_and_its_start(site: Site) -> None:
    wait_for(lambda: site.service.reports)
    report = site.service.reports[-1]
    assert report["name"] == NAME
    assert report["plugin"] == "0.1.0"
    assert len(report["boot"]) == 32
    assert site.service.asked("/auth/plugin/changes")[0] == {"boot": report["boot"], "name": NAME}


def test_each_start_of_the_broker_is_another_boot(new_site: Callable[..., Site]) -> None:
    site = new_site()
    site.wait_until_up()
    site.broker.stop()
    site.service.reports.append({"boot": "end"})
    site.broker.start()
    wait_for(lambda: site.service.reports[-1]["boot"] != "end")
    assert site.service.reports[-1]["boot"] != site.service.reports[0]["boot"]


def test_refused_login_is_no_connection(site: Site) -> None:
    user = site.user()
    assert site.code(user, "wrong") != 0
    last = site.connected(site.user())
    wait_for(lambda: site.connections(last.username))
    assert site.connections(user) == []


def test_all_clients_are_reported_again_after_a_report_was_not_stored(site: Site) -> None:
    stays = site.connected(site.user())
    leaves = site.connected(site.user("write a"))
    wait_for(lambda: site.connections(stays.username) and site.connections(leaves.username))
    generation = site.service.reports[-1]["generation"]
    site.service.stores_reports = False
    asked = len(site.service.asked("/auth/plugin/report"))
    leaves.publish("denied")
    leaves.stop()
    wait_for(lambda: len(site.service.asked("/auth/plugin/report")) > asked)
    site.service.stores_reports = True
    wait_for(lambda: site.service.reports[-1]["generation"] > generation)
    wait_for(lambda: stays.client_id in clients_of(site.service.reports).values())
    assert leaves.client_id not in clients_of(site.service.reports).values()
    assert [denial["topic"] for denial in site.denials(leaves.username)] == ["denied"]


def test_all_clients_are_reported_again_after_a_new_stream(site: Site) -> None:
    device = site.connected(site.user())
    wait_for(lambda: site.connections(device.username))
    generation = site.service.reports[-1]["generation"]
    site.service.end_streams()
    wait_for(lambda: site.service.reports[-1]["generation"] > generation)
    wait_for(lambda: device.client_id in clients_of(site.service.reports).values())
    assert site.connections(device.username)[0] == site.connections(device.username)[-1]


def test_lists_of_a_report_are_bounded_and_lose_nothing(site: Site) -> None:
    user = site.user()
    client = site.raw()
    assert client.login(site.new_name("client"), user.encode()) == 0
    topics = [f"denied/{number}" for number in range(3 * MOST // 2)]
    client.send(b"".join(publish_packet(topic.encode()) for topic in topics))
    wait_for(lambda: len(site.denials(user)) == len(topics))
    assert [denial["topic"] for denial in site.denials(user)] == topics
    assert max(len(report["denials"]) for report in site.service.reports) <= MOST


def test_more_clients_than_fit_into_one_report_are_all_reported(site: Site) -> None:
    user = site.user()
    assert site.code(user) == 0
    ids = [site.new_name("many") for _ in range(MOST + 50)]
    clients = [site.raw() for _ in ids]
    for client, client_id in zip(clients, ids, strict=True):
        assert client.login(client_id, user.encode()) == 0
    wait_for(lambda: set(ids) <= set(clients_of(site.service.reports).values()))
    site.service.end_streams()
    generation = site.service.reports[-1]["generation"]
    wait_for(lambda: site.service.reports[-1]["generation"] > generation)
    wait_for(lambda: set(ids) <= set(clients_of(site.service.reports).values()))
    for client in clients:
        client.close()
    wait_for(lambda: not set(ids) & set(clients_of(site.service.reports).values()))
    for key in ("connected", "disconnected", "logins"):
        assert max(len(report[key]) for report in site.service.reports) <= MOST


def test_denials_are_counted_and_not_kept_when_there_are_too_many(site: Site) -> None:
    user = site.user()
    client = site.raw()
    assert client.login(site.new_name("client"), user.encode()) == 0
    site.service.stores_reports = False
    client.send(publish_packet(b"denied") * 2500)
    client.ping()
    site.service.stores_reports = True
    wait_for(lambda: sum(report["dropped"] for report in site.service.reports) + len(site.denials(user)) == 2500)
    assert len(site.denials(user)) >= 2000


@pytest.mark.parametrize("status", [400])
def test_report_that_is_refused_as_malformed_is_not_repeated(site: Site, status: int) -> None:
    user = site.user()
    device = site.connected(user)
    wait_for(lambda: site.connections(user))
    site.service.statuses["/auth/plugin/report"] = status
    device.publish("first")
    site.broker.wait_for_log("a report was refused")
    site.service.statuses.clear()
    device.publish("second")
    wait_for(lambda: site.denials(user))
    assert [denial["topic"] for denial in site.denials(user)] == ["second"]


@pytest.mark.parametrize("status", [401, 404, 429, 500, 503])
def test_report_without_an_answer_is_sent_again(site: Site, status: int) -> None:
    user = site.user()
    device = site.connected(user)
    site.service.statuses["/auth/plugin/report"] = status
    asked = len(site.service.asked("/auth/plugin/report"))
    device.publish("first")
    wait_for(lambda: len(site.service.asked("/auth/plugin/report")) > asked + 1)
    assert len(site.service.asked("/auth/plugin/report")) < asked + 10
    site.service.statuses.clear()
    wait_for(lambda: [denial["topic"] for denial in site.denials(user)] == ["first"])


def test_broker_without_clients_reports_at_least_every_five_seconds(site: Site) -> None:
    site.end_devices()
    wait_for(lambda: not site.service.reports[-1]["disconnected"], 10)
    before = len(site.service.reports)
    wait_for(lambda: len(site.service.reports) > before, 6)
