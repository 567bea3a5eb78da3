"""The devices of one test on a plant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.brokers.site import Site
from tests.certificates.mosquitto.certified import CertifiedDevice, Papers
from tests.certificates.mosquitto.waiting import until

if TYPE_CHECKING:
    from tests.certificates.mosquitto.plant import Plant
    from tests.devices import Device


class PlantSite(Site):
    """A site whose devices may log in with a certificate."""

    def __init__(self, plant: Plant) -> None:
        super().__init__(plant.service, plant.broker)
        self.plant = plant

    def certified(self, name: str, *permissions: str, **options: Any) -> CertifiedDevice:
        """Return a device that a new user with these permissions has connected with a new certificate."""
        username = self.add_user(name, *permissions, grantTypes=["certificate"])
        return self.connect_with(username, self.plant.enrol(username), **options)

    def connect_with(
        self, username: str, papers: Papers, client_id: str | None = None, **options: Any
    ) -> CertifiedDevice:
        """Return a device that got in with these papers."""
        device = self.arrive(username, papers, client_id, **options)
        assert device.gets_in()
        return device

    def gets_in(self, device: Device) -> bool:
        """Say whether another device of that user with the same papers gets in now."""
        return self.arrive(device.username, self.papers_of(device), f"{device.username}-again").gets_in()

    def is_refused_by_the_next_list(self, device: Device) -> None:
        """Wait until the broker has the lists as they are now, by which another device like that stays out."""
        self.plant.sync()
        until(lambda: not self.gets_in(device), "the certificate is refused")

    def papers_of(self, device: Device) -> Papers:
        """Return the papers that a device's user got."""
        return Papers(self.plant.directory / "devices" / device.username)

    def arrive(
        self, username: str, papers: Papers | None, client_id: str | None = None, **options: Any
    ) -> CertifiedDevice:
        """Return a device that has asked to be let in on the listener for certificates."""
        server = self.plant.pki / "server.crt"
        device = CertifiedDevice(username, papers, server, client_id or username, **options)
        self._running.callback(device.stop)
        device.start(self.plant.tls_port, self.broker.host)
        return device
