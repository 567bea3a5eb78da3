"""Devices that log in with a certificate, and the papers they show."""

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
    from paho.mqtt.client import Client


@dataclass(frozen=True)
class Papers:
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
        """The serial as the service spells it."""
        return f"{self.certificate.serial_number:x}"


def new_papers(directory: Path) -> tuple[Papers, ec.EllipticCurvePrivateKey]:
    """Return papers with a new key, and the key; a certificate is still to come."""
    directory.mkdir(parents=True)
    key = new_key()
    papers = Papers(directory)
    papers.key_file.write_text(key_pem(key))
    return papers, key


class CertifiedDevice(Device):
    """A device that trusts one broker's certificate and shows its papers, if it has any.

    `username` is what its certificate says; what it `claims` beside that in CONNECT is nobody's business.
    """

    def __init__(
        self,
        username: str,
        papers: Papers | None,
        broker_certificate: Path,
        client_id: str,
        claims: tuple[str | None, str | None] = (None, None),
        **options: Any,
    ) -> None:
        self._tls = ssl.create_default_context(cafile=broker_certificate)
        if papers:
            self._tls.load_cert_chain(papers.certificate_file, papers.key_file)
        super().__init__(*claims, client_id, **options)
        self.username = username

    def gets_in(self) -> bool:
        """Wait for an answer to CONNECT, or the end of the connection instead, and say whether it was a yes."""
        until(lambda: not self._connacks.empty() or not self.ends.empty(), "an answer to CONNECT, or none for good")
        return not self._connacks.empty() and self.connack() == 0

    def heard(self) -> list[tuple[str, bytes]]:
        """Return the messages that arrived and `received` did not return, also after the end of the connection."""
        messages = []
        while True:
            try:
                messages.append(self._messages.get_nowait())
            except Empty:
                return messages

    def _new_client(self) -> Client:
        client = super()._new_client()
        client.tls_set_context(self._tls)
        return client
