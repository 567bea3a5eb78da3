"""A service and what it certifies: its administrator calls the API, Bob is a device with a key of his own."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import pytest
from cryptography import x509

from authsvc.accounts import users
from authsvc.app import create_app
from authsvc.broker.goauth_protocol import WebhookRequest
from authsvc.broker.signals import unknown_username
from authsvc.pki.authorities import signing_policy
from authsvc.policy.snapshot import GrantType
from authsvc.storage.database import session
from authsvc.storage.models import DisconnectOrder
from authsvc.web.request_context import EXTENSION, Services
from registry.api import routes
from tests.actors import ADMIN_PASSWORD, BOBS_PASSWORD, HASHER, OPERATOR, mqtt
from tests.http.callers import Caller, basic
from tests.registry.signing import new_key, signing_request

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
    from flask_openapi3.openapi import OpenAPI
    from werkzeug.test import TestResponse

    from authsvc.accounts.users import UserChanges
    from authsvc.settings import Settings

ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True, ids=[""])
ON_POSTGRESQL = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True, ids=[""])
BOTH_WAYS = frozenset({GrantType.CERTIFICATE, GrantType.PASSWORD})


@dataclass(frozen=True)
class Scene:
    """A service as one of its workers sees it, without the threads beside it."""

    app: OpenAPI

    @classmethod
    def opened(cls, settings: Settings) -> Scene:
        scene = cls(create_app(settings))
        scene.services.policy.catch_up()
        return scene

    def close(self) -> None:
        """Listen to strangers no more; the signal is the whole process's."""
        unknown_username.disconnect(self.app.extensions[routes.EXTENSION].mqtt_registration.enqueue)

    @property
    def services(self) -> Services:
        return cast("Services", self.app.extensions[EXTENSION])

    @property
    def admin(self) -> Caller:
        return Caller(self.app.test_client(), basic("admin", ADMIN_PASSWORD))

    @property
    def stranger(self) -> Caller:
        return Caller(self.app.test_client())

    def moves_in(self, username: str, **fields: Any) -> None:
        """Make a user who logs in by certificate and by Bob's password, and may publish under its name."""
        wanted = {
            "password": BOBS_PASSWORD,
            "grant_types": BOTH_WAYS,
            "permissions": (mqtt("write", "devices/%u/#"),),
            **fields,
        }
        users.create(OPERATOR, username, cast("UserChanges", wanted), HASHER)

    def changes(self, username: str = "bob", **fields: Any) -> None:
        users.change(OPERATOR, username, cast("UserChanges", fields), HASHER)

    def asks(
        self, username: str = "bob", key: CertificateIssuerPrivateKeyTypes | None = None, **body: Any
    ) -> TestResponse:
        """Let the administrator ask for a certificate for a key of the user's, a new one unless it is given."""
        csr = signing_request(username, key or new_key())
        return self.admin.post(f"/api/users/{username}/certificates", {"csr": csr, **body})

    def certifies(
        self, username: str = "bob", key: CertificateIssuerPrivateKeyTypes | None = None, **body: Any
    ) -> x509.Certificate:
        """`asks`, which must succeed."""
        answer = self.asks(username, key, **body)
        assert answer.status_code == 201, answer.text
        return x509.load_pem_x509_certificate(answer.get_json()["certificate"].encode())

    def revokes(self, certificate: x509.Certificate, reason: str = "unspecified") -> TestResponse:
        return self.admin.post(f"/api/certificates/{serial_of(certificate)}/revoke", {"reason": reason})

    def shows(self, certificate: x509.Certificate) -> dict[str, Any]:
        """Return a certificate as the administrator sees it."""
        answer = self.admin.get(f"/api/certificates/{serial_of(certificate)}")
        assert answer.status_code == 200, answer.text
        return cast("dict[str, Any]", answer.get_json())

    def answers(self, username: str = "bob", query: bytes = b"grant=certificate") -> str:
        """Ask as the broker does when a client publishes under its name; return `ok` or the reason for no."""
        self.services.policy.catch_up()
        fields = {"username": username, "clientid": "c1", "topic": f"devices/{username}/up", "acc": 2}
        request = WebhookRequest("acl", query, b"application/json", b"", json.dumps(fields).encode())
        answer = self.services.webhooks.answer(request)
        return cast("str", json.loads(answer.body)["error"] or "ok")

    def ca_pem(self) -> str:
        return self.stranger.get("/pki/ca.pem").text

    def crl_pem(self) -> str:
        return self.stranger.get("/pki/crl.pem").text

    def crl(self) -> x509.CertificateRevocationList:
        """Return the list of the authority that signs now."""
        return x509.load_der_x509_crl(self.stranger.get("/pki/crl.der").data)

    def listed(self) -> dict[str, str]:
        """Return the serials that the list of the authority that signs now names, and why."""
        return entries_of(self.crl())

    def under(self, **changes: Any) -> Scene:
        """Return the same service under other settings."""
        return Scene.opened(replace(self.services.settings, **changes))

    @property
    def issuing(self) -> Any:
        return signing_policy(self.services.settings)


def serial_of(certificate: x509.Certificate) -> str:
    """Spell a serial as the service does."""
    return f"{certificate.serial_number:x}"


def number_of(revocations: x509.CertificateRevocationList) -> int:
    return revocations.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def entries_of(revocations: x509.CertificateRevocationList) -> dict[str, str]:
    """Return serials and reasons, `unspecified` where the list is silent as RFC 5280 wants it."""
    return {f"{entry.serial_number:x}": _reason(entry) for entry in revocations}


def _reason(entry: x509.RevokedCertificate) -> str:
    for extension in entry.extensions:
        if isinstance(extension.value, x509.CRLReason):
            return extension.value.reason.value
    return "unspecified"


def lists_in(pem: str) -> list[x509.CertificateRevocationList]:
    """Return each of the revocation lists in a file."""
    end = "-----END X509 CRL-----\n"
    return [x509.load_pem_x509_crl((part + end).encode()) for part in pem.split(end) if part]


def orders() -> list[tuple[str, str]]:
    """Return whose sessions were ordered to end, and why, oldest first."""
    with session():
        return [(row.username, row.cause) for row in DisconnectOrder.select().order_by(DisconnectOrder.id)]
