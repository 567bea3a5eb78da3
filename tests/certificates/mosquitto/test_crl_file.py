"""The broker's `crlfile` under `authsvc crl sync`: the broker always reads a valid list."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.certificates.mosquitto.lists import Reader, number_in
from tests.certificates.mosquitto.waiting import until

if TYPE_CHECKING:
    from tests.certificates.mosquitto.plant import Plant


def read_all_the_while(plant: Plant) -> Reader:
    return Reader(plant.pki / "crl.pem", (plant.pki / "ca.pem").read_text())


def current_number(plant: Plant) -> int:
    return number_in(plant.service.call("GET", "/pki/crl.pem").text)


def change_the_list(plant: Plant, username: str) -> int:
    """Suspend a user or take that back, and return the number of the list that says so."""
    enabled = plant.service.call("GET", f"/api/users/{username}").json()["enabled"]
    answer = plant.service.call("PATCH", f"/api/users/{username}", json={"enabled": not enabled})
    assert answer.ok, answer.text
    return current_number(plant)


@pytest.fixture
def bob(plant: Plant) -> str:
    """A user with a certificate, without whom no list would change."""
    username = f"bob-{os.urandom(3).hex()}"
    plant.service.create_user(username, grantTypes=["certificate"])
    plant.enrol(username)
    return username


@pytest.mark.slow
def test_a_service_that_is_killed_leaves_the_list_alone_and_is_heard_again_when_it_is_back(
    plant: Plant, bob: str
) -> None:
    file, log = plant.pki / "crl.pem", plant.directory / "sync.log"
    change_the_list(plant, bob)
    plant.sync()
    with read_all_the_while(plant) as reader:
        before, said = file.read_text(), log.read_text()
        plant.service.kill()
        plant.service.api.close()
        until(lambda: "revocation list not updated" in log.read_text()[len(said) :], "the loss is noticed")
        assert file.read_text() == before
        plant.service.start()
        latest = change_the_list(plant, bob)
        until(lambda: latest in reader.numbers, "the next list is there")


def test_a_list_is_replaced_at_half_of_its_life(plant: Plant) -> None:
    plant.sync()
    with read_all_the_while(plant) as reader:
        number = number_in((plant.pki / "crl.pem").read_text())
        plant.stored(
            "UPDATE authorities SET crl_this_update = datetime(crl_this_update, '-84 hours'),"
            " crl_next_update = datetime(crl_next_update, '-84 hours')"
        )
        until(lambda: number + 1 in reader.numbers, "the next list is there")
    plant.sync()


def test_lists_that_follow_each_other_fast_arrive_whole(plant: Plant, bob: str) -> None:
    plant.sync()
    with read_all_the_while(plant) as reader:
        for _ in range(10):
            latest = change_the_list(plant, bob)
        until(lambda: latest in reader.numbers, "the last list is there")
