"""The status page and `GET /api/status`."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from authsvc.settings import SECRETS, Settings, names, shown
from tests.admin.page_objects import FormClient
from tests.live_clients import connected, report_to
from tests.service import Service

_numbers = count()


def signed_in(service: Service, *permissions: str) -> FormClient:
    name = f"caller-{next(_numbers)}"
    service.create_user(name, "secret", *permissions)
    client = FormClient(service.url)
    assert client.sign_in(name, "secret").status_code == 303
    return client


def test_status_has_versions_database_policy_authority_and_brokers(service: Service) -> None:
    report_to(service, connected(1, "press-7"), name="hall\u202e-2")
    status = service.call("GET", "/api/status").json()
    assert status["database"]["kind"] == "SQLite"
    assert status["database"]["reachable"]
    assert status["database"]["version"].startswith("SQLite 3.")
    assert status["database"]["migration"].startswith("0")
    assert status["policy"]["version"] == service.call("GET", "/readyz").json()["policyVersion"]
    assert not status["policy"]["stale"]
    assert status["brokerProcessesFollow"]
    (authority,) = status["authorities"]
    assert authority["notAfter"] > "2030"
    assert authority["retiresAt"] is None
    (broker,) = status["brokers"]
    assert (broker["clients"], broker["isLive"]) == (1, True)
    text = signed_in(service, "http read /api/status").get("/admin/status").text
    for expected in ("hall\\u202e-2", authority["subject"], broker["pluginVersion"], status["database"]["version"]):
        assert expected in text
    assert "\u202e" not in text


def test_listeners_are_shown_with_the_processes_that_run_them(service: Service) -> None:
    api, broker = service.call("GET", "/api/status").json()["listeners"]
    for one, bind in ((api, "AUTHSVC_BIND"), (broker, "AUTHSVC_BROKER_BIND")):
        assert (one["configuredAddress"], one["configuredProcesses"]) == (service.environment[bind], 1)
        (process,) = one["processes"]
        assert process["addresses"] == [service.environment[bind]]
        assert process["pid"] in service.workers(one["name"])
        assert process["startedAt"] > "2026"
    text = signed_in(service, "http read /api/status").get("/admin/status").text
    assert text.count(">running</span>") == 2
    assert f">{broker['processes'][0]['pid']} " in text


def test_listener_that_does_not_run_is_not_shown_as_running(tmp_path: Path) -> None:
    api_alone = Service(tmp_path)
    api_alone.only = "api"
    with api_alone as service:
        left_behind = tmp_path / "data" / "run" / "broker-0.serving"
        left_behind.write_text("[]")
        api, broker = service.call("GET", "/api/status").json()["listeners"]
        assert len(api["processes"]) == 1
        assert broker["processes"] == []
        assert not left_behind.exists()
        assert "not running here" in signed_in(service, "http read /api/status").get("/admin/status").text


def test_settings_are_shown_without_secrets(service: Service) -> None:
    status = service.call("GET", "/api/status")
    settings = {one["name"]: one for one in status.json()["settings"]}
    assert list(settings) == names()
    secret = {"name": "AUTHSVC_ADMIN_PASSWORD", "value": None, "secret": True, "isSet": True}
    assert settings["AUTHSVC_ADMIN_PASSWORD"] == secret
    assert settings["AUTHSVC_BCRYPT_COST"] == {
        "name": "AUTHSVC_BCRYPT_COST",
        "value": "4",
        "secret": False,
        "isSet": True,
    }
    assert settings["AUTHSVC_BROKER_URL"]["isSet"] is False
    shown_page = signed_in(service, "http read /api/status").get("/admin/status").text
    for text in (status.text, shown_page):
        assert service.environment["AUTHSVC_ADMIN_PASSWORD"] not in text


def test_no_secret_is_among_the_shown_values() -> None:
    given = {name.lower(): f"hidden-{name}" for name in SECRETS}
    settings = Settings(data_dir=Path("/data"), broker_ca_file="mqtt://user:hidden@host", **given)  # type: ignore[arg-type]
    values = {one.name: one.value for one in shown(settings)}
    assert not [value for value in values.values() if value and "hidden" in value]
    assert values["AUTHSVC_DATA_DIR"] == "/data"
    assert values["AUTHSVC_MUTUAL_TLS"] == "no"
    assert values["AUTHSVC_PASSWORD_POLICY"]


def test_user_who_may_not_read_the_status_gets_403_and_no_link(service: Service) -> None:
    client = signed_in(service, "http read /api/users/#", "http read /api/me")
    assert client.get("/admin/status").status_code == 403
    assert "/admin/status" not in client.get("/admin").text
    assert "/admin/status" in signed_in(service, "http read /api/#").get("/admin").text
