"""Sample data for a small plant, and the list of pages that show it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal, NamedTuple

import requests

from tests.live_clients import OTHER_BOOT, SINCE, connected, report_to
from tests.registry.signing import signing_request
from tests.service import permission

if TYPE_CHECKING:
    from tests.service import Service

Scheme = Literal["light", "dark"]
WIDTHS = (1280, 390)
SCHEMES: tuple[Scheme, ...] = ("light", "dark")

_ROLES = {
    "line-operator": ("Reads the topics of every machine on the line", ["read plant/line-2/#"]),
    "machine": ("A machine's own topics", ["write plant/+/%u/#", "read plant/+/%u/set"]),
    "dashboards": ("Reads every topic", ["read #"]),
}
_MACHINES = ("press-7", "press-8", "gate-3", "oven-1", "robot-12", "scale-4")
_UNKNOWN_DEVICES = {"press-9": 14, "camera-2": 3, "gateway-north": 41}


class Stop(NamedTuple):
    """A page of the tour; `dialog` is the text of a link to click after the page has loaded."""

    name: str
    path: str
    dialog: str | None = None


def seed(service: Service) -> list[Stop]:
    """Fill a new service with sample data, and return the pages to visit."""
    _roles_and_users(service)
    serial = _certificates(service)
    _unknown_devices(service)
    _denials(service)
    _preauthorizations_and_keys(service)
    _clients(service)
    notification = _notifications(service)
    assert service.call("POST", "/api/me/otp").status_code == 201
    service.call("POST", "/api/tokens", json={"label": "nightly backup", "expireTimeInHours": 87_600})
    service.call("POST", "/api/tokens", json={"username": "scale-4", "label": "scale in hall 2"})
    return [
        Stop("overview", "/admin"),
        Stop("client-registry", "/admin/registry"),
        Stop("grant-access", "/admin/registry", dialog="welder-5"),
        Stop("preauthorizations", "/admin/registry/preauthorizations"),
        Stop("enrolment-keys", "/admin/registry/enrolment-keys"),
        Stop("refused-names", "/admin/registry/refused-names"),
        Stop("users", "/admin/users"),
        Stop("user", "/admin/users/press-7"),
        Stop("user-edit", "/admin/users/press-7/edit"),
        Stop("user-new", "/admin/new-user"),
        Stop("import", "/admin/import/mosquitto"),
        Stop("allow-this", "/admin/users/press-7", dialog="Allow this"),
        Stop("roles", "/admin/roles"),
        Stop("role", "/admin/roles/machine"),
        Stop("clients", "/admin/clients"),
        Stop("certificates", "/admin/certificates"),
        Stop("certificate", f"/admin/certificates/{serial}"),
        Stop("certificate-new", "/admin/users/press-7/certificates/new"),
        Stop("tokens", "/admin/tokens"),
        Stop("notifications", "/admin/notifications"),
        Stop("notification", f"/admin/notifications/{notification}"),
        Stop("notification-edit", f"/admin/notifications/{notification}/edit"),
        Stop("notification-new", "/admin/new-notification"),
        Stop("sessions", "/admin/sessions"),
        Stop("account", "/admin/account"),
        Stop("second-factor", "/admin/account/second-factor"),
        Stop("denials", "/admin/denials"),
        Stop("audit", "/admin/audit"),
        Stop("status", "/admin/status"),
    ]


def _roles_and_users(service: Service) -> None:
    for name, (description, permissions) in _ROLES.items():
        body = {"name": name, "description": description, "permissions": list(map(permission, permissions))}
        assert service.call("POST", "/api/roles", json=body).status_code == 201
    for name in _MACHINES:
        service.create_user(
            name, f"secret of {name}", roles=["machine"], grantTypes=["password", "certificate", "token"]
        )
    service.create_user("erika", "secret of erika", roles=["line-operator", "dashboards"])


def _certificates(service: Service) -> str:
    serials = []
    for name, days in (("press-7", 365), ("gate-3", 12), ("oven-1", 300)):
        body = {"csr": signing_request(name), "days": days}
        serials.append(str(service.call("POST", f"/api/users/{name}/certificates", json=body).json()["serial"]))
    service.call("POST", f"/api/certificates/{serials[2]}/revoke", json={"reason": "superseded"})
    return serials[0]


def _unknown_devices(service: Service) -> None:
    _attempt_login(service, "camera-9", 2)  # while it is locked
    _wait_for_registrations(service, 1)
    service.call("POST", "/api/client-registry/unlock", json={"durationSeconds": 1800})
    for name, attempts in _UNKNOWN_DEVICES.items():
        _attempt_login(service, name, attempts)
    _attempt_login(service, "camera-2", 2, password="another secret")
    body = {
        "username": "welder-5",
        "csr": signing_request("welder-5"),
        "context": {"hall": "2", "maker": "Kjellberg", "serial": "W-20417"},
        "roles": ["machine"],
        "permissions": [permission("read plant/line-2/plan")],
    }
    answer = requests.post(service.url + "/api/client-registry/register", json=body, timeout=10)
    assert answer.status_code == 202, answer.text
    _wait_for_registrations(service, 5)


def _attempt_login(service: Service, username: str, times: int, password: str = "factory default") -> None:
    for _ in range(times):
        _post_webhook(service, "user", username=username, password=password, clientid=f"{username}-main")


def _wait_for_registrations(service: Service, count: int) -> None:
    deadline = time.monotonic() + 10
    while service.call("GET", "/api/client-registry").json()["pending"] < count:
        assert time.monotonic() < deadline, "the unknown devices were not recorded"
        time.sleep(0.05)


def _denials(service: Service) -> None:
    for name in _MACHINES:
        for number in range(9):
            password = f"secret of {name}" if number % 4 else "wrong"
            _post_webhook(service, "user", username=name, password=password, clientid=f"{name}-main")
    for topic, access, times in (("plant/line-2/plan", 4, 9), ("plant/line-1/press-7/state", 2, 3), ("alarms", 2, 23)):
        for _ in range(times):
            _post_webhook(service, "acl", username="press-7", clientid="press-7-main", topic=topic, acc=access)
    deadline = time.monotonic() + 10
    while len(service.call("GET", "/api/users/press-7/denials").json()["items"]) < 3:
        assert time.monotonic() < deadline, "the denials were not recorded"
        time.sleep(0.05)


def _preauthorizations_and_keys(service: Service) -> None:
    for number in range(20, 23):
        body = {"username": f"robot-{number}", "roles": ["machine"]}
        assert service.call("POST", "/api/client-registry/preauthorizations", json=body).status_code == 201
    key = {"label": "hall 3, first batch", "uses": 25, "roles": ["machine"]}
    assert service.call("POST", "/api/client-registry/enrolment-keys", json=key).status_code == 201


def _clients(service: Service) -> None:
    machines = [
        connected(number, name, f"{name}-main", address=f"10.0.2.{number}", credential=credential)
        for number, (name, credential) in enumerate(zip(_MACHINES, ["password", "certificate"] * 3, strict=True), 17)
    ]
    report_to(service, *machines, name="hall-2")
    panel = connected(3, "erika", "tablet/erika", address="2001:db8::1f", protocol="MQTT 3.1.1", since=SINCE)
    report_to(service, panel, boot=OTHER_BOOT, name="office")


def _notifications(service: Service) -> str:
    """Create two notifications, and return the id of one with messages."""
    # Documentation addresses, which the service refuses to send to.
    hooks = {"operators": "https://hooks.plant.example/authsvc/4f1c", "on call": "https://pager.plant.example/v1"}
    for name, url in hooks.items():
        body = {"name": name, "url": url, "events": ["registration.pending", "certificate.expiring"]}
        answer = service.call("POST", "/api/notifications", json=body)
        assert answer.status_code == 201, answer.text
    notification = str(answer.json()["id"])
    service.call("POST", f"/api/notifications/{notification}/test")
    return notification


def _post_webhook(service: Service, check: str, **fields: str | int) -> None:
    requests.post(f"{service.url}/auth/{check}", json=fields, timeout=10)
