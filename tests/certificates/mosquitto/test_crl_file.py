"""The broker's `crlfile` under `authsvc crl sync`: the broker always reads a valid list."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.certificates.mosquitto.lists import Reader, number_in
from tests.certificates.mosquitto.waiting import until

if TYPE_CHECKING:
    from tests.certificates.mosquitto.deployment import Deployment

pytestmark = pytest.mark.slow


def crl_reader(deployment: Deployment) -> Reader:
    return Reader(deployment.pki / "crl.pem", (deployment.pki / "ca.pem").read_text())


def current_number(deployment: Deployment) -> int:
    return number_in(deployment.service.call("GET", "/pki/crl.pem").text)


def change_list(deployment: Deployment, username: str) -> int:
    """Disable or enable a user and return the CRL number of the resulting list."""
    enabled = deployment.service.call("GET", f"/api/users/{username}").json()["enabled"]
    answer = deployment.service.call("PATCH", f"/api/users/{username}", json={"enabled": not enabled})
    assert answer.ok, answer.text
    return current_number(deployment)


@pytest.fixture
def bob(deployment: Deployment) -> str:
    """A user with a certificate; changes of this user change the list."""
    username = f"bob-{os.urandom(3).hex()}"
    deployment.service.create_user(username, grantTypes=["certificate"])
    deployment.enrol(username)
    return username


@pytest.mark.slow
def test_list_is_kept_while_the_service_is_killed_and_updated_after_its_restart(
    deployment: Deployment, bob: str
) -> None:
    file, log = deployment.pki / "crl.pem", deployment.directory / "sync.log"
    change_list(deployment, bob)
    deployment.sync()
    with crl_reader(deployment) as reader:
        before, said = file.read_text(), log.read_text()
        deployment.service.kill()
        deployment.service.api.close()
        until(lambda: "revocation list not updated" in log.read_text()[len(said) :], "the loss is noticed")
        assert file.read_text() == before
        deployment.service.start()
        latest = change_list(deployment, bob)
        until(lambda: latest in reader.numbers, "the next list is there")


def test_list_is_replaced_at_half_of_its_validity(deployment: Deployment) -> None:
    deployment.sync()
    with crl_reader(deployment) as reader:
        number = number_in((deployment.pki / "crl.pem").read_text())
        deployment.stored(
            "UPDATE authorities SET crl_this_update = datetime(crl_this_update, '-84 hours'),"
            " crl_next_update = datetime(crl_next_update, '-84 hours')"
        )
        until(lambda: number + 1 in reader.numbers, "the next list is there")
    deployment.sync()


def test_fast_changes_never_leave_an_incomplete_list(deployment: Deployment, bob: str) -> None:
    deployment.sync()
    with crl_reader(deployment) as reader:
        for _ in range(10):
            latest = change_list(deployment, bob)
        until(lambda: latest in reader.numbers, "the last list is there")
