"""A broker for certificates only: with `AUTHSVC_MUTUAL_TLS=yes` every ACL request needs a valid certificate."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.certificates.mosquitto.deployment import Deployment
from tests.certificates.mosquitto.site import CertificateSite
from tests.devices import NOT_AUTHORIZED, V5

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LINE = "readWrite line/#"


@pytest.fixture(scope="module")
def deployment(plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A deployment without a listener for passwords, so that the service cannot disconnect clients."""
    with Deployment(tmp_path_factory.mktemp("alone"), plugin, {"AUTHSVC_MUTUAL_TLS": "yes"}) as deployment:
        yield deployment


@pytest.fixture
def site(deployment: Deployment) -> Iterator[CertificateSite]:
    with CertificateSite(deployment) as site:
        yield site


def test_login_without_a_certificate_is_refused(site: CertificateSite) -> None:
    bob = site.add_user("bob", LINE, grantTypes=["certificate", "password"])

    assert site.deployment.broker.ports == [site.deployment.tls_port]
    assert not site.connecting(bob, None, connect_as=(bob, "secret")).is_accepted()
    device = site.connect_with(bob, site.deployment.enrol(bob), protocol=V5)
    assert device.subscribe("line/#") == [1]
    assert device.publish("line/1", "running") == 0
    assert device.received() == ("line/1", b"running")


def test_user_without_a_valid_certificate_is_denied_although_the_broker_accepts_the_connection(
    site: CertificateSite, capsys: pytest.CaptureFixture[str]
) -> None:
    bob, carol = site.certified("bob", LINE, protocol=V5), site.certified("carol", LINE, protocol=V5)
    for each in (bob, carol):
        assert each.subscribe("line/#") == [1]

    with site.deployment.lists_held_back():
        began = time.monotonic()
        site.deployment.revoke(site.files_of(bob))
        assert bob.publish("line/1", "forged") == NOT_AUTHORIZED
        took = time.monotonic() - began
        assert carol.publish("line/1", "to carol alone") == 0
        assert bob.received_so_far() == []
        assert carol.received_so_far() == [("line/1", b"to carol alone")]

        again = site.connect_with(bob.username, site.files_of(bob), "again", protocol=V5)
        assert again.subscribe("line/#") == [NOT_AUTHORIZED]
        assert again.publish("line/1") == NOT_AUTHORIZED
    site.is_refused_by_the_next_list(bob)
    with capsys.disabled():
        print(f"\nFrom the order to revoke to the first refusal, ?grant=certificate: {took:.3f} s")  # noqa: T201


def test_user_with_another_valid_certificate_stays_connected(site: CertificateSite) -> None:
    bob = site.certified("bob", LINE, protocol=V5)
    others = site.deployment.enrol(bob.username, f"{bob.username}-second")
    second = site.connect_with(bob.username, others, f"{bob.username}-second", protocol=V5)

    site.deployment.revoke(site.files_of(bob))
    assert second.publish("line/1") == 0
    site.is_refused_by_the_next_list(bob)
    assert site.connecting(bob.username, others, "third").is_accepted()
