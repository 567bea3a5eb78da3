"""A device renews its certificate. The old one stays valid during the overlap."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.certificates.mosquitto.certified import CertificateFiles
from tests.certificates.mosquitto.site import CERTIFICATES_THROUGH_BOTH
from tests.certificates.mosquitto.waiting import until
from tests.devices import V5

if TYPE_CHECKING:
    from tests.certificates.mosquitto.deployment import Deployment
    from tests.certificates.mosquitto.site import CertificateSite

pytestmark = CERTIFICATES_THROUGH_BOTH

TWO_THIRDS_OF_A_YEAR = 250


def renew(deployment: Deployment, files: CertificateFiles) -> None:
    """Renew the certificate, as cron does on a device."""
    said = deployment.authsvc("register", "--renew", "--server", deployment.service.url, "--out", files.directory)
    assert said.startswith("renewed")


def end_overlap(deployment: Deployment, files: CertificateFiles) -> None:
    """End the overlap of the old certificate."""
    (revoked_at,) = deployment.stored("SELECT revoked_at FROM certificates WHERE serial = ?", files.serial)
    assert revoked_at > f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}"
    deployment.stored("UPDATE certificates SET revoked_at = ? WHERE serial = ?", now, files.serial)


def test_old_certificate_is_accepted_beside_the_renewed_one_until_the_overlap_ends(site: CertificateSite) -> None:
    username = site.add_user("bob", "readWrite line/#", grantTypes=["certificate"])
    files = site.deployment.enrol(username)
    site.deployment.make_older(files, TWO_THIRDS_OF_A_YEAR)
    old = CertificateFiles(files.directory.with_name(f"{username}-old"))
    shutil.copytree(files.directory, old.directory)
    renew(site.deployment, files)
    assert files.serial != old.serial

    by_old = site.connect_with(username, old, client_id=f"{username}-old", protocol=V5)
    by_new = site.connect_with(username, files, protocol=V5, returns=True)
    for each in (by_old, by_new):
        assert each.publish("line/1") == 0

    end_overlap(site.deployment, old)
    site.deployment.sync()
    until(lambda: not site.connecting(username, old, "old").is_accepted(), "the old certificate is refused")
    assert site.connecting(username, files, "new").is_accepted()
    # The user has another valid certificate, so no device is disconnected.
    assert by_old.publish("line/1") == 0
    assert by_old.stayed_connected()
    assert by_new.stayed_connected()
