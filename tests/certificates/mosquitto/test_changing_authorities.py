"""Another authority signs: a new one of the service's own, or one that was brought along."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from tests.certificates.tools import certificate_for, key_pem, new_key_of, pem, write_file

if TYPE_CHECKING:
    from pathlib import Path

    from tests.certificates.mosquitto.certified import CertifiedDevice
    from tests.certificates.mosquitto.plant import Plant
    from tests.certificates.mosquitto.site import PlantSite

pytestmark = pytest.mark.slow

LINE = "readWrite line/#"


def restart_with_new_files(plant: Plant) -> None:
    """Do what an operator does after a change of authorities."""
    plant.sync()
    plant.broker.stop()
    plant.broker.start()


def enrolled(site: PlantSite, name: str) -> CertifiedDevice:
    """Return a device with a certificate of the authority that signs now; whether it gets in is another question."""
    username = site.add_user(name, LINE, grantTypes=["certificate"])
    return site.arrive(username, site.plant.enrol(username))


def authorities_of_the_broker(plant: Plant) -> int:
    return len(x509.load_pem_x509_certificates((plant.pki / "ca.pem").read_bytes()))


def test_devices_of_the_old_and_the_new_authority_both_work_until_the_overlap_ends(site: PlantSite) -> None:
    bob = enrolled(site, "bob")
    assert bob.gets_in()
    before = authorities_of_the_broker(site.plant)

    site.plant.authsvc("ca", "rotate", "--overlap-days", "1")
    carol = enrolled(site, "carol")
    restart_with_new_files(site.plant)
    assert authorities_of_the_broker(site.plant) == before + 1
    assert site.gets_in(bob)
    assert site.gets_in(carol)

    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    site.plant.stored("UPDATE authorities SET retires_at = ? WHERE retires_at IS NOT NULL", now)
    restart_with_new_files(site.plant)
    assert authorities_of_the_broker(site.plant) == 1
    assert not site.gets_in(bob)
    assert site.gets_in(carol)


def made_elsewhere(directory: Path) -> list[str]:
    """Return what `authsvc ca import` takes: an intermediate with its key, and the chain up to its root."""
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


def test_an_intermediate_that_was_brought_along_certifies_devices_and_revokes_them(
    site: PlantSite, tmp_path: Path
) -> None:
    site.plant.authsvc("ca", "import", *made_elsewhere(tmp_path))
    bob, carol = enrolled(site, "bob"), enrolled(site, "carol")
    restart_with_new_files(site.plant)
    assert site.gets_in(bob)

    site.plant.revoke(site.papers_of(bob))
    site.is_refused_by_the_next_list(bob)
    assert site.gets_in(carol)
