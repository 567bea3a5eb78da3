"""A broker that lets in certificates alone: `AUTHSVC_MUTUAL_TLS=yes`, where topics are for holders of a valid one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.certificates.mosquitto.plant import Plant
from tests.certificates.mosquitto.site import PlantSite
from tests.devices import NOT_AUTHORIZED, V5

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LINE = "readWrite line/#"


@pytest.fixture(scope="module")
def plant(plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """A plant without a listener for passwords, and so without a way to end sessions."""
    with Plant(tmp_path_factory.mktemp("alone"), plugin, {"AUTHSVC_MUTUAL_TLS": "yes"}) as plant:
        yield plant


@pytest.fixture
def site(plant: Plant) -> Iterator[PlantSite]:
    with PlantSite(plant) as site:
        yield site


def test_a_certificate_is_the_only_way_in(site: PlantSite) -> None:
    bob = site.add_user("bob", LINE, grantTypes=["certificate", "password"])

    assert site.plant.broker.ports == [site.plant.tls_port]
    assert not site.arrive(bob, None, claims=(bob, "secret")).gets_in()
    device = site.connect_with(bob, site.plant.enrol(bob), protocol=V5)
    assert device.subscribe("line/#") == [1]
    assert device.publish("line/1", "running") == 0
    assert device.received() == ("line/1", b"running")


def test_whoever_has_no_valid_certificate_any_more_is_denied_though_the_broker_lets_it_in(
    site: PlantSite, capsys: pytest.CaptureFixture[str]
) -> None:
    bob, carol = site.certified("bob", LINE, protocol=V5), site.certified("carol", LINE, protocol=V5)
    for each in (bob, carol):
        assert each.subscribe("line/#") == [1]

    with site.plant.lists_held_back():
        began = time.monotonic()
        site.plant.revoke(site.papers_of(bob))
        assert bob.publish("line/1", "forged") == NOT_AUTHORIZED
        took = time.monotonic() - began
        assert carol.publish("line/1", "to carol alone") == 0
        assert bob.received_so_far() == []
        assert carol.received_so_far() == [("line/1", b"to carol alone")]

        again = site.connect_with(bob.username, site.papers_of(bob), "again", protocol=V5)
        assert again.subscribe("line/#") == [NOT_AUTHORIZED]
        assert again.publish("line/1") == NOT_AUTHORIZED
    site.is_refused_by_the_next_list(bob)
    with capsys.disabled():
        print(f"\nFrom the order to revoke to the first refusal, ?grant=certificate: {took:.3f} s")  # noqa: T201


def test_a_user_whose_other_certificate_is_good_goes_on(site: PlantSite) -> None:
    bob = site.certified("bob", LINE, protocol=V5)
    others = site.plant.enrol(bob.username, f"{bob.username}-second")
    second = site.connect_with(bob.username, others, f"{bob.username}-second", protocol=V5)

    site.plant.revoke(site.papers_of(bob))
    assert second.publish("line/1") == 0
    site.is_refused_by_the_next_list(bob)
    assert site.arrive(bob.username, others, "third").gets_in()
