"""Connected MQTT clients over REST."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from authsvc.activity import live_clients
from tests.actors import BOBS_PASSWORD
from tests.certificates.disconnects import store_seen, takeover_at
from tests.certificates.fake_broker import NOT_AUTHORIZED, FakeBroker
from tests.http.callers import problem_of, refused_fields
from tests.live_clients import OTHER_BOOT, connected, report, report_to
from tests.service import permission

if TYPE_CHECKING:
    from authsvc.web.request_context import Services
    from tests.http.callers import Caller
    from tests.service import Service

ODD_NAMES = (
    "a/b",
    "/",
    "//",
    "a b",
    "prüfstand-7",
    "a%2Fb",
    "100%",
    "%25",
    "a+b",
    "#",
    "a?b=c",
    "a;b",
    "\u202e",
    "é/ü %",
)
NOT_CONFIRMED = 0.05


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait only briefly for brokers, because none is there to confirm a disconnect."""
    monkeypatch.setattr(live_clients, "CONFIRMED_WITHIN_SECONDS", NOT_CONFIRMED)


@pytest.fixture
def confirming(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the broker `plant` end the connections it is told to, at once."""

    def confirm(_actor: object, connections: list[live_clients._Connection]) -> None:
        for each in connections:
            report(boot=each.boot, name=each.broker, disconnected=(each.number,))

    monkeypatch.setattr(live_clients, "_order", confirm)


def path_to(broker: str, client_id: str) -> str:
    return f"/api/clients/{quote(broker, safe='')}/{quote(client_id, safe='')}/disconnect"


def listed(caller: Caller, **query: str) -> list[str]:
    answer = caller.get("/api/clients", query_string=query)
    assert answer.status_code == 200, answer.text
    return [one["clientId"] for one in answer.get_json()["items"]]


def test_connected_clients_are_listed(alice: Caller) -> None:
    assert alice.get("/api/clients").get_json() == {"items": [], "page": 1, "perPage": 50, "total": 0}
    report(connected(1, address=None), connected(2, "carol", credential="certificate"))
    shown = alice.get("/api/clients?perPage=1").get_json()
    assert (shown["page"], shown["perPage"], shown["total"]) == (1, 1, 2)
    assert shown["items"] == [
        {
            "broker": "plant",
            "clientId": "c-2",
            "username": "carol",
            "address": "10.0.0.7",
            "protocol": "MQTT 5.0",
            "connectedAt": "2026-11-20T08:00:02Z",
            "credential": "certificate",
        }
    ]
    assert alice.get("/api/clients?page=2&perPage=1").get_json()["items"][0]["address"] is None


def test_list_is_filtered(alice: Caller) -> None:
    report(connected(1), connected(2, "carol", "press-7"))
    report(connected(1, client_id="other"), boot=OTHER_BOOT, name="hall 2/b")
    assert listed(alice, broker="hall 2/b") == ["other"]
    assert listed(alice, username="carol") == listed(alice, search="SS-7") == ["press-7"]
    assert listed(alice, username="carol", broker="hall 2/b") == []
    assert refused_fields(alice.get("/api/clients?broker=%00")) == ["broker"]
    assert refused_fields(alice.get("/api/clients?user=bob")) == ["user"]


@pytest.mark.usefixtures("confirming")
def test_client_is_disconnected(alice: Caller) -> None:
    report(connected(1), connected(2))
    answer = alice.post("/api/clients/plant/c-1/disconnect")
    assert (answer.status_code, answer.get_json()) == (
        200,
        {"broker": "plant", "clientId": "c-1", "disconnected": True},
    )
    assert listed(alice) == ["c-2"]
    problem_of(alice.post("/api/clients/plant/c-1/disconnect"), 404, "client-not-connected")


def test_disconnect_that_is_not_confirmed_is_answered_false(alice: Caller) -> None:
    report(connected(1))
    answer = alice.post("/api/clients/plant/c-1/disconnect")
    assert (answer.status_code, answer.get_json()["disconnected"]) == (200, False)
    (event,) = alice.get("/api/audit?action=client.disconnect").get_json()["items"]
    assert (event["actor"], event["via"], event["target"]) == ("alice", "api", "user:bob")
    assert event["after"] == {"broker": "plant", "clientId": "c-1"}


@pytest.mark.usefixtures("confirming")
@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_with_odd_characters_name_exactly_one_client(alice: Caller, name: str) -> None:
    report(*(connected(number, client_id=each) for number, each in enumerate((*ODD_NAMES, "a", "b", "c"))))
    answer = alice.post(path_to("plant", name))
    assert (answer.status_code, answer.get_json()) == (
        200,
        {"broker": "plant", "clientId": name, "disconnected": True},
    ), answer.text
    assert set(listed(alice)) == {*ODD_NAMES, "a", "b", "c"} - {name}


@pytest.mark.usefixtures("confirming")
@pytest.mark.parametrize("name", ODD_NAMES)
def test_brokers_with_odd_names_can_be_named(alice: Caller, name: str) -> None:
    report(connected(1, client_id="b/c"), name=name)
    report(connected(1, client_id="c"), boot=OTHER_BOOT, name=f"{name}/b")
    assert alice.post(path_to(name, "b/c")).get_json() == {"broker": name, "clientId": "b/c", "disconnected": True}
    assert listed(alice) == ["c"]
    assert alice.post(path_to(f"{name}/b", "c")).get_json()["disconnected"]


def test_slash_that_is_not_encoded_separates_levels(alice: Caller) -> None:
    report(connected(1, client_id="a/b"))
    assert alice.post("/api/clients/plant/a/b/disconnect").status_code == 404
    assert alice.post("/api/clients%2Fplant/a%2Fb/disconnect").status_code == 404
    assert refused_fields(alice.post("/api/clients/plant/a%00b/disconnect")) == ["clientId"]
    problem_of(alice.post("/api/clients/plant/%FF/disconnect"), 404, "client-not-connected")


def test_reading_and_disconnecting_need_their_permissions(alice: Caller, anonymous: Caller) -> None:
    report(connected(1, client_id="a/b"), connected(2, client_id="c"))
    report(connected(1, client_id="c"), boot=OTHER_BOOT, name="plant/x")
    rules = ("http read /api/clients", "http write /api/clients/plant/+/disconnect")
    alice.creates_user("erika", BOBS_PASSWORD, permissions=list(map(permission, rules)))
    erika = anonymous.signs_in("erika", BOBS_PASSWORD)
    assert len(listed(erika)) == 3
    assert erika.post(path_to("plant", "a/b")).status_code == 200
    assert erika.post(path_to("plant", "c")).status_code == 200
    refused = problem_of(erika.post(path_to("plant/x", "c")), 403, "forbidden")
    assert "http write /api/clients/plant%2Fx/c/disconnect" in refused["detail"]
    alice.creates_user("reader", BOBS_PASSWORD, permissions=[permission("http read /api/#")])
    reader = anonymous.signs_in("reader", BOBS_PASSWORD)
    assert len(listed(reader)) == 3
    problem_of(reader.post(path_to("plant", "c")), 403, "forbidden")
    rules = ("http readWrite /api/clients/#", "deny http write /api/clients/plant/a%2Fb/#")
    alice.creates_user("most", BOBS_PASSWORD, permissions=list(map(permission, rules)))
    most = anonymous.signs_in("most", BOBS_PASSWORD)
    problem_of(most.post(path_to("plant", "a/b")), 403, "forbidden")
    problem_of(most.post("/api/clients/plant/%61%2fb/disconnect"), 403, "forbidden")
    assert most.post(path_to("plant", "c")).status_code == 200


def test_users_without_rights_cannot_see_clients(charlie: Caller, dot: Caller) -> None:
    report(connected(1))
    for caller in (charlie, dot):
        problem_of(caller.get("/api/clients"), 403, "forbidden")
        problem_of(caller.post(path_to("plant", "c-1")), 403, "forbidden")


# The disconnect of a user.


@pytest.mark.usefixtures("confirming")
def test_user_is_disconnected_through_the_plugin_without_a_broker_url(charlie: Caller, alice: Caller) -> None:
    report(connected(1), connected(2, client_id="a/b"), connected(3, "carol"))
    answer = charlie.post("/api/users/bob/disconnect")
    assert (answer.status_code, answer.get_json()) == (200, {"ended": ["a/b", "c-1"], "failed": []})
    assert listed(alice) == ["c-3"]
    refused = problem_of(charlie.post("/api/users/bob/disconnect"), 409, "no-broker")
    assert "set AUTHSVC_BROKER_URL" in refused["detail"]


@pytest.mark.usefixtures("confirming")
def test_client_id_that_the_plugin_ended_is_not_taken_over(
    alice: Caller, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_seen("bob", "c-1", "elsewhere", "refused")
    report(connected(1), connected(2))
    with FakeBroker(lambda connect: NOT_AUTHORIZED if connect.client_id == "refused" else 0) as fake_broker:
        monkeypatch.setattr(type(services), "broker", takeover_at(fake_broker.port))
        result = alice.post("/api/users/bob/disconnect").get_json()
        assert {connect.client_id for connect in fake_broker.connects} == {"elsewhere", "refused"}
    assert result == {"ended": ["c-2", "c-1", "elsewhere"], "failed": ["refused"]}


def test_client_id_that_one_of_two_brokers_did_not_end_has_failed(
    alice: Caller, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_seen("bob", "c-1", "c-2")
    report(connected(1))
    with FakeBroker() as fake_broker:
        monkeypatch.setattr(type(services), "broker", takeover_at(fake_broker.port))
        assert alice.post("/api/users/bob/disconnect").get_json() == {"ended": ["c-2"], "failed": ["c-1"]}


@pytest.mark.slow
def test_odd_client_ids_are_passed_on_by_the_listener(running: Service) -> None:
    running.start()
    report_to(running, *(connected(number, client_id=each) for number, each in enumerate(ODD_NAMES)))
    for name in ODD_NAMES:
        answer = running.call("POST", path_to("plant", name))
        assert (answer.status_code, answer.json()["clientId"]) == (200, name)
