"""A device renews its certificate by itself; old and new overlap, then the old one ends."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.certificates.mosquitto.certified import Papers
from tests.certificates.mosquitto.waiting import until
from tests.devices import V5

if TYPE_CHECKING:
    from tests.certificates.mosquitto.plant import Plant
    from tests.certificates.mosquitto.site import PlantSite

TWO_THIRDS_OF_A_YEAR = 250


def renew(plant: Plant, papers: Papers) -> None:
    """Do what cron does on the device."""
    said = plant.authsvc("register", "--renew", "--server", plant.service.url, "--out", papers.directory)
    assert said.startswith("renewed")


def end_overlap(plant: Plant, papers: Papers) -> None:
    """Let the time be over that the old certificate had left."""
    (revoked_at,) = plant.stored("SELECT revoked_at FROM certificates WHERE serial = ?", papers.serial)
    assert revoked_at > f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}"
    plant.stored("UPDATE certificates SET revoked_at = ? WHERE serial = ?", now, papers.serial)


def test_a_renewed_certificate_works_beside_the_old_one_until_their_overlap_ends(site: PlantSite) -> None:
    username = site.add_user("bob", "readWrite line/#", grantTypes=["certificate"])
    papers = site.plant.enrol(username)
    site.plant.ages(papers, TWO_THIRDS_OF_A_YEAR)
    old = Papers(papers.directory.with_name(f"{username}-old"))
    shutil.copytree(papers.directory, old.directory)
    renew(site.plant, papers)
    assert papers.serial != old.serial

    by_old = site.connect_with(username, old, client_id=f"{username}-old", protocol=V5)
    by_new = site.connect_with(username, papers, protocol=V5, returns=True)
    for each in (by_old, by_new):
        assert each.publish("line/1") == 0

    end_overlap(site.plant, old)
    site.plant.sync()
    until(lambda: not site.arrive(username, old, "old").gets_in(), "the old certificate is refused")
    assert site.arrive(username, papers, "new").gets_in()
    # The user has another valid certificate, so nobody's session ends.
    assert by_old.publish("line/1") == 0
    assert by_old.stayed_connected()
    assert by_new.stayed_connected()
