"""A change of the signing authority: a new one of the service, or an imported one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from tests.certificates.tools import certificate_for, key_pem, new_key_of, pem, write_file

if TYPE_CHECKING:
    from pathlib import Path

    from tests.certificates.mosquitto.certified import CertifiedDevice
    from tests.certificates.mosquitto.deployment import Deployment
    from tests.certificates.mosquitto.site import CertificateSite

pytestmark = pytest.mark.slow

LINE = "readWrite line/#"


def restart_with_new_files(deployment: Deployment) -> None:
    """Restart the broker, as an operator does after a change of authorities."""
    deployment.sync()
    deployment.broker.stop()
    deployment.broker.start()


def enrolled(site: CertificateSite, name: str) -> CertifiedDevice:
    """Return a device with a new certificate that has sent CONNECT; it may be refused."""
    username = site.add_user(name, LINE, grantTypes=["certificate"])
    return site.connecting(username, site.deployment.enrol(username))


def authorities_of_the_broker(deployment: Deployment) -> int:
    return len(x509.load_pem_x509_certificates((deployment.pki / "ca.pem").read_bytes()))


def test_certificates_of_the_old_and_the_new_authority_are_accepted_until_the_overlap_ends(
    site: CertificateSite,
) -> None:
    bob = enrolled(site, "bob")
    assert bob.is_accepted()
    before = authorities_of_the_broker(site.deployment)

    site.deployment.authsvc("ca", "rotate", "--overlap-days", "1")
    carol = enrolled(site, "carol")
    restart_with_new_files(site.deployment)
    assert authorities_of_the_broker(site.deployment) == before + 1
    assert site.is_accepted(bob)
    assert site.is_accepted(carol)

    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    site.deployment.stored("UPDATE authorities SET retires_at = ? WHERE retires_at IS NOT NULL", now)
    restart_with_new_files(site.deployment)
    assert authorities_of_the_broker(site.deployment) == 1
    assert not site.is_accepted(bob)
    assert site.is_accepted(carol)


def external_authority(directory: Path) -> list[str]:
    """Return the files for `authsvc ca import`: an intermediate, its key, and the chain up to the root."""
    usage = x509.KeyUsage(*(name in ("key_cert_sign", "crl_sign") for name in USAGES))
    root_key, key = new_key_of("P-384"), new_key_of("P-256")
    root = certificate_for("The Works", root_key, None, x509.BasicConstraints(ca=True, path_length=1), usage)
    above = (root, root_key)
    below = certificate_for("The Works, Hall 3", key, above, x509.BasicConstraints(ca=True, path_length=0), usage)
    contents = {"certificate": pem(below), "key": key_pem(key), "chain": pem(root)}
    return [word for name, text in contents.items() for word in (f"--{name}", str(write_file(directory, name, text)))]


USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def test_imported_intermediate_issues_and_revokes_certificates(site: CertificateSite, tmp_path: Path) -> None:
    site.deployment.authsvc("ca", "import", *external_authority(tmp_path))
    bob, carol = enrolled(site, "bob"), enrolled(site, "carol")
    restart_with_new_files(site.deployment)
    assert site.is_accepted(bob)

    site.deployment.revoke(site.files_of(bob))
    site.is_refused_by_the_next_list(bob)
    assert site.is_accepted(carol)
