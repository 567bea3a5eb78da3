"""`AUTHSVC_LOCAL_SIGN_IN=loopback`: local administrators sign in on the machine of the service only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import requests

from tests.service import ADMIN_PASSWORD, Service

if TYPE_CHECKING:
    from pathlib import Path

ELSEWHERE = {"X-Forwarded-For": "203.0.113.5"}


def log_in(service: Service, username: str, password: str, **headers: str) -> requests.Response:
    body = {"username": username, "password": password}
    return requests.post(service.url + "/api/login", json=body, headers=headers, timeout=20)


def test_administrators_sign_in_on_this_machine_and_others_from_anywhere(tmp_path: Path) -> None:
    settings = {"AUTHSVC_LOCAL_SIGN_IN": "loopback", "AUTHSVC_TRUSTED_PROXIES": "127.0.0.1"}
    with Service(tmp_path, settings) as service:
        service.create_user("press-7", "a local password", "http read /api/me")
        assert log_in(service, "admin", ADMIN_PASSWORD).status_code == 200
        assert log_in(service, "press-7", "a local password", **ELSEWHERE).status_code == 200
        refused = [log_in(service, "admin", password, **ELSEWHERE) for password in (ADMIN_PASSWORD, "wrong")]
        assert [answer.status_code for answer in refused] == [401, 401]
        # The answer does not tell whose password is right.
        assert refused[0].json()["detail"] == refused[1].json()["detail"]
        basic = requests.get(service.url + "/api/me", auth=("admin", ADMIN_PASSWORD), headers=ELSEWHERE, timeout=20)
        assert basic.status_code == 401
