"""A deployment with the devices of one test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.brokers.site import Site
from tests.certificates.mosquitto.certified import CertificateFiles, CertifiedDevice
from tests.certificates.mosquitto.waiting import until

if TYPE_CHECKING:
    from tests.certificates.mosquitto.deployment import Deployment
    from tests.devices import Device


CERTIFICATES_THROUGH_BOTH = pytest.mark.parametrize(
    "deployment", [pytest.param("go-auth", marks=pytest.mark.slow), "authsvc"], indirect=True, scope="session"
)
"""As `THROUGH_BOTH`, for a deployment with certificates."""


class CertificateSite(Site):
    """A `Site` whose devices can log in with a certificate."""

    def __init__(self, deployment: Deployment) -> None:
        super().__init__(deployment.service, deployment.broker)
        self.deployment = deployment

    def certified(self, name: str, *permissions: str, **options: Any) -> CertifiedDevice:
        """Return a device of a new user with these permissions, connected with a new certificate."""
        username = self.add_user(name, *permissions, grantTypes=["certificate"])
        return self.connect_with(username, self.deployment.enrol(username), **options)

    def connect_with(
        self, username: str, files: CertificateFiles, client_id: str | None = None, **options: Any
    ) -> CertifiedDevice:
        """Return a device connected with this certificate."""
        device = self.connecting(username, files, client_id, **options)
        assert device.is_accepted()
        return device

    def is_accepted(self, device: Device) -> bool:
        """Return whether another device with the same certificate is accepted now."""
        return self.connecting(device.username, self.files_of(device), f"{device.username}-again").is_accepted()

    def is_refused_by_the_next_list(self, device: Device) -> None:
        """Wait until the broker has the current lists and refuses another device with the same certificate."""
        self.deployment.sync()
        until(lambda: not self.is_accepted(device), "the certificate is refused")

    def files_of(self, device: Device) -> CertificateFiles:
        """Return the certificate files of a device."""
        return CertificateFiles(self.deployment.directory / "devices" / device.username)

    def connecting(
        self, username: str, files: CertificateFiles | None, client_id: str | None = None, **options: Any
    ) -> CertifiedDevice:
        """Return a device that has sent CONNECT to the listener for certificates."""
        server = self.deployment.pki / "server.crt"
        device = CertifiedDevice(username, files, server, client_id or username, **options)
        self._running.callback(device.stop)
        device.start(self.deployment.tls_port, self.broker.host)
        return device
