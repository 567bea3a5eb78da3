"""Devices that log in with a certificate, and their certificate files."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from queue import Empty
from typing import TYPE_CHECKING, Any

from cryptography import x509

from tests.certificates.mosquitto.waiting import until
from tests.certificates.tools import key_pem
from tests.devices import Device
from tests.registry.signing import new_key

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric import ec


@dataclass(frozen=True)
class CertificateFiles:
    """The files of a device's key and certificate, by the names that `authsvc register` gives them."""

    directory: Path

    @property
    def key_file(self) -> Path:
        return self.directory / "client.key"

    @property
    def certificate_file(self) -> Path:
        return self.directory / "client.crt"

    @property
    def certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.certificate_file.read_bytes())

    @property
    def serial(self) -> str:
        """The serial number in the service's form."""
        return f"{self.certificate.serial_number:x}"


def new_certificate_files(directory: Path) -> tuple[CertificateFiles, ec.EllipticCurvePrivateKey]:
    """Write a new key; return the files, still without a certificate, and the key."""
    directory.mkdir(parents=True)
    key = new_key()
    files = CertificateFiles(directory)
    files.key_file.write_text(key_pem(key))
    return files, key


class CertifiedDevice(Device):
    """A device that trusts one broker's certificate and presents its own certificate, if it has one.

    `username` is the common name of its certificate. `connect_as` is the username and password in its CONNECT.
    """

    def __init__(
        self,
        username: str,
        files: CertificateFiles | None,
        broker_certificate: Path,
        client_id: str,
        connect_as: tuple[str | None, str | None] = (None, None),
        **options: Any,
    ) -> None:
        tls = ssl.create_default_context(cafile=broker_certificate)
        if files:
            tls.load_cert_chain(files.certificate_file, files.key_file)
        super().__init__(*connect_as, client_id, tls=tls, **options)
        self.username = username

    def is_accepted(self) -> bool:
        """Wait for a CONNACK or the end of the connection; return whether the CONNACK accepted the device."""
        until(lambda: not self._connacks.empty() or not self.ends.empty(), "a CONNACK or the end of the connection")
        return not self._connacks.empty() and self.connack() == 0

    def pending_messages(self) -> list[tuple[str, bytes]]:
        """Return the messages that `received` has not returned yet, also after the end of the connection."""
        messages = []
        while True:
            try:
                messages.append(self._messages.get_nowait())
            except Empty:
                return messages
