"""The shipped Prometheus rules and Grafana dashboard: checked by promtool, and run against a real service."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import requests
import yaml

from tests.http.plugin import Plugin
from tests.prometheus import DASHBOARD, DEPLOY, RULE_TESTS, RULES, Prometheus, Query, queries
from tests.registry.signing import new_key, signing_request
from tests.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

needs_prometheus = pytest.mark.skipif(not shutil.which("promtool"), reason="Debian's package prometheus is missing")
GUIDE = DEPLOY.parent / "docs" / "operating.md"
METRIC = re.compile(r"\bauthsvc_[a-z_]+")
SUFFIXES = re.compile("_(bucket|count|sum)$")


def promtool(*arguments: str) -> str:
    """Run promtool, which must succeed, and return its output."""
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def alerts() -> dict[str, dict[str, Any]]:
    """Return the shipped alerts by name."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    found = {rule["alert"]: rule for group in groups for rule in group["rules"]}
    assert len(found) == sum(len(group["rules"]) for group in groups)
    return found


# The rules.


@needs_prometheus
def test_promtool_accepts_rules_and_configuration() -> None:
    assert f"SUCCESS: {len(alerts())} rules found" in promtool("check", "rules", str(RULES))
    promtool("check", "config", str(DEPLOY / "prometheus" / "prometheus.yml"))


@needs_prometheus
def test_rules_fire_and_stay_quiet_as_their_unit_tests_say() -> None:
    assert "SUCCESS" in promtool("test", "rules", str(RULE_TESTS))


def test_each_alert_has_a_unit_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    tested: dict[str, set[bool]] = {}
    for test in yaml.safe_load(RULE_TESTS.read_text())["tests"]:
        for each in test["alert_rule_test"]:
            tested.setdefault(each["alertname"], set()).add(bool(each["exp_alerts"]))
    assert tested == {name: {True, False} for name in alerts()}


def test_each_alert_has_a_severity_a_summary_and_a_paragraph_in_the_guide() -> None:
    headings = re.findall(r"^### (\S+)$\n+(\S.*)", GUIDE.read_text(), re.MULTILINE)
    explained = [name for name, _ in headings if name.startswith("Authsvc")]
    assert sorted(explained) == sorted(alerts())
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}, name
        assert rule["annotations"]["summary"], name
        assert rule["annotations"]["runbook"] == f"docs/operating.md#{name.lower()}"


# The dashboard.


def test_dashboard_is_complete() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24, panel["title"]
        if panel["type"] != "row":
            assert panel["description"], panel["title"]
            assert panel["targets"], panel["title"]
    places = [panel["gridPos"] for panel in panels]
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(set(cells)) == len(cells), "panels overlap"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service in which something of everything has happened that the dashboard shows."""
    directory = tmp_path_factory.mktemp("monitored")
    # Nobody answers there, so an order to end MQTT sessions stays open.
    with Service(directory, {"AUTHSVC_BROKER_URL": "mqtt://authsvc:secret@127.0.0.1:1"}) as running:
        running.create_user("bob", "secret", "write devices/%u/#", grantTypes=["password", "certificate"])
        body = {"csr": signing_request("bob", new_key())}
        assert running.call("POST", "/api/users/bob/certificates", json=body).status_code == 201
        assert running.call("POST", "/api/users/bob/disconnect").status_code == 200
        yield running


@pytest.fixture(scope="module")
def prometheus(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has scraped the service while it was in use."""
    with Prometheus(tmp_path_factory.mktemp("prometheus"), service) as running:

        def used() -> bool:
            use(service)
            return bool(running.value('sum(rate(authsvc_decisions_total{check="acl"}[5s])) > 0'))

        running.until(used)
        running.until(lambda: running.value("min_over_time(authsvc_live_brokers[3s]) > 0"))
        yield running


def use(service: Service) -> None:
    """Let brokers and administrators use the service once."""
    ask = requests.Session()
    # No wrong password for bob: 30 of them in a minute raise an alert.
    logins = [("bob", "secret"), ("unknown-device", "secret")]
    for username, password in logins:
        fields = {"username": username, "password": password, "clientid": "c-1"}
        ask.post(f"{service.broker_url}/auth/user", json=fields, timeout=20)
    for topic in ("devices/bob/up", "elsewhere"):
        access = {"username": "bob", "topic": topic, "clientid": "c-1", "acc": 2}
        ask.post(f"{service.broker_url}/auth/acl", json=access, timeout=20)
    assert Plugin(service).report().status == 200
    assert service.call("PATCH", "/api/users/bob", json={"roles": []}).status_code == 200


@needs_prometheus
@pytest.mark.parametrize("query", list(queries()), ids=lambda query: f"{query.panel}, {query.legend}")
def test_each_query_of_the_dashboard_gives_data(prometheus: Prometheus, service: Service, query: Query) -> None:
    use(service)
    prometheus.until(lambda: prometheus.value(query.expression))
    for series in prometheus.value(query.expression):
        for name in re.findall(r"\{\{(\w+)\}\}", query.legend):
            assert series.labels[name], query


def test_every_metric_of_rules_and_dashboard_exists(service: Service) -> None:
    exported = set(re.findall(r"^# TYPE (\S+) ", service.call("GET", "/metrics").text, re.MULTILINE))
    for text in (RULES.read_text(), DASHBOARD.read_text()):
        named = {SUFFIXES.sub("", name) for name in METRIC.findall(text)}
        assert named - exported == set()


@needs_prometheus
def test_rules_are_evaluated_and_a_healthy_service_fires_none(prometheus: Prometheus) -> None:
    prometheus.until(
        lambda: all(rule["health"] == "ok" for group in prometheus.get("rules")["groups"] for rule in group["rules"])
    )
    (group,) = prometheus.get("rules")["groups"]
    assert {rule["name"] for rule in group["rules"]} == alerts().keys()
    assert [rule["name"] for rule in group["rules"] if rule["state"] == "firing"] == []
